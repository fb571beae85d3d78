#include "core/simd.hpp"
#include "mitchell/kernels.hpp"
#include "mitchell/lanes.hpp"
#include "mitchell/product.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

using slipstick::mitchell::divide_bits;
using slipstick::mitchell::Format;
using slipstick::mitchell::is_special;
using slipstick::mitchell::multiply_bits;
using slipstick::mitchell::multiply_finite_bits;
using slipstick::mitchell::multiply_integers;
using slipstick::mitchell::Parameters;
using slipstick::mitchell::Wider;

struct Multiply {
    template <class T, class Lane>
    SLIPSTICK_INLINE static Lane apply(Lane a, Lane b, Lane c) {
        return multiply_bits(a, b, c, format<T, Lane>());
    }
    // Infinities and NaNs are rare: a test of the whole vector costs 4 instructions, handling
    // them 15.
    template <class T, class Lane>
    SLIPSTICK_INLINE static Vec<Lane> apply(Vec<Lane> a, Vec<Lane> b, Lane c) {
        constexpr Format<Lane> f = format<T, Lane>();
        if (any(is_special(a, f) | is_special(b, f))) [[unlikely]]
            return multiply_bits(a, b, c, f);
        return multiply_finite_bits(a, b, c, f);
    }
};
struct Divide {
    template <class T, class Lane, class U>
    SLIPSTICK_INLINE static U apply(U a, U b, Lane c) {
        return divide_bits(a, b, c, format<T, Lane>());
    }
};

template <class Operation, class T>
void elementwise(const Strip& strip, const Parameters& parameters) {
    using Lane = Pattern<T>;
    using V = Vec<Lane>;
    constexpr int lanes = kLanes<Lane>;
    const auto c = static_cast<Lane>(parameters.c);
    const auto* a = static_cast<const Lane*>(strip.data[1]);
    const auto* b = static_cast<const Lane*>(strip.data[2]);
    auto* out = static_cast<Lane*>(strip.target());
    const auto [out_stride, a_stride, b_stride] = strip.stride;
    int64_t i = 0;
    if (out_stride == 1 && (a_stride | b_stride | 1) == 1) {  // every step is 1 or 0
        const V a_value = broadcast(a[0]);
        const V b_value = broadcast(b[0]);
        for (; i + lanes <= strip.count; i += lanes) {
            const V left = a_stride == 1 ? load<V>(a + i) : a_value;
            const V right = b_stride == 1 ? load<V>(b + i) : b_value;
            store(out + i, Operation::template apply<T, Lane>(left, right, c));
        }
    }
    for (; i < strip.count; ++i) {
        out[i * out_stride] =
            Operation::template apply<T, Lane>(a[i * a_stride], b[i * b_stride], c);
    }
}

template <class T>
void multiply_integer_strip(const Strip& strip, const Parameters& parameters) {
    const auto* a = static_cast<const T*>(strip.data[1]);
    const auto* b = static_cast<const T*>(strip.data[2]);
    auto* out = static_cast<Wider<T>*>(strip.target());
    for (int64_t i = 0; i < strip.count; ++i) {
        out[i * strip.stride[0]] =
            multiply_integers(a[i * strip.stride[1]], b[i * strip.stride[2]], parameters.fraction);
    }
}

constexpr auto make_multiply = []<class T>() -> mitchell::ElementwiseFn {
    if constexpr (std::is_integral_v<T>) {
        return &multiply_integer_strip<T>;
    } else {
        return &elementwise<Multiply, T>;
    }
};
constexpr auto make_divide = []<class T>() -> mitchell::ElementwiseFn {
    return &elementwise<Divide, T>;
};

}  // namespace

const mitchell::ElementwiseKernels mitchell_elementwise_kernels = {
    .multiply = make_per_dtype<mitchell::ElementwiseFn, float, double, Float16, BFloat16, int8_t,
                               int16_t, int32_t, uint8_t, uint16_t, uint32_t>(make_multiply),
    .divide =
        make_per_dtype<mitchell::ElementwiseFn, float, double, Float16, BFloat16>(make_divide),
};

}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
