// Mitchell's square root, logarithm, exponential and power, bit for bit, for one number or a vector.
// The lanes are at least as wide as the format, and 32 bits or more.
#pragma once

#include "mitchell/methods.hpp"

namespace slipstick::mitchell {

// Half the logarithm.
template <class Lane, class U>
SLIPSTICK_HD U sqrt_bits(U bits, const Format<Lane>& f) {
    const U zero{};
    const U magnitude = magnitude_of(bits, f);
    const auto sign = static_cast<U>(bits & f.sign);
    const auto root = static_cast<U>((magnitude >> 1) + (f.one >> 1));  // 1.0 is even everywhere
    const U positive = magnitude == f.infinity ? magnitude : root;
    const auto is_zero = magnitude < f.smallest;
    const auto is_nan = (magnitude > f.infinity) | ((sign != 0) & (magnitude >= f.smallest));
    const U number = is_zero ? sign : positive;
    return is_nan ? zero + f.nan : number;
}

// A float32's or float64's value rounded to the format, and back: to nearest, ties to even. Only for
// values between 2^-m and 2048, or zero: within the normal range of every format.
template <class U, class Lane>
SLIPSTICK_HD U bits_of_value(Real<U> value, const Format<Lane>& f) {
    const int dropped = kRealBits<U> - f.fraction_bits;
    const U bits = reinterpret<U>(value);
    if (dropped == 0) return bits;
    constexpr int width = 8 * sizeof(Lane);
    const auto sign = static_cast<U>(bits >> static_cast<Lane>(width - 1));
    const U magnitude = static_cast<U>(bits & static_cast<Lane>(~Lane{0} >> 1));
    // The exponents' biases differ.
    const uint64_t rebias = (kRealOne<U> >> dropped) - f.one;
    const auto rounded = static_cast<U>(shift_right(rounded_log(magnitude, dropped), dropped) -
                                        fill<U>(rebias));
    const U kept = magnitude == U{} ? magnitude : rounded;
    return static_cast<U>(kept | static_cast<U>(sign * f.sign));
}

template <class U>
struct SignedOf {
    using type = std::remove_cvref_t<decltype(as_signed(U{}))>;
};

// A number as the lanes' own float type; not for infinities and NaNs.
template <class Lane, class U>
SLIPSTICK_HD Real<U> value_of_bits(U bits, const Format<Lane>& f) {
    const int added = kRealBits<U> - f.fraction_bits;
    if (added == 0) return reinterpret<Real<U>>(bits);
    const U magnitude = magnitude_of(bits, f);
    constexpr int width = 8 * sizeof(Lane);
    const uint64_t rebias = kRealOne<U> - (uint64_t{f.one} << added);
    const auto wide = static_cast<U>(shift_left(magnitude, added) + fill<U>(rebias));
    const auto sign = static_cast<U>((bits & f.sign) / f.sign << static_cast<Lane>(width - 1));
    return reinterpret<Real<U>>(static_cast<U>(wide | sign));
}

template <class To, class From>
SLIPSTICK_HD To converted(From from) {
    if constexpr (std::is_arithmetic_v<From>) {
        return static_cast<To>(from);
    } else {
        return __builtin_convertvector(from, To);
    }
}

// (bits - 1.0) / 2^m, rounded once.
template <class Lane, class U>
SLIPSTICK_HD U log2_bits(U bits, const Format<Lane>& f) {
    using Scalar = std::conditional_t<sizeof(Lane) == 8, double, float>;
    const U zero{};
    const U magnitude = magnitude_of(bits, f);
    const auto is_zero = magnitude < f.smallest;
    const auto is_infinite = magnitude == f.infinity;
    const auto is_nan =
        (magnitude > f.infinity) | (((bits & f.sign) != 0) & (magnitude >= f.smallest));
    const auto units = as_signed(static_cast<U>(magnitude - f.one));
    const Scalar unit = Scalar{1} / static_cast<Scalar>(uint64_t{1} << f.fraction_bits);
    const U number = bits_of_value<U>(static_cast<Real<U>>(converted<Real<U>>(units) * unit), f);
    const U finite = is_infinite ? magnitude : number;
    const U result = is_zero ? zero + static_cast<Lane>(f.infinity | f.sign) : finite;
    return is_nan ? zero + f.nan : result;
}

// The inverse of the logarithm: 1.0 + floor(x 2^m).
template <class Lane, class U>
SLIPSTICK_HD U exp2_bits(U bits, const Format<Lane>& f) {
    using Scalar = std::conditional_t<sizeof(Lane) == 8, double, float>;
    using Signed = typename SignedOf<U>::type;
    const U zero{};
    const U magnitude = magnitude_of(bits, f);
    const auto is_negative = (bits & f.sign) != 0;
    // Beyond the exponents' bias every result is infinite or flushed.
    const auto bias = static_cast<Scalar>(f.one >> f.fraction_bits);
    const Real<U> value = value_of_bits(bits, f);
    const Real<U> high = Real<U>{} + (bias + Scalar{1.5});
    const Real<U> low = Real<U>{} - (bias + Scalar{1});
    const Real<U> below = value < high ? value : high;
    const Real<U> limited = below > low ? below : low;
    const Real<U> units =
        limited * static_cast<Scalar>(uint64_t{1} << f.fraction_bits);  // a power of two: exact
    const auto truncated = converted<Signed>(units);
    const auto floor = converted<Real<U>>(truncated) > units
                           ? static_cast<Signed>(truncated - 1)
                           : truncated;
    const auto sum = static_cast<U>(reinterpret<U>(floor) + f.one);
    const U flushed = as_signed(sum) < as_signed(f.smallest) ? zero : sum;
    const U infinity = zero + f.infinity;
    const U clipped = flushed < infinity ? flushed : infinity;
    const U extreme = is_negative ? zero : infinity;
    const U number = magnitude == f.infinity ? extreme : clipped;
    const U result = magnitude < f.smallest ? zero + f.one : number;
    return magnitude > f.infinity ? zero + f.nan : result;
}

// 1.0 + floor(p (bits - 1.0)), exactly; special cases are those of IEEE 754's pow, where a subnormal
// counts as zero.
SLIPSTICK_HD uint64_t power_bits(uint64_t bits, double p, const Format<uint64_t>& f) {
    const bool is_negative = (bits & f.sign) != 0;
    uint64_t magnitude = magnitude_of(bits, f);
    if (magnitude < f.smallest) magnitude = 0;
    if (p == 0 || (magnitude == f.one && !is_negative)) return f.one;
    if (magnitude > f.infinity || p != p) return f.nan;

    const uint64_t pattern = reinterpret<uint64_t>(p);
    const int exponent = static_cast<int>((pattern >> 52) & 0x7ff);
    const bool grows = (magnitude > f.one) == (p > 0);
    const uint64_t limit = grows ? f.infinity : 0;
    if (exponent == 0x7ff) return magnitude == f.one ? f.one : limit;

    // p = +-significand * 2^shift.
    const uint64_t fraction = pattern & ((uint64_t{1} << 52) - 1);
    const uint64_t significand = exponent == 0 ? fraction : fraction | (uint64_t{1} << 52);
    const int shift = (exponent == 0 ? 1 : exponent) - 1075;
    const bool is_integer =
        shift >= 0 || (shift > -64 && (significand & ((uint64_t{1} << -shift) - 1)) == 0);
    const bool is_odd = is_integer && shift <= 0 && ((significand >> -shift) & 1) != 0;
    const uint64_t sign = is_negative && is_odd ? f.sign : 0;
    if (magnitude == 0 || magnitude == f.infinity) return limit | sign;
    if (is_negative && !is_integer) return f.nan;
    if (magnitude == f.one) return f.one | sign;
    if (shift > 11) return limit | sign;  // |p| >= 2^64: beyond every range

    using Wide = __int128;  // 53 bits, 63 bits and a shift of 11
    const auto log = static_cast<int64_t>(magnitude) - static_cast<int64_t>(f.one);
    const Wide product = Wide{p < 0 ? -log : log} * static_cast<int64_t>(significand);
    const Wide floor = shift >= 0 ? product * (Wide{1} << shift)
                                  : product >> (shift > -127 ? -shift : 127);
    const Wide result = floor + static_cast<int64_t>(f.one);
    if (result < static_cast<int64_t>(f.smallest)) return sign;
    if (result >= static_cast<int64_t>(f.infinity)) return f.infinity | sign;
    return static_cast<uint64_t>(result) | sign;
}

}  // namespace slipstick::mitchell
