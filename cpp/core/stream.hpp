// Stores past the caches. Included by *.simd.cpp alone.
#pragma once

#include "core/simd.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

// To a multiple of kVectorBytes, for what nobody reads soon: the line is not fetched first, which
// is a third less to move. stream_fence() is due before another thread may look.
template <class T>
SLIPSTICK_INLINE void stream(T* target, Vec<T> value) {
#if defined(__AVX512F__)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(target), (__m512i)value);
#elif defined(__AVX2__)
    _mm256_stream_si256(reinterpret_cast<__m256i*>(target), (__m256i)value);
#elif defined(__x86_64__)
    _mm_stream_si128(reinterpret_cast<__m128i*>(target), (__m128i)value);
#else
    store(target, value);
#endif
}
SLIPSTICK_INLINE void stream_fence() {
#if defined(__x86_64__)
    _mm_sfence();
#endif
}

}  // namespace
}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
