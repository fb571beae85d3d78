// What the functions' results look like, on any device: every result_of_* checks dtypes and shapes,
// and allocates and computes nothing.
#pragma once

#include <cstdint>

#include "core/result.hpp"
#include "core/tensor.hpp"

namespace slipstick::projection {

// x (..., n_features) of any dtype gives (..., n_components) of the same, or of float64 for
// integers and bools. Throws where x has no features or its last one, first_feature + n_features -
// 1, does not fit 64 bits.
ResultSpec result_of_project(const ConstTensor& x, int64_t n_components, uint64_t first_feature);

// y (..., n_components) gives (..., n_features) of A^T y, by the rules of project. n_features >= 1.
ResultSpec result_of_back_project(const ConstTensor& y, int64_t n_features, uint64_t first_feature);

// (rows, columns) of `dtype`, which is float64 or float32: the names are those of `block`.
ResultSpec result_of_block(int64_t rows, int64_t columns, const ConstTensor& out);

// As x, float64 for integers and bools. Throws where x has no such axis or its length is not a
// power of two.
ResultSpec result_of_hadamard(const ConstTensor& x, int64_t axis);
// The axis from 0 on; throws as result_of_hadamard.
int hadamard_axis(const ConstTensor& x, int64_t axis);
// -1 where n is not a power of two.
int log2_exact(int64_t n);

// As x, float64 for integers and bools. Throws where x has no axis or its last one is empty.
ResultSpec result_of_rotate(const ConstTensor& x);

// x (..., n_features) of any dtype gives (..., ceil(n_bits / 8)) of uint8.
ResultSpec result_of_signs(const char* function, const ConstTensor& x, int64_t n_bits);

// a and b (..., bytes) of uint8 give (...) int32: leading axes broadcast, bytes must be equal.
ResultSpec result_of_hamming_distance(const ConstTensor& a, const ConstTensor& b);

// queries (..., bytes) and codes (n, bytes) of uint8 give distances (..., k) int32 and as many
// int64 indices. Throws where k is not in 1 ... n.
struct TopkSpecs {
    ResultSpec distances;
    ResultSpec indices;
};
TopkSpecs results_of_hamming_topk(const ConstTensor& queries, const ConstTensor& codes, int64_t k);
inline constexpr int kCodeIndexBits = 40;  // fewer than 2^40 codes of at most 2^20 bytes

}  // namespace slipstick::projection
