// Vectors of the level's native width, on GCC/Clang vector extensions. The only kernel file with an
// #if on the instruction set. Included by *.simd.cpp alone; everything sits in an anonymous
// namespace of the level, so that no symbol of one level can stand in for another's.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "core/dtype.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

#define SLIPSTICK_INLINE inline __attribute__((always_inline))

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kVectorRegisters = 32;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
constexpr int kVectorRegisters = 16;
#elif defined(__x86_64__)
constexpr int kVectorBytes = 16;
constexpr int kVectorRegisters = 16;
#else
constexpr int kVectorBytes = 16;
constexpr int kVectorRegisters = 32;
#endif

template <class T, int bytes>
struct VectorOf {
    typedef T type __attribute__((vector_size(bytes)));
};
// A full vector of T; comparisons give a vector of the signed integer of the same width, 0 or -1 a
// lane.
template <class T>
using Vec = typename VectorOf<T, kVectorBytes>::type;
// A vector with as many lanes as Vec<Wide>, whatever T's size: what a conversion to or from it
// needs.
template <class T, class Wide>
using VecLike =
    typename VectorOf<T, kVectorBytes / static_cast<int>(sizeof(Wide) / sizeof(T))>::type;

template <class T>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));

// The integer types of a float's width.
template <class T>
struct BitsOf;
template <>
struct BitsOf<float> {
    using Unsigned = uint32_t;
    using Signed = int32_t;
};
template <>
struct BitsOf<double> {
    using Unsigned = uint64_t;
    using Signed = int64_t;
};

// --- Memory: no alignment is asked for ---

template <class V, class T>
SLIPSTICK_INLINE V load(const T* source) {
    V result;
    __builtin_memcpy(&result, source, sizeof result);
    return result;
}
template <class V, class T>
SLIPSTICK_INLINE void store(T* target, V value) {
    __builtin_memcpy(target, &value, sizeof value);
}
template <class T>
SLIPSTICK_INLINE Vec<T> broadcast(T value) {
    return value - Vec<T>{};  // x - 0 is x for every x, signed zero included
}

template <class To, class From>
SLIPSTICK_INLINE To bit_cast(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To result;
    __builtin_memcpy(&result, &from, sizeof result);
    return result;
}

// The level's vector of 16 bytes again and again: what lookup() takes.
SLIPSTICK_INLINE Vec<uint8_t> repeated(const uint8_t (&bytes)[16]) {
    Vec<uint8_t> result;
    for (int i = 0; i < kVectorBytes; i += 16)
        __builtin_memcpy(reinterpret_cast<char*>(&result) + i, bytes, sizeof bytes);
    return result;
}
// table[index] for every byte, indices below 16.
SLIPSTICK_INLINE Vec<uint8_t> lookup(Vec<uint8_t> table, Vec<uint8_t> index) {
#if defined(__AVX512BW__)
    return (Vec<uint8_t>)_mm512_shuffle_epi8((__m512i)table, (__m512i)index);
#elif defined(__AVX2__)
    return (Vec<uint8_t>)_mm256_shuffle_epi8((__m256i)table, (__m256i)index);
#elif defined(__SSSE3__)
    return (Vec<uint8_t>)_mm_shuffle_epi8((__m128i)table, (__m128i)index);
#else
    Vec<uint8_t> result;
    for (int i = 0; i < kVectorBytes; ++i) result[i] = table[index[i]];
    return result;
#endif
}

// --- Masks and reductions ---

template <class M>
SLIPSTICK_INLINE bool any(M mask) {
#if defined(__AVX512F__)
    return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#elif defined(__AVX2__)
    return !_mm256_testz_si256((__m256i)mask, (__m256i)mask);
#elif defined(__SSE4_1__)
    return !_mm_testz_si128((__m128i)mask, (__m128i)mask);
#else
    const auto words = bit_cast<Vec<uint64_t>>(mask);
    return (words[0] | words[1]) != 0;
#endif
}

// The lanes in order, halved until one is left: the same tree at every call.
template <class T, class Combine>
SLIPSTICK_INLINE T reduce(Vec<T> value, Combine combine) {
    T lanes[kLanes<T>];
    store(lanes, value);
    for (int width = kLanes<T> / 2; width > 0; width /= 2) {
        for (int i = 0; i < width; ++i) lanes[i] = combine(lanes[i], lanes[i + width]);
    }
    return lanes[0];
}
template <class T>
SLIPSTICK_INLINE T sum(Vec<T> value) {
    return reduce<T>(value, [](T a, T b) { return a + b; });
}

