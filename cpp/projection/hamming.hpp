// Hamming distances of packed codes, and the nearest codes: exact, the same for every thread count.
#pragma once

#include "core/result.hpp"
#include "core/tensor.hpp"

namespace slipstick::cpu::projection {

// a and b (..., bytes) of uint8 give (...) int32: leading axes broadcast, bytes must be equal.
ResultSpec result_of_hamming_distance(const ConstTensor& a, const ConstTensor& b);
void hamming_distance(const ConstTensor& a, const ConstTensor& b, const Tensor& out);

// queries (..., bytes) and codes (n, bytes) of uint8 give distances (..., k) int32 and as many
// int64 indices. Throws where k is not in 1 ... n.
struct TopkSpecs {
    ResultSpec distances;
    ResultSpec indices;
};
TopkSpecs results_of_hamming_topk(const ConstTensor& queries, const ConstTensor& codes, int64_t k);
// The k codes of the smallest (distance, index), in that order. Both results are contiguous.
void hamming_topk(const ConstTensor& queries, const ConstTensor& codes, int64_t k,
                  int32_t* distances, int64_t* indices);

}  // namespace slipstick::cpu::projection
