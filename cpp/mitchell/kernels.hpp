// What a level offers to the family: one table of functions, by dtype.
#pragma once

#include "core/broadcast.hpp"
#include "core/dtype.hpp"
#include "core/isa.hpp"
#include "core/matmul.hpp"

namespace slipstick::cpu::mitchell {

// The method as the kernels take it: `c` is 1.0 less the offset in the bits of the operands'
// format; `fraction` is floor(offset * 2^64), for integers.
struct Constants {
    uint64_t c;
    uint64_t fraction;
};

using ElementwiseFn = void (*)(const Strip& strip, const Constants& constants);

// Packs `count` rows (or columns) of `depth` elements; see pack_panels in core/tile.hpp.
using PackFn = void (*)(const void* source, int64_t stride, int64_t depth_stride, int64_t count,
                        int64_t depth, void* packed);

// A matrix product: two kernels, of which `finite` asks for operands without infinities and NaNs
// and is about 1.5 times as fast. The mac argument of both is a Constants.
struct Matmul {
    MatmulKernel general;
    MatmulKernel finite;
    PackFn pack_left;
    PackFn pack_right;
    bool (*is_finite)(const void* source, int64_t count, int64_t stride);
};

struct Kernels {
    PerDtype<ElementwiseFn> multiply;
    PerDtype<ElementwiseFn> divide;
    PerDtype<const Matmul*> matmul;
};

}  // namespace slipstick::cpu::mitchell

namespace slipstick::cpu {
SLIPSTICK_LEVEL_TABLE(mitchell::Kernels, mitchell_kernels)
}  // namespace slipstick::cpu