// NaN in b is ignored, NaN in a stays: maximum(running, candidate) is not symmetric. Written out
// for floats: of a comparison with a constant GCC 12 makes two instructions.
template <class V>
SLIPSTICK_INLINE V maximum(V a, V b) {
    return b > a ? b : a;
}
#if defined(__AVX512F__)
SLIPSTICK_INLINE Vec<float> maximum(Vec<float> a, Vec<float> b) {
    return (Vec<float>)_mm512_maskz_max_ps(0xffff, (__m512)b, (__m512)a);
}
SLIPSTICK_INLINE Vec<double> maximum(Vec<double> a, Vec<double> b) {
    return (Vec<double>)_mm512_maskz_max_pd(0xff, (__m512d)b, (__m512d)a);
}
#elif defined(__AVX2__)
SLIPSTICK_INLINE Vec<float> maximum(Vec<float> a, Vec<float> b) {
    return (Vec<float>)_mm256_max_ps((__m256)b, (__m256)a);
}
SLIPSTICK_INLINE Vec<double> maximum(Vec<double> a, Vec<double> b) {
    return (Vec<double>)_mm256_max_pd((__m256d)b, (__m256d)a);
}
#elif defined(__x86_64__)
SLIPSTICK_INLINE Vec<float> maximum(Vec<float> a, Vec<float> b) {
    return (Vec<float>)_mm_max_ps((__m128)b, (__m128)a);
}
SLIPSTICK_INLINE Vec<double> maximum(Vec<double> a, Vec<double> b) {
    return (Vec<double>)_mm_max_pd((__m128d)b, (__m128d)a);
}
#endif

// The lanes of a and of b in turn: those of the lower halves, those of the upper halves.
#if defined(__AVX512F__)
#define SLIPSTICK_LOW_LANES 0, 8, 1, 9, 2, 10, 3, 11
#define SLIPSTICK_HIGH_LANES 4, 12, 5, 13, 6, 14, 7, 15
#elif defined(__AVX2__)
#define SLIPSTICK_LOW_LANES 0, 4, 1, 5
#define SLIPSTICK_HIGH_LANES 2, 6, 3, 7
#else
#define SLIPSTICK_LOW_LANES 0, 2
#define SLIPSTICK_HIGH_LANES 1, 3
#endif
SLIPSTICK_INLINE Vec<uint64_t> interleave_low(Vec<uint64_t> a, Vec<uint64_t> b) {
    return __builtin_shufflevector(a, b, SLIPSTICK_LOW_LANES);
}
SLIPSTICK_INLINE Vec<uint64_t> interleave_high(Vec<uint64_t> a, Vec<uint64_t> b) {
    return __builtin_shufflevector(a, b, SLIPSTICK_HIGH_LANES);
}
#undef SLIPSTICK_LOW_LANES
#undef SLIPSTICK_HIGH_LANES

// --- Arithmetic ---

// a * b + c, fused where the level has the instruction: the fastest form. fma is fused everywhere,
// in software at v2: for what must round alike on every level.
#if defined(__AVX512F__)
SLIPSTICK_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
    return (Vec<float>)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
SLIPSTICK_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
    return (Vec<double>)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
}
#elif defined(__FMA__)
SLIPSTICK_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
    return (Vec<float>)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
SLIPSTICK_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
    return (Vec<double>)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
}
#else
SLIPSTICK_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
    for (int i = 0; i < kLanes<float>; ++i) a[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return a;
}
SLIPSTICK_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
    for (int i = 0; i < kLanes<double>; ++i) a[i] = __builtin_fma(a[i], b[i], c[i]);
    return a;
}
#endif

#if defined(__FMA__) || defined(__AVX512F__) || defined(__ARM_FEATURE_FMA)
constexpr bool kFusesMulAdd = true;
#else
constexpr bool kFusesMulAdd = false;
#endif
template <class V>
SLIPSTICK_INLINE V mul_add(V a, V b, V c) {
    if constexpr (kFusesMulAdd) {
        return fma(a, b, c);
    } else {
        return a * b + c;
    }
}

