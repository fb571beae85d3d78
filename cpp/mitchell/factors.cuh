// The matrix product of three operands: a factor of every product depends on where its sum stands.
#pragma once

#include "mitchell/factors.hpp"
#include "mitchell/ranges.cuh"
#include "mitchell/tile.cuh"

namespace slipstick::cuda::mitchell {

// out[i][j] = sum over k of grad[i][k] * factor(b = other[k][j], a = own[i][j]), for every result
// of a batch. A partner that makes a factor infinite or NaN is looked for in the whole of `own` and
// `other`, on the device.
struct FactorProblem {
    slipstick::mitchell::FactorRules rules;
    const Range* other_range;
    const Range* own_range;
    Dtype dtype;
    int item;  // its bytes, which multiply_factors knows
    int64_t rows;
    int64_t columns;
    int64_t depth;
    Operand grad;
    Operand other;
    const void* own;
    int64_t own_row;  // steps in elements
    int64_t own_column;
    Target out;
    // The axes of the batch, the last one fastest, and the steps of grad, other, own and out.
    int rank;
    int64_t size[kMaxRank];
    int64_t step[4][kMaxRank];
    int64_t first_batch;
};

void multiply_factors(const Context& context, const char* function, FactorProblem problem);

}  // namespace slipstick::cuda::mitchell
