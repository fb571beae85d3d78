// Products of integers, element by element.
#include "mitchell/elements.hpp"
#include "mitchell/multiply.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

using slipstick::mitchell::Kind;
using slipstick::mitchell::multiply_integers;
using slipstick::mitchell::Wider;

// The leading one of numbers below 256.
struct LeadingOnes {
    Vec<uint8_t> low = repeated({0, 1, 2, 2, 4, 4, 4, 4, 8, 8, 8, 8, 8, 8, 8, 8});
    Vec<uint8_t> high =
        repeated({0, 16, 32, 32, 64, 64, 64, 64, 128, 128, 128, 128, 128, 128, 128, 128});

    SLIPSTICK_INLINE Vec<uint16_t> operator()(Vec<uint16_t> value) const {
        const Vec<uint8_t> below = lookup(low, bit_cast<Vec<uint8_t>>(value & 15));
        const Vec<uint8_t> above = lookup(high, bit_cast<Vec<uint8_t>>(value >> 4));
        return bit_cast<Vec<uint16_t>>(above > below ? above : below);
    }
};

// Mitchell's products of 8-bit numbers in 16-bit lanes. With the leading ones p of a and q of b,
// t = a q + b p and o = p q, the product is the greater of 1 + s = t - o and 2 s = 2 t - 4 o, in
// units of one; zero has p = 0, and gives 0.
template <class T, bool has_offset>
struct MultiplyBytes {
    LeadingOnes leading_one;
    uint16_t fraction;  // floor(d 2^16): floor(2^j d) for j <= 16 is the high half of a product

    SLIPSTICK_INLINE Vec<Wider<T>> operator()(Vec<Wider<T>> a, Vec<Wider<T>> b) const {
        using V = Vec<uint16_t>;
        if constexpr (std::is_signed_v<T>) {
            const Vec<int16_t> sign = (a ^ b) >> 15;
            const Vec<int16_t> magnitude =
                (Vec<int16_t>)unsigned_product((V)(a < 0 ? -a : a), (V)(b < 0 ? -b : b));
            return (magnitude ^ sign) - sign;
        } else {
            return unsigned_product(a, b);
        }
    }

private:
    SLIPSTICK_INLINE Vec<uint16_t> unsigned_product(Vec<uint16_t> a, Vec<uint16_t> b) const {
        using V = Vec<uint16_t>;
        const V p = leading_one(a);
        const V q = leading_one(b);
        const V t = a * q + b * p;  // below 2^16
        const V one = p * q;
        if constexpr (!has_offset) {
            const V plain = t - one;
            const V carried = (t + t) - (one << 2);
            return plain > carried ? plain : carried;
        } else {
            const V units = broadcast(fraction);
            const V cross = t - (one + one);
            const V sum = cross + multiply_high(one, units);
            const V plain = one + sum;
            const V carried = cross + cross + multiply_high(one + one, units);
            // 4 o may be 2^16.
            const V twice = one == 0x4000 ? units : multiply_high(one << 2, units);
            const V rest = (cross - one) << 2;
            const V total = rest + twice;
            const V full = broadcast(uint16_t{0xffff});
            const V saturated = total < rest ? full : total;
            const V small = plain > carried ? plain : carried;
            return sum >= one + one ? saturated : small;
        }
    }
};

