// Packed codes as the words that population counts take.
#pragma once

#include "core/cuda.cuh"
#include "core/tensor.hpp"

namespace slipstick::cuda::projection {

// How many bits of a word are 1.
__device__ __forceinline__ int population(uint32_t word) {
#if defined(__CUDA_ARCH__)
    return __popc(word);
#else
    return __builtin_popcount(word);
#endif
}

// Rows of 32-bit words; a last word that is not full ends with zeros.
struct Codes {
    const uint32_t* words;
    int64_t stride;  // in words, from row to row
    int64_t count;
    int length;  // words of a row
};

// The rows of a tensor of uint8, bytes along its last axis: where they lie, if they lie there as
// words, or a copy in scratch memory.
Codes codes_of(const Context& context, const char* function, const ConstTensor& tensor);

}  // namespace slipstick::cuda::projection
