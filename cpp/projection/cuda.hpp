// The projection family on CUDA devices: the functions are the CPU's (projection/projection.hpp),
// and so are the bits of their results. Tensors lie on the context's device, nothing waits for it,
// and a call can be captured into a graph. The random matrix never lies in the device's memory.
#pragma once

#include "core/cuda.hpp"
#include "core/tensor.hpp"
#include "projection/csr_matrix.hpp"
#include "projection/law.hpp"
#include "projection/results.hpp"

namespace slipstick::cuda::projection {

using slipstick::projection::Kind;
using slipstick::projection::Law;

// Dense x, and the adjoint. `fast` allows other bits: signs times 16 or 32 bits then run
// on tensor cores, with the error of float32 sums.
void project(const Context& context, const ConstTensor& x, const Law& law, uint64_t first_feature,
             bool fast, const Tensor& out);
void back_project(const Context& context, const ConstTensor& y, const Law& law,
                  uint64_t first_feature, const Tensor& out);

// Sparse rows. What they hold is not looked at before: a row whose column indices do not increase,
// or lie outside of the features, becomes NaN.
void project_csr(const Context& context, const slipstick::projection::Csr& x, const Law& law,
                 uint64_t first_feature, const Tensor& out);

// out[i][j] = A[first_row + i][first_column + j], float64 or float32.
void block(const Context& context, const Law& law, uint64_t first_row, uint64_t first_column,
           const Tensor& out);

// As the CPU's (projection/signs.hpp); the bits of a sum that is NaN are 0.
void gaussian_signs(const Context& context, const ConstTensor& x, uint64_t seed, int64_t n_bits,
                    const Tensor& codes);

// `out` may be x itself.
void hadamard(const Context& context, const ConstTensor& x, int64_t axis, const Tensor& out);
void rotate(const Context& context, const ConstTensor& x, uint64_t seed, int64_t rounds,
            bool inverse, const Tensor& out);

void hamming_distance(const Context& context, const ConstTensor& a, const ConstTensor& b,
                      const Tensor& out);
// The k codes of the smallest (distance, index), in that order. Both results are contiguous.
void hamming_topk(const Context& context, const ConstTensor& queries, const ConstTensor& codes,
                  int64_t k, const Tensor& distances, const Tensor& indices);

}  // namespace slipstick::cuda::projection
