// A mask of bytes as the bits of a number. Apart from simd.hpp, whose every change recompiles all
// kernels of all levels. Included by *.simd.cpp alone.
#pragma once

#include "core/simd.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

// Bit i is set where byte i of the mask is -1.
SLIPSTICK_INLINE uint64_t lane_bits(Vec<int8_t> mask) {
#if defined(__AVX512BW__)
    return _mm512_movepi8_mask((__m512i)mask);
#elif defined(__AVX2__)
    return static_cast<uint32_t>(_mm256_movemask_epi8((__m256i)mask));
#elif defined(__x86_64__)
    return static_cast<uint32_t>(_mm_movemask_epi8((__m128i)mask));
#else
    uint64_t bits = 0;
    for (int i = 0; i < kVectorBytes; ++i) bits |= static_cast<uint64_t>(mask[i] != 0) << i;
    return bits;
#endif
}

}  // namespace
}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
