// Products and quotients of floating-point numbers, element by element.
#include "mitchell/elements.hpp"

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

template <class M, class T>
void multiply_floats(const Strip& strip, const Parameters& parameters) {
    binary<T, LaneOfBits<M::lane_bits(8 * sizeof(Pattern<T>))>>(strip, Multiply<M>{parameters});
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
constexpr auto make_divide = []<class T>() -> mitchell::ElementwiseFn {
    return &divide_floats<T>;
};

}  // namespace

const mitchell::FloatKernels mitchell_float_kernels = {
    .multiply = make_per_method<float, double, Float16, BFloat16>(make_multiply),
    .divide =
        make_per_dtype<mitchell::ElementwiseFn, float, double, Float16, BFloat16>(make_divide),
};

}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
