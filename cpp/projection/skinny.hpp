// Products of a large matrix with few columns, for the randomized SVD: the matrix is read where it
// lies, once for all columns. Sums run in blocks of 256, added in order, so that the bits depend on
// neither threads nor batch (levels without fma round twice).
#pragma once

#include "core/tensor.hpp"

namespace slipstick::cpu::projection {

// out (m, w) = a (m, n) right (n, w), and out (n, w) = a^T left (m, w). All float32 or all float64;
// the last axis of a is contiguous, the others have any strides. Throws std::invalid_argument or
// TypeError where they do not fit.
void skinny_times(const ConstTensor& a, const ConstTensor& right, const Tensor& out);
void skinny_transposed(const ConstTensor& a, const ConstTensor& left, const Tensor& out);

}  // namespace slipstick::cpu::projection
