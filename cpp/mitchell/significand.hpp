// Logarithms and significands of a number or of each lane of a compiler vector: what several
// methods share.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/host_device.hpp"

namespace slipstick::mitchell {

// --- Numbers and vectors alike ---

template <class U>
struct LaneOfVector {
    using type = std::remove_cvref_t<decltype(U{}[0])>;
};
template <class U>
using LaneOf = typename std::conditional_t<std::is_integral_v<U>, std::type_identity<U>,
                                           LaneOfVector<U>>::type;

template <class U>
SLIPSTICK_HD U fill(uint64_t value) {
    return static_cast<U>(U{} + static_cast<LaneOf<U>>(value));
}
template <class U>
SLIPSTICK_HD U shift_right(U value, int count) {
    return static_cast<U>(value >> static_cast<LaneOf<U>>(count));
}
template <class U>
SLIPSTICK_HD U shift_left(U value, int count) {
    return static_cast<U>(value << static_cast<LaneOf<U>>(count));
}
// The lowest `count` bits.
template <class U>
SLIPSTICK_HD U low_bits(int count) {
    return fill<U>((uint64_t{1} << count) - 1);
}
template <class U, class F>
SLIPSTICK_HD U lanewise(U a, U b, F f) {
    if constexpr (std::is_integral_v<U>) {
        return f(a, b);
    } else {
        U result{};
        for (unsigned i = 0; i < sizeof(U) / sizeof(LaneOf<U>); ++i) result[i] = f(a[i], b[i]);
        return result;
    }
}

// --- Pieces that several methods share ---

// A significand of [1, 8) in units of 2^-m as the logarithm of its value, truncated to m bits.
template <class U>
SLIPSTICK_HD U truncated_log(U significand, int m) {
    const U one = fill<U>(uint64_t{1} << m);
    const auto below_two = static_cast<U>(significand - one);
    const U below_four = shift_right(significand, 1);
    const auto above = static_cast<U>(shift_right(significand, 2) + one);
    return significand < static_cast<U>(one + one)
               ? below_two
               : (shift_right(significand, 2) < one ? below_four : above);
}

// 1 + x + y, or 2 (x + y) after a carry.
template <class U>
SLIPSTICK_HD U mitchell_significand(U x, U y, int m) {
    const U one = fill<U>(uint64_t{1} << m);
    const auto sum = static_cast<U>(x + y);
    return sum < one ? static_cast<U>(one + sum) : static_cast<U>(sum + sum);
}

// The lowest fraction bits rounded away: to nearest, ties to even, a carry raises the exponent.
template <class U>
SLIPSTICK_HD U rounded_log(U log, int dropped) {
    if (dropped <= 0) return log;
    const U odd = static_cast<U>(shift_right(log, dropped) & fill<U>(1));
    const auto raised = static_cast<U>(log + low_bits<U>(dropped - 1) + odd);
    return static_cast<U>(raised & static_cast<U>(~low_bits<U>(dropped)));
}

template <class U>
SLIPSTICK_HD U truncate_log(U log, int dropped) {
    return static_cast<U>(log & static_cast<U>(~low_bits<U>(dropped)));
}

// The float type of the lanes' own width, one number or a vector.
template <class U>
struct RealOf {
    using Scalar = std::conditional_t<sizeof(LaneOf<U>) == 8, double, float>;
    typedef Scalar type __attribute__((vector_size(sizeof(U))));
};
template <>
struct RealOf<uint32_t> {
    using type = float;
};
template <>
struct RealOf<uint64_t> {
    using type = double;
};
template <class U>
using Real = typename RealOf<U>::type;
template <class U>
inline constexpr int kRealBits = sizeof(LaneOf<U>) == 8 ? 52 : 23;
template <class U>
inline constexpr uint64_t kRealOne = sizeof(LaneOf<U>) == 8 ? uint64_t{0x3ff} << 52 : 0x3f800000;

template <class To, class From>
SLIPSTICK_HD To reinterpret(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To result;
    __builtin_memcpy(&result, &from, sizeof result);
    return result;
}

// 1 + x as a real number; exact, since the lanes are at least as wide as the format.
template <class U>
SLIPSTICK_HD Real<U> significand_value(U x, int m) {
    return reinterpret<Real<U>>(
        static_cast<U>(shift_left(x, kRealBits<U> - m) | fill<U>(kRealOne<U>)));
}
// The logarithm of a real number of [1, 8), rounded to m bits.
template <class U>
SLIPSTICK_HD U log_of_value(Real<U> value, int m) {
    const int dropped = kRealBits<U> - m;
    const auto log = static_cast<U>(reinterpret<U>(value) - fill<U>(kRealOne<U>));
    return shift_right(rounded_log(log, dropped), dropped);
}

SLIPSTICK_HD int highest_bit(uint64_t value) { return 63 - __builtin_clzll(value); }

}  // namespace slipstick::mitchell
