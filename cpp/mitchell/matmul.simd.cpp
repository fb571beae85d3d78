// Matrix products of approximate products: what is packed, and what the tile does with it.
//
// Whatever the dtype, a product is formed in the bits of the type that sums are kept in, float32 or
// float64: an operand of 16 bits or an integer is widened while it is packed, exactly, and the sum
// of two widened patterns is the widened pattern of the product.
#include "core/simd.hpp"
#include "core/tile.hpp"
#include "mitchell/kernels.hpp"
#include "mitchell/lanes.hpp"
#include "mitchell/macs.hpp"
#include "mitchell/packing.hpp"
#include "mitchell/product.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

using mitchell::Magnitudes;
using mitchell::MatmulPath;
using mitchell::Packing;
using slipstick::mitchell::Format;

// --- Operands of exact products ---

template <int height, class T, class Sum, bool left>
void pack_values(const Packing& shared, const void* source, int64_t stride, int64_t depth_stride,
                 int64_t count, int64_t depth, void* packed) {
    const slipstick::mitchell::ExactTerms<Sum, left> terms(shared);
    const auto first = [&](T raw) { return terms.first(raw); };
    const auto second = [&](T raw) { return terms.second(raw); };
    const auto* elements = static_cast<const T*>(source);
    auto* target = static_cast<Sum*>(packed);
    const int64_t length = depth / shared.terms;
    pack_panels<height>(elements, stride, depth_stride, count, length, target, first, Sum{0},
                        shared.terms);
    if (shared.terms == 2) {
        pack_panels<height>(elements, stride, depth_stride, count, length, target + height, second,
                            Sum{0}, 2);
    }
}

// --- The range of an operand ---

template <class T>
void scan(const void* source, int64_t stride, int64_t count, Magnitudes& magnitudes) {
    using Lane = Pattern<T>;
    constexpr Format<Lane> f = format<T, Lane>();
    const auto* elements = static_cast<const Lane*>(source);
    const auto above = static_cast<Lane>(f.sign - 1);  // no magnitude is greater
    Lane lowest = above;
    Lane highest = 0;
    Lane smallest = above;
    const auto look = [&](Lane bits) {
        const auto magnitude = static_cast<Lane>(bits & above);
        const Lane nonzero = magnitude < f.smallest ? above : magnitude;
        lowest = nonzero < lowest ? nonzero : lowest;
        highest = magnitude > highest ? magnitude : highest;
        smallest = magnitude < smallest ? magnitude : smallest;
    };
    if (stride == 1) {
        for (int64_t i = 0; i < count; ++i) look(elements[i]);
    } else {
        for (int64_t i = 0; i < count; ++i) look(elements[i * stride]);
    }
    if (lowest < magnitudes.lowest) magnitudes.lowest = lowest;
    if (highest > magnitudes.highest) magnitudes.highest = highest;
    magnitudes.zeros |= smallest < f.smallest;
}

template <class T>
void scan_integers(const void* source, int64_t stride, int64_t count, Magnitudes& magnitudes) {
    const auto* elements = static_cast<const T*>(source);
    for (int64_t i = 0; i < count; ++i) {
        const int64_t value = elements[i * stride];
        const auto magnitude = static_cast<uint64_t>(value < 0 ? -value : value);
        if (magnitude == 0) magnitudes.zeros = true;
        if (magnitude != 0 && magnitude < magnitudes.lowest) magnitudes.lowest = magnitude;
        if (magnitude > magnitudes.highest) magnitudes.highest = magnitude;
    }
}

// --- Tables ---

template <class T, class Sum, class Total, bool low_bits>
constexpr MatmulPath kSums = {
    .kernel = kMatmulKernel<SumMac<Sum, Total, low_bits>>,
    .pack_left = &pack_sums<kTileRows, T, Sum>,
    .pack_right = &pack_sums<kTileColumns<Sum>, T, Sum>,
};
template <class T, class Sum, class Total>
constexpr MatmulPath kExact = {
    .kernel = kMatmulKernel<ChangedMac<Sum, Total>>,
    .pack_left = &pack_values<kTileRows, T, Sum, true>,
    .pack_right = &pack_values<kTileColumns<Sum>, T, Sum, false>,
};
template <class T, class Sum, bool low_bits>
constexpr MatmulPath kFlushed = {
    .kernel = kMatmulKernel<FlushMac<Sum, low_bits>>,
    .pack_left = &pack_thresholds<kTileRows, T, Sum, low_bits>,
    .pack_right = &pack_sums<kTileColumns<Sum>, T, Sum>,
};

template <class T, class Sum>
constexpr mitchell::Matmul kFloatMatmul = {
    .sums = kSums<T, Sum, Sum, false>,
    .low_sums = kSums<T, Sum, Sum, true>,
    .flushed = kFlushed<T, Sum, false>,
    .low_flushed = kFlushed<T, Sum, true>,
    .exact = kExact<T, Sum, Sum>,
    .scan = &scan<T>,
};

template <class T, class Sum, class Total>
constexpr mitchell::Matmul kIntegerMatmul = {
    .sums = kSums<T, Sum, Total, false>,
    .low_sums = kSums<T, Sum, Total, true>,
    .flushed = {},
    .low_flushed = {},
    .exact = kExact<T, Sum, Total>,
    .scan = &scan_integers<T>,
};

constexpr auto make_matmul = []<class T>() -> const mitchell::Matmul* {
    if constexpr (!std::is_integral_v<T>) {
        return &kFloatMatmul<T, std::conditional_t<sizeof(T) == 8, double, float>>;
    } else if constexpr (sizeof(T) == 1) {
        return &kIntegerMatmul<T, float,
                               std::conditional_t<std::is_signed_v<T>, int32_t, uint32_t>>;
    } else {
        return &kIntegerMatmul<T, double,
                               std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>>;
    }
};

}  // namespace

const mitchell::MatmulKernels mitchell_matmul_kernels = {
    make_per_dtype<const mitchell::Matmul*, float, double, Float16, BFloat16, int8_t, int16_t,
                   int32_t, uint8_t, uint16_t, uint32_t>(make_matmul)};

}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
