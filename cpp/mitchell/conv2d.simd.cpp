// Convolutions with few output channels a group: a tile of a matrix product would leave most of its
// rows empty, so sums run along the lines of the image.
#include "core/simd.hpp"
#include "mitchell/conv2d_kernels.hpp"
#include "mitchell/macs.hpp"
#include "mitchell/product.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

using mitchell::Conv2d;
using mitchell::LineSums;

// `vectors` neighbouring vectors of one output row: four independent chains hide the latency of
// the additions.
template <int vectors, class Mac>
SLIPSTICK_INLINE void sum_line(const Mac& mac, const LineSums& s, int64_t y, int64_t x) {
    using Left = typename Mac::Left;
    using Right = typename Mac::Right;
    using Total = typename Mac::Total;
    constexpr int lanes = kLanes<Right>;
    const auto* weights = static_cast<const Left*>(s.weights);
    const Right* line = static_cast<const Right*>(s.lines) + y * s.line_step + x;
    Vec<Total> totals[vectors] = {};
    for (int64_t begin = 0; begin < s.depth; begin += kDepthBlock) {
        const int64_t end = begin + kDepthBlock < s.depth ? begin + kDepthBlock : s.depth;
        Vec<typename Mac::Acc> chains[vectors] = {};
        for (int64_t k = begin; k < end; ++k) {
            const Left weight = weights[k * kTileRows];
            const Right* elements = line + s.offsets[k];
#pragma GCC unroll 4
            for (int v = 0; v < vectors; ++v)
                chains[v] = mac(chains[v], weight, load<Vec<Right>>(elements + v * lanes));
        }
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) {
            const Vec<Total> chain = mac.finish(chains[v]);
            totals[v] = begin == 0 ? chain : totals[v] + chain;
        }
    }
    Total* target = static_cast<Total*>(s.acc) + y * s.columns + x;
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) store(target + v * lanes, totals[v]);
}

template <class Mac>
void sum_lines(const MacConstants& constants, const LineSums& sums) {
    constexpr int lanes = kLanes<typename Mac::Right>;
    const Mac mac{.constants = constants};
    const LineSums s = sums;
    for (int64_t y = 0; y < s.rows; ++y) {
        int64_t x = 0;
        for (; x + 4 * lanes <= s.columns; x += 4 * lanes) sum_line<4>(mac, s, y, x);
        for (; x < s.columns; x += lanes) sum_line<1>(mac, s, y, x);
    }
}

template <class T, class Total>
void add_products(const void* products, int64_t count, void* chain) {
    auto* sums = static_cast<Total*>(chain);
    if constexpr (std::is_integral_v<T>) {
        const auto* values = static_cast<const slipstick::mitchell::Wider<T>*>(products);
        for (int64_t i = 0; i < count; ++i) sums[i] += static_cast<Total>(values[i]);
    } else {
        const auto* values = static_cast<const T*>(products);
        for (int64_t i = 0; i < count; ++i) {
            if constexpr (sizeof(T) == 2)
                sums[i] += to_float(values[i]);
            else
                sums[i] += values[i];
        }
    }
}

template <class Total>
void add_chain(void* chain, int64_t count, void* total) {
    auto* sums = static_cast<Total*>(chain);
    auto* totals = static_cast<Total*>(total);
    for (int64_t i = 0; i < count; ++i) {
        totals[i] += sums[i];
        sums[i] = 0;
    }
}

template <class T, class Sum>
constexpr Conv2d kFloatConv2d = {
    .sums = &sum_lines<SumMac<Sum, Sum, false>>,
    .low_sums = &sum_lines<SumMac<Sum, Sum, true>>,
    .flushed = &sum_lines<FlushMac<Sum, false>>,
    .low_flushed = &sum_lines<FlushMac<Sum, true>>,
    .add_products = &add_products<T, Sum>,
    .add_chain = &add_chain<Sum>,
    .lanes = kLanes<Sum>,
};
template <class T, class Sum, class Total>
constexpr Conv2d kIntegerConv2d = {
    .sums = &sum_lines<SumMac<Sum, Total, false>>,
    .low_sums = &sum_lines<SumMac<Sum, Total, true>>,
    .flushed = nullptr,
    .low_flushed = nullptr,
    .add_products = &add_products<T, Total>,
    .add_chain = &add_chain<Total>,
    .lanes = kLanes<Sum>,
};

constexpr auto make_conv2d = []<class T>() -> const Conv2d* {
    if constexpr (!std::is_integral_v<T>) {
        return &kFloatConv2d<T, std::conditional_t<sizeof(T) == 8, double, float>>;
    } else if constexpr (sizeof(T) == 1) {
        return &kIntegerConv2d<T, float,
                               std::conditional_t<std::is_signed_v<T>, int32_t, uint32_t>>;
    } else {
        return &kIntegerConv2d<T, double,
                               std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>>;
    }
};

}  // namespace

const mitchell::Conv2dKernels mitchell_conv2d_kernels = {
    make_per_dtype<const Conv2d*, float, double, Float16, BFloat16, int8_t, int16_t, int32_t,
                   uint8_t, uint16_t, uint32_t>(make_conv2d)};

}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
