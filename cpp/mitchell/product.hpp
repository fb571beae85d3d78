// What a Mitchell product and quotient are, bit for bit: the only definition, for one number or for
// a vector of them, on the host and on the GPU.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/host_device.hpp"

namespace slipstick::mitchell {

// A binary floating-point format held in unsigned lanes; the lanes may be wider than the format.
template <class Lane>
struct Format {
    Lane sign;
    Lane infinity;  // magnitude bits of infinity; above it lie the NaNs
    Lane smallest;  // of the smallest normal number; below it lie subnormals, which count as zero
    Lane one;       // of 1.0
    Lane nan;       // the quiet NaN that every invalid operation gives
    int fraction_bits;
};
template <class Lane>
inline constexpr Format<Lane> kFormat16{0x8000, 0x7c00, 0x0400, 0x3c00, 0x7e00, 10};
template <class Lane>
inline constexpr Format<Lane> kFormatB16{0x8000, 0x7f80, 0x0080, 0x3f80, 0x7fc0, 7};
template <class Lane>
inline constexpr Format<Lane> kFormat32{0x80000000, 0x7f800000, 0x00800000,
                                        0x3f800000, 0x7fc00000, 23};
template <class Lane>
inline constexpr Format<Lane> kFormat64{0x8000000000000000, 0x7ff0000000000000, 0x0010000000000000,
                                        0x3ff0000000000000, 0x7ff8000000000000, 52};

// Below, U is Lane or a compiler vector of Lane: both know ?: and the operators. Magnitudes leave
// the top bit of a lane clear, so they may be compared as signed numbers, which is one instruction
// on every level.
template <class U>
SLIPSTICK_HD auto as_signed(U value) {
    if constexpr (std::is_integral_v<U>) {
        return static_cast<std::make_signed_t<U>>(value);
    } else {
        return (decltype(value < value))value;
    }
}

template <class Lane, class U>
SLIPSTICK_HD U magnitude_of(U bits, const Format<Lane>& f) {
    return static_cast<U>(bits & static_cast<Lane>(f.sign - 1));
}

// Infinite or NaN.
template <class Lane, class U>
SLIPSTICK_HD auto is_special(U bits, const Format<Lane>& f) {
    return as_signed(magnitude_of(bits, f)) >= as_signed(f.infinity);
}

// The bits of a product from the sum of its operands' magnitudes, or what stands for it, the smaller
// magnitude and the sign. Two magnitudes fill the lane and no more, so the sum is clamped before c is
// taken off: what overflows becomes infinity, and what is below 1.0 * c turns negative and is
// flushed with the subnormals.
template <class Lane, class U>
SLIPSTICK_HD U product_of_sum(U sum, U smaller, U sign, Lane c, const Format<Lane>& f) {
    const U zero{};
    const U highest = zero + static_cast<Lane>(c + f.infinity);
    const auto magnitude = static_cast<U>((sum < highest ? sum : highest) - c);
    const auto flushed = (as_signed(magnitude) < as_signed(f.smallest)) |
                         (as_signed(smaller) < as_signed(f.smallest));
    return (flushed ? zero : magnitude) | sign;
}

// The bits of a (x) b for numbers that are neither infinite nor NaN: magnitudes a + b - c, where c
// is 1.0 less the method's offset.
template <class Lane, class U>
SLIPSTICK_HD U multiply_finite_bits(U a, U b, Lane c, const Format<Lane>& f) {
    const U magnitude_a = magnitude_of(a, f);
    const U magnitude_b = magnitude_of(b, f);
    const U smaller = magnitude_a < magnitude_b ? magnitude_a : magnitude_b;
    return product_of_sum(static_cast<U>(magnitude_a + magnitude_b), smaller,
                          static_cast<U>((a ^ b) & f.sign), c, f);
}

// `product` where a and b are numbers, else what infinities and NaNs give.
template <class Lane, class U>
SLIPSTICK_HD U with_special_products(U a, U b, U product, const Format<Lane>& f) {
    const U zero{};
    const U magnitude_a = magnitude_of(a, f);
    const U magnitude_b = magnitude_of(b, f);
    const auto is_zero = (magnitude_a < f.smallest) | (magnitude_b < f.smallest);
    const auto is_infinite = (magnitude_a == f.infinity) | (magnitude_b == f.infinity);
    const auto is_nan =
        (magnitude_a > f.infinity) | (magnitude_b > f.infinity) | (is_infinite & is_zero);
    const auto infinity = static_cast<U>((zero + f.infinity) | ((a ^ b) & f.sign));
    const U result = is_infinite ? infinity : product;
    return is_nan ? zero + f.nan : result;
}

// The same for any operands.
template <class Lane, class U>
SLIPSTICK_HD U multiply_bits(U a, U b, Lane c, const Format<Lane>& f) {
    return with_special_products(a, b, multiply_finite_bits(a, b, c, f), f);
}

// The bits of a / b: magnitudes a - b + c.
template <class Lane, class U>
SLIPSTICK_HD U divide_bits(U a, U b, Lane c, const Format<Lane>& f) {
    const U zero{};
    const U infinity = zero + f.infinity;
    const auto sign = static_cast<U>((a ^ b) & f.sign);
    const U magnitude_a = magnitude_of(a, f);
    const U magnitude_b = magnitude_of(b, f);
    const auto raised = static_cast<U>(magnitude_a + c);  // below three quarters of the lane
    const auto difference = static_cast<U>(raised - magnitude_b);
    const auto too_small = raised < static_cast<U>(magnitude_b + f.smallest);
    const auto too_large = raised >= static_cast<U>(magnitude_b + f.infinity);
    U magnitude = too_small ? zero : (too_large ? infinity : difference);
    const auto a_zero = magnitude_a < f.smallest;
    const auto b_zero = magnitude_b < f.smallest;
    const auto a_infinite = magnitude_a == f.infinity;
    const auto b_infinite = magnitude_b == f.infinity;
    magnitude = (a_zero | b_infinite) ? zero : magnitude;
    magnitude = (b_zero | a_infinite) ? infinity : magnitude;
    const auto is_nan = (magnitude_a > f.infinity) | (magnitude_b > f.infinity) |
                        (a_zero & b_zero) | (a_infinite & b_infinite);
    const auto signed_result = static_cast<U>(magnitude | sign);
    return is_nan ? zero + f.nan : signed_result;
}

// --- Integers ---

template <class T>
struct WiderOf;
#define SLIPSTICK_WIDER(narrow, wide) \
    template <>                       \
    struct WiderOf<narrow> {          \
        using type = wide;            \
    }
SLIPSTICK_WIDER(int8_t, int16_t);
SLIPSTICK_WIDER(int16_t, int32_t);
SLIPSTICK_WIDER(int32_t, int64_t);
SLIPSTICK_WIDER(uint8_t, uint16_t);
SLIPSTICK_WIDER(uint16_t, uint32_t);
SLIPSTICK_WIDER(uint32_t, uint64_t);
#undef SLIPSTICK_WIDER
template <class T>
using Wider = typename WiderOf<T>::type;

// Holds four times the exact product of two T: three bits more than Wider<T>.
template <class T>
using ProductWork = std::conditional_t<sizeof(T) == 4, unsigned __int128, uint64_t>;

template <class T>
SLIPSTICK_HD uint64_t magnitude_of_integer(T value) {
    const auto wide = static_cast<int64_t>(value);
    return static_cast<uint64_t>(wide < 0 ? -wide : wide);
}

// The product of two T from its magnitude, saturated at the limits of its type.
template <class T>
SLIPSTICK_HD Wider<T> saturated(ProductWork<T> magnitude, bool negative) {
    using Product = Wider<T>;
    using Unsigned = std::make_unsigned_t<Product>;
    constexpr auto highest =
        static_cast<Unsigned>(std::is_signed_v<Product> ? ~Unsigned{0} >> 1 : ~Unsigned{0});
    const ProductWork<T> limit = ProductWork<T>{highest} + (negative ? 1 : 0);
    const auto kept = static_cast<Unsigned>(magnitude > limit ? limit : magnitude);
    return static_cast<Product>(negative ? Unsigned{0} - kept : kept);
}

// floor of 2^(k1+k2) times  1+s | 2s | 4(s-1)  for  s = x+y+d  in  [0,1) | [1,2) | [2,3),  where a
// = 2^k1 (1+x) and b = 2^k2 (1+y): everything but d * 2^(k1+k2) is an integer, and `fraction` =
// floor(d * 2^64) gives the floor of d * 2^j for every j <= 64. Saturates at the limits of the
// product's type.
template <class T>
SLIPSTICK_HD Wider<T> multiply_integers(T a, T b, uint64_t fraction) {
    using Work = ProductWork<T>;
    if (a == 0 || b == 0) return 0;
    const uint64_t magnitude_a = magnitude_of_integer(a);
    const uint64_t magnitude_b = magnitude_of_integer(b);
    const int k1 = 63 - __builtin_clzll(magnitude_a);
    const int k2 = 63 - __builtin_clzll(magnitude_b);
    const int k = k1 + k2;  // at most 62
    const Work one = Work{1} << k;
    const Work cross = ((Work{magnitude_a} << k2) - one) + ((Work{magnitude_b} << k1) - one);
    const auto offset = [&](int j) {
        return j == 0 ? Work{0} : static_cast<Work>(fraction >> (64 - j));
    };
    const Work sum = cross + offset(k);
    const Work product = sum < one       ? one + sum
                         : sum < 2 * one ? 2 * cross + offset(k + 1)
                                         : 4 * (cross - one) + offset(k + 2);
    return saturated<T>(product, (a < 0) != (b < 0));
}

}  // namespace slipstick::mitchell
