// What a level offers to the family: one table of functions, by dtype.
#pragma once

#include "core/broadcast.hpp"
#include "core/dtype.hpp"
#include "core/isa.hpp"
#include "core/matmul.hpp"
#include "mitchell/parameters.hpp"

namespace slipstick::cpu::mitchell {

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

struct ElementwiseKernels {
    PerDtype<ElementwiseFn> multiply;
    PerDtype<ElementwiseFn> divide;
};
struct MatmulKernels {
    PerDtype<const Matmul*> matmul;
};

}  // namespace slipstick::cpu::mitchell

namespace slipstick::cpu {
SLIPSTICK_LEVEL_TABLE(mitchell::ElementwiseKernels, mitchell_elementwise_kernels)
SLIPSTICK_LEVEL_TABLE(mitchell::MatmulKernels, mitchell_matmul_kernels)
}  // namespace slipstick::cpu
