// What a level offers to the family: one table of functions, by dtype.
#pragma once

#include "core/broadcast.hpp"
#include "core/dtype.hpp"
#include "core/isa.hpp"
#include "core/matmul.hpp"
#include "mitchell/methods.hpp"

namespace slipstick::cpu::mitchell {

using slipstick::mitchell::Kind;
using slipstick::mitchell::Parameters;

using ElementwiseFn = void (*)(const Strip& strip, const Parameters& parameters);

// Packs `count` rows (or columns) of `depth` elements; see pack_panels in core/tile.hpp.
using PackFn = void (*)(const void* source, int64_t stride, int64_t depth_stride, int64_t count,
                        int64_t depth, void* packed);

// A matrix product: two kernels, of which `finite` asks for operands without infinities and NaNs
// and is about 1.5 times as fast. The mac argument of both is Parameters.
struct Matmul {
    MatmulKernel general;
    MatmulKernel finite;
    PackFn pack_left;
    PackFn pack_right;
    bool (*is_finite)(const void* source, int64_t count, int64_t stride);
};

// By method, then by dtype; null where a method does not take the dtype.
template <class Fn>
struct PerMethod {
    PerDtype<Fn> fn[slipstick::mitchell::kMethodCount];
    constexpr const PerDtype<Fn>& operator[](Kind kind) const { return fn[static_cast<int>(kind)]; }
};

struct FloatKernels {
    PerMethod<ElementwiseFn> multiply;
    PerDtype<ElementwiseFn> divide;
};
struct IntegerKernels {
    PerMethod<ElementwiseFn> multiply;
};
// Operands of floating-point dtypes; `power` takes exponents of the operands' dtype, `power_number`
// a float64.
struct FunctionKernels {
    PerDtype<ElementwiseFn> sqrt;
    PerDtype<ElementwiseFn> log2;
    PerDtype<ElementwiseFn> exp2;
    PerDtype<ElementwiseFn> power;
    PerDtype<ElementwiseFn> power_number;
};
struct MatmulKernels {
    PerDtype<const Matmul*> matmul;
};

}  // namespace slipstick::cpu::mitchell

namespace slipstick::cpu {
SLIPSTICK_LEVEL_TABLE(mitchell::FloatKernels, mitchell_float_kernels)
SLIPSTICK_LEVEL_TABLE(mitchell::IntegerKernels, mitchell_integer_kernels)
SLIPSTICK_LEVEL_TABLE(mitchell::FunctionKernels, mitchell_function_kernels)
SLIPSTICK_LEVEL_TABLE(mitchell::MatmulKernels, mitchell_matmul_kernels)
}  // namespace slipstick::cpu