// The 64-bit products of the low halves of 64-bit lanes, whatever the high halves hold.
SLIPSTICK_INLINE Vec<uint64_t> multiply_low_halves(Vec<uint64_t> a, Vec<uint64_t> b) {
#if defined(__AVX512F__)
    // The unmasked intrinsic of GCC 12 starts from an undefined value, and warns of it.
    return (Vec<uint64_t>)_mm512_maskz_mul_epu32(0xff, (__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return (Vec<uint64_t>)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__x86_64__)
    return (Vec<uint64_t>)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
    return (a & 0xffffffffu) * (b & 0xffffffffu);
#endif
}

// The high halves of the 32-bit products of 16-bit lanes.
SLIPSTICK_INLINE Vec<uint16_t> multiply_high(Vec<uint16_t> a, Vec<uint16_t> b) {
#if defined(__AVX512BW__)
    return (Vec<uint16_t>)_mm512_mulhi_epu16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return (Vec<uint16_t>)_mm256_mulhi_epu16((__m256i)a, (__m256i)b);
#elif defined(__x86_64__)
    return (Vec<uint16_t>)_mm_mulhi_epu16((__m128i)a, (__m128i)b);
#else
    for (int i = 0; i < kLanes<uint16_t>; ++i)
        a[i] = static_cast<uint16_t>((uint32_t{a[i]} * b[i]) >> 16);
    return a;
#endif
}

// Correctly rounded square root.
SLIPSTICK_INLINE Vec<float> square_root(Vec<float> x) {
#if defined(__AVX512F__)
    return (Vec<float>)_mm512_maskz_sqrt_ps(0xffff, (__m512)x);  // as above: no undefined value
#elif defined(__AVX2__)
    return (Vec<float>)_mm256_sqrt_ps((__m256)x);
#else
    for (int i = 0; i < kLanes<float>; ++i) x[i] = __builtin_sqrtf(x[i]);
    return x;
#endif
}

// Rounded down.
SLIPSTICK_INLINE Vec<double> floor(Vec<double> x) {
#if defined(__AVX512F__)
    return (Vec<double>)_mm512_maskz_roundscale_pd(0xff, (__m512d)x, 1);  // as above
#elif defined(__AVX2__)
    return (Vec<double>)_mm256_floor_pd((__m256d)x);
#elif defined(__SSE4_1__)
    return (Vec<double>)_mm_floor_pd((__m128d)x);
#else
    for (int i = 0; i < kLanes<double>; ++i) x[i] = __builtin_floor(x[i]);
    return x;
#endif
}

// --- exp and tanh ---

// x = w ln 2 + r with an integer w and |r| <= ln(2)/2; e^x = 2^w e^r.
template <class T>
struct ExpConstants;
template <>
struct ExpConstants<float> {
    // h in e^r = 1 + r + r^2 h(r): interpolates at the Chebyshev nodes, error 1e-8 of e^r.
    static constexpr float kCoefficients[] = {0.5f, 0.166665778f, 0.0416665561f, 0.00836317334f,
                                              0.00139261759f};
    static constexpr float kLog2E = 1.44269504f;
    static constexpr float kLn2High = 0x1.62e4p-1f;  // 15 bits: times w exact
    static constexpr float kLn2Low = 0x1.7f7d1cp-20f;
    static constexpr float kLowest = -88.0296919f;  // w = -127, whose 2^w is the pattern 0
    static constexpr int kMantissaBits = 23;
    static constexpr float kRounder = 0x1.8p23f + 127;  // adding it rounds to an integer
};
template <>
struct ExpConstants<double> {
    // Error 2e-17 of e^r.
    static constexpr double kCoefficients[] = {
        0.50000000000000011,   0.16666666666666669,    0.041666666666624164,  0.008333333333330065,
        0.0013888888917196719, 0.00019841269863040545, 2.4801521322368692e-5, 2.7557268480310024e-6,
        2.7620075879983367e-7, 2.5100375832561234e-8};
    static constexpr double kLog2E = 1.44269504088896340736;
    static constexpr double kLn2High = 0x1.62e42fefa4p-1;  // 41 bits
    static constexpr double kLn2Low = -0x1.8432a1b0e2634p-43;
    static constexpr double kLowest = -709.08956571282405;
    static constexpr int kMantissaBits = 52;
    static constexpr double kRounder = 0x1.8p52 + 1023;
};

template <class T>
struct ExpParts {
    Vec<T> scale;      // 2^w
    Vec<T> remainder;  // e^r - 1
};
// From kLowest to -kLowest.
template <class T>
SLIPSTICK_INLINE ExpParts<T> exp_parts(Vec<T> x) {
    using C = ExpConstants<T>;
    using Bits = Vec<typename BitsOf<T>::Unsigned>;
    // Adding the rounder leaves w + bias in the low bits: shifted up, the exponent field of 2^w.
    const Vec<T> shifted = mul_add(x, broadcast(C::kLog2E), broadcast(C::kRounder));
    const Vec<T> w = shifted - C::kRounder;
    Vec<T> r = mul_add(w, broadcast(-C::kLn2High), x);
    r = mul_add(w, broadcast(-C::kLn2Low), r);
    constexpr int degree = sizeof(C::kCoefficients) / sizeof(T) - 1;
    Vec<T> h = broadcast(C::kCoefficients[degree]);
    for (int i = degree - 1; i >= 0; --i) h = mul_add(h, r, broadcast(C::kCoefficients[i]));
    return {bit_cast<Vec<T>>(bit_cast<Bits>(shifted) << C::kMantissaBits), mul_add(r * r, h, r)};
}

// e^x for x up to -kLowest: scores less their maximum, which rounding takes little above 0. Where w
// is below the normal exponents the result is 0; NaN stays. Worst relative error measured against
// long double: 9e-8 (float) and 1.7e-16 (double).
template <class T>
SLIPSTICK_INLINE Vec<T> exp(Vec<T> x) {
    const ExpParts<T> parts = exp_parts<T>(maximum(x, broadcast(ExpConstants<T>::kLowest)));
    return mul_add(parts.remainder, parts.scale, parts.scale);
}

// (1 - e) / (1 + e) with e = e^(-2|x|) = 2^w (1 + p), the numerator n without cancellation as
// (1 - 2^w) - 2^w p. NaN stays. Where fma is an instruction, n and the denominator 2 - n keep what
// their rounding lost, and a step of Newton's gives it back to the quotient. Worst error measured
// against long double: 1.6 ulp with it, 2.6 without, in either format.
template <class T>
SLIPSTICK_INLINE Vec<T> tanh(Vec<T> x) {
    using V = Vec<T>;
    using Bits = Vec<typename BitsOf<T>::Unsigned>;
    const Bits sign = bit_cast<Bits>(x) & bit_cast<Bits>(broadcast(static_cast<T>(-0.0)));
    const V magnitude = bit_cast<V>(bit_cast<Bits>(x) ^ sign);
    // From 20 on the result is 1 in either format.
    const V twenty = broadcast(T{20});
    const ExpParts<T> parts = exp_parts<T>((magnitude > twenty ? twenty : magnitude) * T{-2});
    const V whole = T{1} - parts.scale;
    const V part = parts.scale * parts.remainder;
    const V n = whole - part;
    const V denominator = T{2} - n;
    V quotient = n / denominator;
    if constexpr (kFusesMulAdd) {
        const V n_low = (whole - n) - part;
        const V denominator_low = ((T{2} - denominator) - n) - n_low;
        const V rest =
            mul_add(-quotient, denominator, n) + mul_add(-quotient, denominator_low, n_low);
        // 1 / denominator to within 5 %: it lies between 1 and 2.
        const V inverse = mul_add(denominator, broadcast(T(-0.5)), broadcast(T(1.457)));
        quotient = mul_add(rest, inverse, quotient);
    }
    return bit_cast<V>(bit_cast<Bits>(quotient) | sign);
}

// --- 16-bit floats ---

// 16-bit lanes as wider ones. Written out: GCC 12 converts halves and joins them.
SLIPSTICK_INLINE Vec<uint32_t> zero_extend(VecLike<uint16_t, float> pattern) {
#if defined(__AVX512F__)
    return (Vec<uint32_t>)_mm512_maskz_cvtepu16_epi32(0xffff, (__m256i)pattern);
#elif defined(__AVX2__)
    return (Vec<uint32_t>)_mm256_cvtepu16_epi32((__m128i)pattern);
#else
    return __builtin_convertvector(pattern, Vec<uint32_t>);
#endif
}

// The values of 16-bit patterns in wider lanes.
SLIPSTICK_INLINE Vec<float> widen(Vec<uint32_t> pattern, BFloat16) {
    return bit_cast<Vec<float>>(pattern << 16);
}
SLIPSTICK_INLINE Vec<float> widen(Vec<uint32_t> pattern, Float16) {
    // Shifted up, only the exponent's bias is wrong: an exact multiplication, subnormals included.
    const Vec<uint32_t> magnitude = pattern & 0x7fffu;
    const Vec<uint32_t> finite =
        bit_cast<Vec<uint32_t>>(bit_cast<Vec<float>>(magnitude << 13) * 0x1p112f);
    const Vec<uint32_t> special = (magnitude << 13) | 0x7f800000u;
    return bit_cast<Vec<float>>((magnitude >= 0x7c00u ? special : finite) |
                                ((pattern & 0x8000u) << 16));
}

SLIPSTICK_INLINE VecLike<uint16_t, float> narrow(Vec<float> value, BFloat16) {
    const auto pattern = bit_cast<Vec<uint32_t>>(value);
    const Vec<uint32_t> rounded = (pattern + 0x7fffu + ((pattern >> 16) & 1u)) >> 16;
    const Vec<uint32_t> quiet = ((pattern >> 16) & 0x8000u) | 0x7fc0u;
    return __builtin_convertvector(value == value ? rounded : quiet, VecLike<uint16_t, float>);
}
SLIPSTICK_INLINE VecLike<uint16_t, float> narrow(Vec<float> value, Float16) {
    VecLike<uint16_t, float> result;
    for (int i = 0; i < kLanes<float>; ++i) result[i] = to_float16(value[i]).bits;
    return result;
}

}  // namespace
}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
