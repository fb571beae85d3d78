// What a level offers to gradients beside the kernels of matrix products.
#pragma once

#include "mitchell/factors.hpp"
#include "mitchell/kernels.hpp"

namespace slipstick::cpu::mitchell {

using FactorConstants = slipstick::mitchell::FactorConstants<uint64_t>;

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
