// Square root, logarithm, exponential and power, element by element.
#include "mitchell/elements.hpp"
#include "mitchell/functions.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

struct Sqrt {
    template <class T, class Lane, class U>
    SLIPSTICK_INLINE static U apply(U bits) {
        return slipstick::mitchell::sqrt_bits(bits, format<T, Lane>());
    }
};
struct Log2 {
    template <class T, class Lane, class U>
    SLIPSTICK_INLINE static U apply(U bits) {
        return slipstick::mitchell::log2_bits(bits, format<T, Lane>());
    }
};
struct Exp2 {
    template <class T, class Lane, class U>
    SLIPSTICK_INLINE static U apply(U bits) {
        return slipstick::mitchell::exp2_bits(bits, format<T, Lane>());
    }
};

// 16-bit numbers in lanes of 32 bits, so that a float32 has place for what is computed of them.
template <class Operation, class T>
void unary(const Strip& strip, const Parameters&) {
    using Lane = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
    constexpr int lanes = kLanes<Lane>;
    const auto* a = static_cast<const Pattern<T>*>(strip.data[1]);
    auto* out = static_cast<Pattern<T>*>(strip.target());
    const int64_t out_stride = strip.stride[0];
    const int64_t a_stride = strip.stride[1];
    int64_t i = 0;
    if (out_stride == 1 && a_stride == 1) {
        for (; i + lanes <= strip.count; i += lanes) {
            store_lanes<T, Lane>(out + i,
                                 Operation::template apply<T, Lane>(load_lanes<T, Lane>(a + i)));
        }
    }
    for (; i < strip.count; ++i) {
        out[i * out_stride] =
            static_cast<Pattern<T>>(Operation::template apply<T, Lane>(Lane{a[i * a_stride]}));
    }
}

template <class T>
SLIPSTICK_INLINE double value_of(Pattern<T> bits) {
    if constexpr (sizeof(T) == 2) {
        return double{to_float(T{bits})};
    } else {
        return double{bit_cast<T>(bits)};
    }
}

template <class T>
void power(const Strip& strip, const Parameters&) {
    const auto* a = static_cast<const Pattern<T>*>(strip.data[1]);
    const auto* p = static_cast<const Pattern<T>*>(strip.data[2]);
    auto* out = static_cast<Pattern<T>*>(strip.target());
    constexpr Format<uint64_t> f = format<T, uint64_t>();
    for (int64_t i = 0; i < strip.count; ++i) {
        const Pattern<T> bits = p[i * strip.stride[2]];
        const bool is_zero = (bits & (f.sign - 1)) < f.smallest;
        out[i * strip.stride[0]] = static_cast<Pattern<T>>(slipstick::mitchell::power_bits(
            a[i * strip.stride[1]], is_zero ? 0.0 : value_of<T>(bits), f));
    }
}

template <class T>
void power_number(const Strip& strip, const Parameters&) {
    const auto* a = static_cast<const Pattern<T>*>(strip.data[1]);
    const double p = *static_cast<const double*>(strip.data[2]);
    auto* out = static_cast<Pattern<T>*>(strip.target());
    for (int64_t i = 0; i < strip.count; ++i) {
        out[i * strip.stride[0]] = static_cast<Pattern<T>>(
            slipstick::mitchell::power_bits(a[i * strip.stride[1]], p, format<T, uint64_t>()));
    }
}

template <class Maker>
constexpr PerDtype<mitchell::ElementwiseFn> make(Maker maker) {
    return make_per_dtype<mitchell::ElementwiseFn, float, double, Float16, BFloat16>(maker);
}

}  // namespace

const mitchell::FunctionKernels mitchell_function_kernels = {
    .sqrt = make([]<class T>() { return &unary<Sqrt, T>; }),
    .log2 = make([]<class T>() { return &unary<Log2, T>; }),
    .exp2 = make([]<class T>() { return &unary<Exp2, T>; }),
    .power = make([]<class T>() { return &power<T>; }),
    .power_number = make([]<class T>() { return &power_number<T>; }),
};

}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
