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

// Below, p is the probability of a larger |z|, and every operation is an IEEE one of binary32.
inline constexpr float kTail = 0x1.4p-9f;  // where the tail begins: 0.49 % of the entries

// Central |z| = x (A + x^2 N(s) / D(s)) with x = 1 - 2p and s = p - p^2; A = sqrt(2 pi) / 2.
// Coefficients from the constant term on; D is monic.
inline constexpr float kCentralA = 0x1.40d932p+0f;
inline constexpr float kCentralN[6] = {0x1.415a94p-31f, 0x1.ebe3fep-21f, 0x1.bf15a6p-13f,
                                       0x1.61b984p-7f,  0x1.ebea56p-4f,  0x1.acc87ap-3f};
inline constexpr float kCentralD[6] = {0x1.05afc0p-32f, 0x1.155facp-21f, 0x1.5ab2c4p-13f,
                                       0x1.98e430p-7f,  0x1.fd0a4ep-3f,  0x1.375e3ep+0f};
// Tail |z| = B + (1/4 - q) N(q) / D(q) with q = p^(1/4); B = -Phi^-1(2^-8).
inline constexpr float kTailB = 0x1.547d18p+1f;
inline constexpr float kTailN[6] = {-0x1.59b61ap-23f, -0x1.90b214p-13f, -0x1.0f55b6p-5f,
                                    -0x1.35b9fap+0f,  -0x1.191d84p+3f,  -0x1.7a8f5cp+2f};
inline constexpr float kTailD[6] = {-0x1.008cf6p-27f, -0x1.8a7182p-17f, -0x1.5d3d8ap-9f,
                                    -0x1.156220p-3f,  -0x1.9b11ccp+0f,  -0x1.8cc352p+1f};

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

// float32 z = +-Phi^-1(p) of a random word: the sign is bit 0, and p = float32(2v + 1) 2^-33 with
// v = word >> 1. |z| <= 6.34.
template <class Ops>
SLIPSTICK_HD typename Ops::Float gaussian_from_bits(typename Ops::Bits word) {
    using Float = typename Ops::Float;
    // The halves of word | 1 laid under exponents whose last place weighs 2^-17 and 2^-33: the
    // subtraction is exact and the addition rounds once.
    const Float high = Ops::as_float((word >> 16) | 0x42800000u);
    const Float low = Ops::as_float((word & 0x0000fffeu) | 0x3a800001u);
    const Float p = (high - 0x1.0001p+6f) + low;

    const Float s = Ops::fma(-p, p, p);
    const Float x = Ops::fma(Ops::constant(-2.0f), p, Ops::constant(1.0f));
    Float z = x * Ops::fma(x * x, quotient<Ops>(s, kCentralN, kCentralD), Ops::constant(kCentralA));
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
