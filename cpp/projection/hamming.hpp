// Hamming distances of packed codes, and the nearest codes: exact, the same for every thread count.
#pragma once

#include "core/tensor.hpp"
#include "projection/names.hpp"

namespace slipstick::cpu::projection {

void hamming_distance(const ConstTensor& a, const ConstTensor& b, const Tensor& out);

// The k codes of the smallest (distance, index), in that order. Both results are contiguous.
void hamming_topk(const ConstTensor& queries, const ConstTensor& codes, int64_t k,
                  int32_t* distances, int64_t* indices);

}  // namespace slipstick::cpu::projection
