#include "core/simd.hpp"
#include "core/tile.hpp"
#include "mitchell/kernels.hpp"
#include "mitchell/lanes.hpp"
#include "mitchell/product.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

using slipstick::mitchell::Format;
using slipstick::mitchell::multiply_bits;
using slipstick::mitchell::multiply_finite_bits;
using slipstick::mitchell::multiply_integers;
using slipstick::mitchell::Parameters;

// The value of
// a 16-bit product that lies in a 32-bit lane. Products are never subnormal: a normal one only
// needs its exponent's bias changed, by an exact multiplication with 2^112.
SLIPSTICK_INLINE Vec<float> product_value(Vec<uint32_t> bits, BFloat16) {
    return bit_cast<Vec<float>>(bits << 16);
}
SLIPSTICK_INLINE Vec<float> product_value(Vec<uint32_t> bits, Float16) {
    const Vec<uint32_t> magnitude = bits & 0x7fffu;
    const Vec<uint32_t> finite =
        bit_cast<Vec<uint32_t>>(bit_cast<Vec<float>>(magnitude << 13) * 0x1p112f);
    const Vec<uint32_t> special = (magnitude << 13) | 0x7f800000u;
    return bit_cast<Vec<float>>((magnitude >= 0x7c00u ? special : finite) |
                                ((bits & 0x8000u) << 16));
}
SLIPSTICK_INLINE Vec<float> product_value(Vec<uint32_t> bits, float) {
    return bit_cast<Vec<float>>(bits);
}
SLIPSTICK_INLINE Vec<double> product_value(Vec<uint64_t> bits, double) {
    return bit_cast<Vec<double>>(bits);
}

// Products in T's own format, sums in Sum (float32, or float64 for float64).
template <class T, class Sum, bool finite>
struct FloatMac {
    using Lane = typename BitsOf<Sum>::Unsigned;
    using Left = Lane;
    using Right = Lane;
    using Acc = Sum;
    Parameters parameters;

    SLIPSTICK_INLINE Vec<Sum> operator()(Vec<Sum> acc, Left left, Vec<Right> right) const {
        const auto c = static_cast<Lane>(parameters.c);
        const Vec<Lane> bits =
            finite ? multiply_finite_bits(broadcast(left), right, c, format<T, Lane>())
                   : multiply_bits(broadcast(left), right, c, format<T, Lane>());
        return acc + product_value(bits, T{});
    }
};

// Integer products are exact integers, lane by lane; the caller has made sure that no sum
// overflows.
template <class T, class Sum>
struct IntegerMac {
    using Left = Sum;
    using Right = Sum;
    using Acc = Sum;
    Parameters parameters;

    SLIPSTICK_INLINE Vec<Sum> operator()(Vec<Sum> acc, Left left, Vec<Right> right) const {
        for (int lane = 0; lane < kLanes<Sum>; ++lane) {
            acc[lane] += static_cast<Sum>(multiply_integers(
                static_cast<T>(left), static_cast<T>(right[lane]), parameters.fraction));
        }
        return acc;
    }
};

template <int height, class T, class Lane>
void pack(const void* source, int64_t stride, int64_t depth_stride, int64_t count, int64_t depth,
          void* packed) {
    if constexpr (std::is_integral_v<T>) {
        pack_panels<height>(static_cast<const T*>(source), stride, depth_stride, count, depth,
                            static_cast<Lane*>(packed),
                            [](T value) { return static_cast<Lane>(value); });
    } else {
        pack_panels<height>(static_cast<const Pattern<T>*>(source), stride, depth_stride, count,
                            depth, static_cast<Lane*>(packed),
                            [](Pattern<T> bits) { return Lane{bits}; });
    }
}

template <class T>
bool is_finite(const void* source, int64_t count, int64_t stride) {
    using Lane = Pattern<T>;
    const auto* elements = static_cast<const Lane*>(source);
    constexpr Format<Lane> f = format<T, Lane>();
    Lane special = 0;
    for (int64_t i = 0; i < count; ++i) {
        special = static_cast<Lane>(special |
                                    ((elements[i * stride] & f.infinity) == f.infinity ? 1 : 0));
    }
    return special == 0;
}

template <class T, class Sum>
constexpr mitchell::Matmul kFloatMatmul = {
    .general = kMatmulKernel<FloatMac<T, Sum, false>>,
    .finite = kMatmulKernel<FloatMac<T, Sum, true>>,
    .pack_left = &pack<kTileRows, T, typename BitsOf<Sum>::Unsigned>,
    .pack_right = &pack<kTileColumns<Sum>, T, typename BitsOf<Sum>::Unsigned>,
    .is_finite = &is_finite<T>,
};

template <class T, class Sum>
constexpr mitchell::Matmul kIntegerMatmul = {
    .general = kMatmulKernel<IntegerMac<T, Sum>>,
    .finite = kMatmulKernel<IntegerMac<T, Sum>>,
    .pack_left = &pack<kTileRows, T, Sum>,
    .pack_right = &pack<kTileColumns<Sum>, T, Sum>,
    .is_finite = nullptr,
};

constexpr auto make_matmul = []<class T>() -> const mitchell::Matmul* {
    if constexpr (std::is_integral_v<T>) {
        using Wide = std::conditional_t<sizeof(T) == 1, int32_t, int64_t>;
        return &kIntegerMatmul<
            T, std::conditional_t<std::is_signed_v<T>, Wide, std::make_unsigned_t<Wide>>>;
    } else {
        return &kFloatMatmul<T, std::conditional_t<sizeof(T) == 8, double, float>>;
    }
};

}  // namespace

const mitchell::MatmulKernels mitchell_matmul_kernels = {
    make_per_dtype<const mitchell::Matmul*, float, double, Float16, BFloat16, int8_t, int16_t,
                   int32_t, uint8_t, uint16_t, uint32_t>(make_matmul)};

}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
