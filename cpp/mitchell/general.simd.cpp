// Matrix products that form each product by the method's own rules, whatever the operands are.
#include "core/simd.hpp"
#include "core/tile.hpp"
#include "mitchell/kernels.hpp"
#include "mitchell/lanes.hpp"
#include "mitchell/multiply.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

using mitchell::MacConstants;
using mitchell::MatmulPath;
using mitchell::Packing;
using mitchell::PerMethod;
using slipstick::mitchell::Domain;
using slipstick::mitchell::kTakesFloats;
using slipstick::mitchell::kTakesIntegers;
using slipstick::mitchell::Methods;
using slipstick::mitchell::multiply_bits;
using slipstick::mitchell::multiply_integers;
using slipstick::mitchell::Rule;

// The value of a product whose bits lie in a lane, which may be wider than its format.
template <class T>
SLIPSTICK_INLINE Vec<float> product_value(Vec<uint32_t> bits, T format) {
    return widen(bits, format);
}
SLIPSTICK_INLINE Vec<float> product_value(Vec<uint32_t> bits, float) {
    return bit_cast<Vec<float>>(bits);
}
SLIPSTICK_INLINE Vec<double> product_value(Vec<uint64_t> bits, double) {
    return bit_cast<Vec<double>>(bits);
}

// Products in T's own format, sums in Sum.
template <class M, class T, class Sum>
struct GeneralMac : PlainMac<typename BitsOf<Sum>::Unsigned, typename BitsOf<Sum>::Unsigned, Sum> {
    using Lane = typename BitsOf<Sum>::Unsigned;
    static constexpr bool kHeavy = true;
    MacConstants constants;

    SLIPSTICK_INLINE Vec<Sum> operator()(Vec<Sum> acc, Lane left, Vec<Lane> right) const {
        const Vec<Lane> product =
            multiply_bits<M>(broadcast(left), right, constants.parameters, format<T, Lane>());
        return acc + product_value(product, T{});
    }
};

// Integer products are exact integers, lane by lane; the caller has made sure that no sum
// overflows.
template <class M, class T, class Sum>
struct GeneralIntegerMac : PlainMac<Sum, Sum, Sum> {
    static constexpr bool kHeavy = true;
    MacConstants constants;

    SLIPSTICK_INLINE Vec<Sum> operator()(Vec<Sum> acc, Sum left, Vec<Sum> right) const {
        for (int lane = 0; lane < kLanes<Sum>; ++lane) {
            acc[lane] += static_cast<Sum>(multiply_integers<M>(
                static_cast<T>(left), static_cast<T>(right[lane]), constants.parameters));
        }
        return acc;
    }
};

// Elements as they are, in wider lanes.
template <int height, class T, class Lane>
void pack_plain(const Packing&, const void* source, int64_t stride, int64_t depth_stride,
                int64_t count, int64_t depth, void* packed) {
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

// --- Tables ---

template <class Mac, class T, class Lane>
constexpr MatmulPath kPath = {
    .kernel = kMatmulKernel<Mac>,
    .pack_left = &pack_plain<kTileRows, T, Lane>,
    .pack_right = &pack_plain<kTileColumns<typename Mac::Acc>, T, Lane>,
};

template <class M, class T>
constexpr const MatmulPath* path_of() {
    if constexpr (!std::is_integral_v<T>) {
        // Methods of real products are exact products of changed operands (matmul.simd.cpp); the
        // rounding of L-Mul alone can lift one beyond the format.
        constexpr bool needed =
            M::kRule != Rule::kRealProduct || M::kKind == slipstick::mitchell::Kind::kLMulFormula;
        constexpr bool offered =
            kTakesFloats<M> && needed && (M::kDomain != Domain::kFloat32 || sizeof(T) == 4);
        if constexpr (offered) {
            using Sum = std::conditional_t<sizeof(T) == 8, double, float>;
            return &kPath<GeneralMac<M, T, Sum>, T, typename BitsOf<Sum>::Unsigned>;
        }
    } else if constexpr (sizeof(T) == 1) {
        // A table of all products stands for every method.
        if constexpr (M::kDomain == Domain::kTable) {
            using Sum = std::conditional_t<std::is_signed_v<T>, int32_t, uint32_t>;
            return &kPath<GeneralIntegerMac<M, T, Sum>, T, Sum>;
        }
    } else if constexpr (kTakesIntegers<M>) {
        using Sum = std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>;
        return &kPath<GeneralIntegerMac<M, T, Sum>, T, Sum>;
    }
    return nullptr;
}

constexpr mitchell::GeneralKernels make_general() {
    mitchell::GeneralKernels result{};
    Methods::for_each([&]<class M>() {
        result.path.fn[static_cast<int>(M::kKind)] =
            make_per_dtype<const MatmulPath*, float, double, Float16, BFloat16, int8_t, int16_t,
                           int32_t, uint8_t, uint16_t, uint32_t>(
                []<class T>() { return path_of<M, T>(); });
    });
    return result;
}

}  // namespace

const mitchell::GeneralKernels mitchell_general_kernels = make_general();

}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