// The same for 16-bit numbers in lanes of 32 bits, without an offset.
template <class T>
struct MultiplyWords {
    SLIPSTICK_INLINE Vec<Wider<T>> operator()(Vec<Wider<T>> a, Vec<Wider<T>> b) const {
        using V = Vec<uint32_t>;
        if constexpr (std::is_signed_v<T>) {
            const Vec<int32_t> sign = (a ^ b) >> 31;
            const auto magnitude =
                (Vec<int32_t>)unsigned_product((V)(a < 0 ? -a : a), (V)(b < 0 ? -b : b));
            return (magnitude ^ sign) - sign;
        } else {
            return unsigned_product(a, b);
        }
    }

private:
    // A float32 without its fraction.
    SLIPSTICK_INLINE static Vec<uint32_t> leading_one(Vec<uint32_t> value) {
        const auto bits = bit_cast<Vec<uint32_t>>(
            __builtin_convertvector(bit_cast<Vec<int32_t>>(value), Vec<float>));
        const auto power = bit_cast<Vec<float>>(bits & 0x7f800000u);
        return bit_cast<Vec<uint32_t>>(__builtin_convertvector(power, Vec<int32_t>));
    }
    SLIPSTICK_INLINE static Vec<uint32_t> unsigned_product(Vec<uint32_t> a, Vec<uint32_t> b) {
        const Vec<uint32_t> p = leading_one(a);
        const Vec<uint32_t> q = leading_one(b);
        const Vec<uint32_t> t = a * q + b * p;
        const Vec<uint32_t> one = p * q;
        const Vec<uint32_t> plain = t - one;
        const Vec<uint32_t> carried = (t + t) - (one << 2);
        return plain > carried ? plain : carried;
    }
};

template <class T>
SLIPSTICK_INLINE Vec<Wider<T>> load_wider(const T* source) {
    return __builtin_convertvector((load<VecLike<T, Wider<T>>>(source)), Vec<Wider<T>>);
}

// How many elements were done; a strip with other strides is left alone.
template <class T, class Operation>
SLIPSTICK_INLINE int64_t multiply_vectors(const Strip& strip, const Operation& multiply) {
    using V = Vec<Wider<T>>;
    constexpr int lanes = kLanes<Wider<T>>;
    const auto* a = static_cast<const T*>(strip.data[1]);
    const auto* b = static_cast<const T*>(strip.data[2]);
    auto* out = static_cast<Wider<T>*>(strip.target());
    const auto [out_stride, a_stride, b_stride] = strip.stride;
    if (out_stride != 1 || (a_stride | b_stride | 1) != 1) return 0;
    const V a_value = broadcast(Wider<T>{a[0]});
    const V b_value = broadcast(Wider<T>{b[0]});
    int64_t i = 0;
    for (; i + lanes <= strip.count; i += lanes) {
        const V left = a_stride == 1 ? load_wider(a + i) : a_value;
        const V right = b_stride == 1 ? load_wider(b + i) : b_value;
        store(out + i, multiply(left, right));
    }
    return i;
}

template <class M, class T>
void multiply_integer_strip(const Strip& strip, const Parameters& parameters) {
    const auto* a = static_cast<const T*>(strip.data[1]);
    const auto* b = static_cast<const T*>(strip.data[2]);
    auto* out = static_cast<Wider<T>*>(strip.target());
    int64_t i = 0;
    if constexpr (M::kKind == Kind::kMitchell && sizeof(T) == 1) {
        const auto fraction = static_cast<uint16_t>(parameters.fraction >> 48);
        i = parameters.fraction == 0
                ? multiply_vectors<T>(strip, MultiplyBytes<T, false>{{}, fraction})
                : multiply_vectors<T>(strip, MultiplyBytes<T, true>{{}, fraction});
    } else if constexpr (M::kKind == Kind::kMitchell && sizeof(T) == 2) {
        if (parameters.fraction == 0) i = multiply_vectors<T>(strip, MultiplyWords<T>{});
    }
    for (; i < strip.count; ++i) {
        out[i * strip.stride[0]] =
            multiply_integers<M>(a[i * strip.stride[1]], b[i * strip.stride[2]], parameters);
    }
}

constexpr auto make_multiply = []<class M, class T>() -> mitchell::ElementwiseFn {
    constexpr bool is_table = M::kDomain == Domain::kTable && sizeof(T) == 1;
    if constexpr (slipstick::mitchell::kTakesIntegers<M> || is_table) {
        return &multiply_integer_strip<M, T>;
    } else {
        return nullptr;
    }
};

}  // namespace

const mitchell::IntegerKernels mitchell_integer_kernels = {
    make_per_method<int8_t, int16_t, int32_t, uint8_t, uint16_t, uint32_t>(make_multiply)};

}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
