// The product of two operands by a method, in the bits of a float or of integers.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/host_device.hpp"
#include "mitchell/methods.hpp"
#include "mitchell/significand.hpp"

namespace slipstick::mitchell {

// --- Float products ---

// The sign and the transformed magnitude of a number that is neither infinite nor NaN; zero for
// subnormals. A number close to infinity may round up to its pattern,
// and still multiplies as 2^128 (float32) would.
template <class M, class Lane, class U>
SLIPSTICK_HD U transform_bits(U bits, const Parameters& p, const Format<Lane>& f) {
    if constexpr (!M::kTransforms) {
        return bits;
    } else {
        const U magnitude = magnitude_of(bits, f);
        const U transformed = M::transform(magnitude, p);
        const U kept = as_signed(magnitude) < as_signed(f.smallest) ? U{} : transformed;
        return static_cast<U>(kept | static_cast<U>(bits & f.sign));
    }
}

// The product of two patterns from transform_bits.
template <class M, class Lane, class U>
SLIPSTICK_HD U multiply_transformed_bits(U a, U b, const Parameters& p, const Format<Lane>& f) {
    static_assert(M::kRule != Rule::kPattern && M::kRule != Rule::kInteger);
    const auto c = static_cast<Lane>(p.c);
    if constexpr (M::kRule == Rule::kBitSum) {
        return multiply_finite_bits(a, b, c, f);
    } else {
        const U magnitude_a = magnitude_of(a, f);
        const U magnitude_b = magnitude_of(b, f);
        U sum;
        if constexpr (M::kRule == Rule::kBitSumOr) {
            sum = static_cast<U>(static_cast<U>(magnitude_a + magnitude_b) | fill<U>(set_bits(p)));
        } else {
            const U fraction = low_bits<U>(f.fraction_bits);
            const U x = static_cast<U>(magnitude_a & fraction);
            const U y = static_cast<U>(magnitude_b & fraction);
            // The exponents of two finite numbers and a carry of 2 fit the lane.
            sum = static_cast<U>(static_cast<U>(magnitude_a - x) + static_cast<U>(magnitude_b - y) +
                                 M::log(x, y, p));
        }
        const U smaller = magnitude_a < magnitude_b ? magnitude_a : magnitude_b;
        return product_of_sum(sum, smaller, static_cast<U>((a ^ b) & f.sign), c, f);
    }
}

// The bits of the product of two numbers that are neither infinite nor NaN.
template <class M, class Lane, class U>
SLIPSTICK_HD U multiply_finite_bits(U a, U b, const Parameters& p, const Format<Lane>& f) {
    return multiply_transformed_bits<M>(transform_bits<M>(a, p, f), transform_bits<M>(b, p, f), p,
                                        f);
}

// The bits of the product of any operands. Infinities, NaNs and zeros are those of the operands as
// given, not as transformed.
template <class M, class Lane, class U>
SLIPSTICK_HD U multiply_bits(U a, U b, const Parameters& p, const Format<Lane>& f) {
    if constexpr (M::kRule == Rule::kPattern) {
        return M::multiply(a, b, p, f);
    } else {
        return with_special_products(a, b, multiply_finite_bits<M>(a, b, p, f), f);
    }
}

// --- Integer products ---

// floor(significand 2^(k - m)).
template <class Work>
SLIPSTICK_HD Work scaled(uint64_t significand, int k, int m) {
    return k >= m ? static_cast<Work>(Work{significand} << (k - m))
                  : static_cast<Work>(significand >> (m - k));
}

// The floor of the exact product of two magnitudes below 2^(m+1), neither of them zero.
template <class M, class Work>
SLIPSTICK_HD Work multiply_magnitudes(uint64_t a, uint64_t b, const Parameters& p) {
    if constexpr (requires { M::integer_product(a, b, p); }) {
        return M::integer_product(a, b, p);
    } else {
        const int m = p.fraction_bits;
        const uint64_t one = uint64_t{1} << m;
        const auto log_of = [&](uint64_t value) {
            const int k = highest_bit(value);
            return M::transform((static_cast<uint64_t>(k) << m) | ((value << (m - k)) & (one - 1)),
                                p);
        };
        const uint64_t log_a = log_of(a);
        const uint64_t log_b = log_of(b);
        if constexpr (M::kRule == Rule::kBitSum || M::kRule == Rule::kBitSumOr) {
            // Every offset but Mitchell's own is a multiple of 2^-m.
            uint64_t sum = log_a + log_b + (p.fraction >> (64 - m));
            if constexpr (M::kRule == Rule::kBitSumOr) sum |= set_bits(p);
            return scaled<Work>(one | (sum & (one - 1)), static_cast<int>(sum >> m), m);
        } else {
            return scaled<Work>(M::significand(log_a & (one - 1), log_b & (one - 1), p),
                                static_cast<int>((log_a >> m) + (log_b >> m)), m);
        }
    }
}

template <class M, class T>
SLIPSTICK_HD Wider<T> multiply_integers(T a, T b, const Parameters& p) {
    if constexpr (M::kDomain == Domain::kTable) {
        static_assert(sizeof(T) == 1);
        return static_cast<Wider<T>>(p.table[(static_cast<unsigned>(static_cast<uint8_t>(a)) << 8) |
                                             static_cast<uint8_t>(b)]);
    } else if constexpr (M::kKind == Kind::kMitchell) {
        return multiply_integers(a, b, p.fraction);
    } else {
        using Work = ProductWork<T>;
        if (a == 0 || b == 0) return 0;
        return saturated<T>(
            multiply_magnitudes<M, Work>(magnitude_of_integer(a), magnitude_of_integer(b), p),
            (a < 0) != (b < 0));
    }
}

}  // namespace slipstick::mitchell
