// What a level offers to gradients beside the kernels of matrix products.
#pragma once

#include "mitchell/kernels.hpp"

namespace slipstick::cpu::mitchell {

// The bits of a factor, from those of an operand b and of its partner a, in lanes of the sums:
//   ((|b| + (|a| & fraction) + offset) & keep), with b's sign; 0 for b below `smallest`, and from
// `infinity` on infinite; NaN where a or b is infinite or NaN.
struct FactorConstants {
    uint64_t fraction;  // 0: the partner's has no part in it
    uint64_t offset;
    uint64_t keep;
    uint64_t smallest;
    uint64_t infinity;  // of the operands' own format
};

// acc[i][k] (+)= sum over j of left[i][j] * factor(b = right[j][k], a = own[i][k]), a chain of
// `depth` products; columns in whole tiles. `own` is packed like `right`, with `own_depth` rows in
// every panel.
using FactorSumsFn = void (*)(const FactorConstants& constants, int64_t rows, int64_t depth,
                              int64_t columns, const void* left, const void* right, const void* own,
                              int64_t own_depth, void* acc, int64_t acc_stride, bool accumulate);
// Leaves the `terms` leading ones of each of `count` packed elements.
using KeepOnesFn = void (*)(int64_t terms, int64_t count, void* packed);

// For sums in float32 or in float64.
struct Backward {
    FactorSumsFn finite;  // no factor is infinite or NaN
    FactorSumsFn general;
    KeepOnesFn keep_ones;
};
struct BackwardKernels {
    Backward narrow;
    Backward wide;
};

}  // namespace slipstick::cpu::mitchell

namespace slipstick::cpu {
SLIPSTICK_LEVEL_TABLE(mitchell::BackwardKernels, mitchell_backward_kernels)
}  // namespace slipstick::cpu
