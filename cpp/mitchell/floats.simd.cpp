// Products and quotients of floating-point numbers, element by element.
#include "mitchell/elements.hpp"
#include "mitchell/multiply.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

using slipstick::mitchell::divide_bits;
using slipstick::mitchell::is_special;
using slipstick::mitchell::multiply_bits;
using slipstick::mitchell::multiply_finite_bits;
using slipstick::mitchell::Rule;

template <class M>
struct Multiply {
    Parameters parameters;

    template <class T, class Lane>
    SLIPSTICK_INLINE Lane operator()(Lane a, Lane b) const {
        return multiply_bits<M>(a, b, parameters, format<T, Lane>());
    }
    // Infinities and NaNs are rare: a test of the whole vector costs 4 instructions, handling
    // them 15.
    template <class T, class Lane>
    SLIPSTICK_INLINE Vec<Lane> operator()(Vec<Lane> a, Vec<Lane> b) const {
        constexpr Format<Lane> f = format<T, Lane>();
        if constexpr (M::kRule == Rule::kPattern) {
            return multiply_bits<M>(a, b, parameters, f);
        } else {
            if (any(is_special(a, f) | is_special(b, f))) [[unlikely]]
                return multiply_bits<M>(a, b, parameters, f);
            return multiply_finite_bits<M>(a, b, parameters, f);
        }
    }
};
struct Divide {
    Parameters parameters;

    template <class T, class Lane, class U>
    SLIPSTICK_INLINE U operator()(U a, U b) const {
        return divide_bits(a, b, static_cast<Lane>(parameters.c), format<T, Lane>());
    }
};

// Mitchell's products for float32 and float64 where all is well: two adds, and a certificate of the
// operands' exponents. With a bias of B, exponents from (B + 1) / 2 to (3 B - 3) / 2 give a normal
// product whatever the fractions and the offset carry, and then the wrapping sum of the patterns
// has the right sign too. Values from 2^-63 to 2^63 for float32. In words of 32 bits, which AVX2
// can compare without a sign; of a float64 the upper word holds the exponent, and any lower word
// will do.
template <class T>
struct Certificate {
    using Words = Vec<uint32_t>;
    static constexpr Format<Pattern<T>> kFormat = format<T, Pattern<T>>();
    static constexpr int kShift = 8 * (sizeof(T) - 4);
    static constexpr auto kBias = static_cast<Pattern<T>>(kFormat.one >> kFormat.fraction_bits);
    // The sign is shifted out.
    static constexpr uint32_t word_of(Pattern<T> exponent) {
        return static_cast<uint32_t>((exponent << kFormat.fraction_bits) >> kShift) * 2;
    }
    static constexpr uint32_t kLowest = word_of((kBias + 1) / 2);
    static constexpr uint32_t kCount = word_of((3 * kBias - 3) / 2 + 1) - kLowest;

    Words lowest = upper(kLowest, 0);
    Words limit = upper(kCount - 1, ~uint32_t{0});
    Words highest = {};  // of what add() has seen, from `lowest`

    SLIPSTICK_INLINE void add(Vec<Pattern<T>> value) {
        const auto words = bit_cast<Words>(value);
        const Words distance = (words + words) - lowest;
        highest = highest > distance ? highest : distance;
    }
    SLIPSTICK_INLINE bool holds() const { return !any(highest > limit); }

private:
    SLIPSTICK_INLINE static Words upper(uint32_t value, uint32_t other) {
        return bit_cast<Words>(broadcast(static_cast<Pattern<T>>(
            (static_cast<Pattern<T>>(value) << kShift) | (sizeof(T) == 8 ? other : 0))));
    }
};

// How many elements of a strip were done.
template <class T>
int64_t multiply_in_blocks(const Strip& strip, const Parameters& parameters) {
    using Lane = Pattern<T>;
    using V = Vec<Lane>;
    constexpr int kVectors = 4;
    constexpr int64_t kBlock = kVectors * kLanes<Lane>;
    const auto [out_stride, a_stride, b_stride] = strip.stride;
    if (out_stride != 1 || a_stride != 1 || b_stride != 1) return 0;
    const auto* a = static_cast<const Lane*>(strip.data[1]);
    const auto* b = static_cast<const Lane*>(strip.data[2]);
    auto* out = static_cast<Lane*>(strip.target());
    const auto c = static_cast<Lane>(parameters.c);
    const Multiply<slipstick::mitchell::Mitchell> multiply{parameters};
    int64_t i = 0;
    for (; i + kBlock <= strip.count; i += kBlock) {
        Certificate<T> certificate;
        V left[kVectors];
        V right[kVectors];
        for (int j = 0; j < kVectors; ++j) {
            left[j] = load<V>(a + i + j * kLanes<Lane>);
            right[j] = load<V>(b + i + j * kLanes<Lane>);
            certificate.add(left[j]);
            certificate.add(right[j]);
        }
        if (certificate.holds()) [[likely]] {
            for (int j = 0; j < kVectors; ++j)
                store(out + i + j * kLanes<Lane>, left[j] + right[j] - c);
        } else {
            for (int j = 0; j < kVectors; ++j)
                store(out + i + j * kLanes<Lane>,
                      multiply.template operator()<T, Lane>(left[j], right[j]));
        }
    }
    return i;
}

template <class M, class T>
void multiply_floats(const Strip& strip, const Parameters& parameters) {
    int64_t done = 0;
    if constexpr (M::kKind == slipstick::mitchell::Kind::kMitchell && sizeof(T) >= 4)
        done = multiply_in_blocks<T>(strip, parameters);
    binary<T, LaneOfBits<M::lane_bits(8 * sizeof(Pattern<T>))>>(strip, Multiply<M>{parameters},
                                                                done);
}
template <class T>
void divide_floats(const Strip& strip, const Parameters& parameters) {
    binary<T, Pattern<T>>(strip, Divide{parameters});
}

constexpr auto make_multiply = []<class M, class T>() -> mitchell::ElementwiseFn {
    constexpr bool fits = M::kDomain != Domain::kFloat32 || std::is_same_v<T, float>;
    if constexpr (slipstick::mitchell::kTakesFloats<M> && fits) {
        return &multiply_floats<M, T>;
    } else {
        return nullptr;
    }
};
constexpr auto make_divide = []<class T>() -> mitchell::ElementwiseFn { return &divide_floats<T>; };

}  // namespace

const mitchell::FloatKernels mitchell_float_kernels = {
    .multiply = make_per_method<float, double, Float16, BFloat16>(make_multiply),
    .divide =
        make_per_dtype<mitchell::ElementwiseFn, float, double, Float16, BFloat16>(make_divide),
};

}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
