// The entries of the random matrices: tags of their Philox streams, and the Gaussian law. The only
// definition, for one number or for a vector of them, on the host and on the GPU.
#pragma once

#include <cstdint>

#include "core/dtype.hpp"
#include "core/host_device.hpp"

namespace slipstick::projection {

// Word 3 of the counter: a purpose, and in the last byte the version of its law.
inline constexpr uint32_t kRademacherTag = 0x52414400;
inline constexpr uint32_t kGaussianTag = 0x47415500;
inline constexpr uint32_t kSparseTag = 0x53505200;
inline constexpr uint32_t kHashedTag = 0x534A4C00;  // sjlt and countsketch
inline constexpr uint32_t kSrhtInputSignTag = 0x53524400;
inline constexpr uint32_t kSrhtRowTag = 0x53525200;
inline constexpr uint32_t kSrhtOutputSignTag = 0x53524F00;

// Ops names the types and the operations that + - * / < ?: do not cover:
//   Float, Bits             float and uint32_t, or vectors of them
//   constant(float), as_float(Bits), as_bits(Float), fma(a, b, c), square_root(x), any(mask)

// N(s) / D(s) by Horner's rule in both.
template <class Ops>
SLIPSTICK_HD typename Ops::Float quotient(typename Ops::Float s, const float (&n)[6],
                                          const float (&d)[6]) {
    typename Ops::Float numerator = Ops::constant(n[5]);
    typename Ops::Float denominator = s + d[5];
    for (int i = 4; i >= 0; --i) {
        numerator = Ops::fma(numerator, s, Ops::constant(n[i]));
        denominator = Ops::fma(denominator, s, Ops::constant(d[i]));
    }
    return numerator / denominator;
}

// The float32 z of a random word: its sign is bit 0, and |z| = -Phi^-1(p) with p = float32(2v + 1)
// 2^-33, v = word >> 1, so |z| <= 6.34. The error is at most 3.5 units in the last place over all
// words, 0.42 on average. Every operation is one of IEEE binary32; their order and the coefficients
// (from the constant term on, the leading s^6 of the denominators left out) are part of the law.
template <class Ops>
SLIPSTICK_HD typename Ops::Float gaussian_from_bits(typename Ops::Bits word) {
    using Float = typename Ops::Float;
    // The halves of word | 1 laid under exponents whose last place weighs 2^-17 and 2^-33: the
    // subtraction is exact and the addition rounds once.
    const Float high = Ops::as_float((word >> 16) | 0x42800000u);
    const Float low = Ops::as_float((word & 0x0000fffeu) | 0x3a800001u);
    const Float p = (high - 0x1.0001p+6f) + low;

    // Centre: |z| = x (A + x^2 N(s) / D(s)), x = 1 - 2p, s = p - p^2, A = sqrt(2 pi) / 2; relative
    // error 3.8e-8 before rounding.
    constexpr float kCentreA = 0x1.40d932p+0f;
    constexpr float kCentreN[6] = {0x1.08e2eap-30f, 0x1.642d70p-20f, 0x1.20c75ep-12f,
                                   0x1.9e35fap-7f,  0x1.09537cp-3f,  0x1.b08aa4p-3f};
    constexpr float kCentreD[6] = {0x1.b53f92p-32f, 0x1.999b22p-21f, 0x1.cb31cep-13f,
                                   0x1.ed890cp-7f,  0x1.1c7d18p-2f,  0x1.4719c4p+0f};
    const Float s = Ops::fma(-p, p, p);
    const Float x = Ops::fma(Ops::constant(-2.0f), p, Ops::constant(1.0f));
    const Float x_squared = Ops::fma(Ops::constant(-4.0f), s, Ops::constant(1.0f));
    Float z = Ops::fma(x, Ops::constant(kCentreA),
                       (x * x_squared) * quotient<Ops>(s, kCentreN, kCentreD));

    // Tail, 0.59 % of the words: |z| = B + (1/4 - q) N(q) / D(q), q = p^(1/4), B = -Phi^-1(2^-8);
    // relative error 5.7e-8 before rounding.
    constexpr float kTail = 0x1.8p-9f;
    constexpr float kTailB = 0x1.547d18p+1f;
    constexpr float kTailN[6] = {-0x1.661020p-23f, -0x1.9b0854p-13f, -0x1.12f050p-5f,
                                 -0x1.34e67ep+0f,  -0x1.124cc2p+3f,  -0x1.5f6576p+2f};
    constexpr float kTailD[6] = {-0x1.09e81ap-27f, -0x1.952da0p-17f, -0x1.62bedep-9f,
                                 -0x1.15d4c0p-3f,  -0x1.94549cp+0f,  -0x1.7a969cp+1f};
    const auto in_tail = p < kTail;
    if (Ops::any(in_tail)) {
        const Float q = Ops::square_root(Ops::square_root(p));
        const Float tail =
            Ops::fma(0.25f - q, quotient<Ops>(q, kTailN, kTailD), Ops::constant(kTailB));
        z = in_tail ? tail : z;
    }
    return Ops::as_float(Ops::as_bits(z) | (word << 31));
}

struct ScalarOps {
    using Float = float;
    using Bits = uint32_t;
    SLIPSTICK_HD static float constant(float value) { return value; }
    SLIPSTICK_HD static float as_float(uint32_t pattern) { return bits::as_float(pattern); }
    SLIPSTICK_HD static uint32_t as_bits(float value) { return bits::of(value); }
    SLIPSTICK_HD static float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
    SLIPSTICK_HD static float square_root(float x) { return __builtin_sqrtf(x); }
    SLIPSTICK_HD static bool any(bool mask) { return mask; }
};

}  // namespace slipstick::projection
