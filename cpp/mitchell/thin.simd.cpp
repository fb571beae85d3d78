// Products with a left operand of a few rows: the right one is read where it lies, once, with
// nothing known of it beforehand. Packing it, or looking at its range first, would cost more than
// the products.
#include "core/simd.hpp"
#include "mitchell/kernels.hpp"
#include "mitchell/lanes.hpp"
#include "mitchell/macs.hpp"
#include "mitchell/packing.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

using mitchell::kThinPanel;
using mitchell::kThinRows;
using mitchell::kThinSums;
using mitchell::thin_columns;
using slipstick::mitchell::as_signed;

// The bits of a vector of elements, widened.
template <class Sum, class T>
SLIPSTICK_INLINE Vec<LaneOf<Sum>> load_lanes(const T* source) {
    using Lane = LaneOf<Sum>;
    if constexpr (sizeof(T) == sizeof(Sum)) {
        return load<Vec<Lane>>(source);
    } else {
        const auto lanes =
            __builtin_convertvector(load<VecLike<uint16_t, float>>(source), Vec<uint32_t>);
        if constexpr (DtypeOf<T>::value == Dtype::kBFloat16) {
            return lanes << 16;
        } else {
            return ((lanes & 0x8000u) << 16) | (((lanes & 0x7fffu) << 13) + 0x38000000u);
        }
    }
}

template <class Lane>
SLIPSTICK_INLINE Vec<Lane> larger(Vec<Lane> a, Vec<Lane> b) {
    return as_signed(b) > as_signed(a) ? b : a;
}

// `steps` lines of the right operand for all rows and all whole vectors of columns.
template <int steps, class T, class Sum>
SLIPSTICK_INLINE Vec<LaneOf<Sum>> add_lines(const typename FlushMac<Sum, false>::Left* left,
                                            int64_t left_stride, int64_t rows, const T* right,
                                            int64_t right_stride, int64_t columns, bool first,
                                            Sum* chain, int64_t chain_stride,
                                            Vec<LaneOf<Sum>> highest) {
    using Lane = LaneOf<Sum>;
    const FlushMac<Sum, false> mac{};
    for (int64_t j = 0; j + kLanes<Sum> <= columns; j += kLanes<Sum>) {
        Vec<Lane> lines[steps];
        for (int s = 0; s < steps; ++s) {
            lines[s] = load_lanes<Sum>(right + s * right_stride + j);
            highest = larger<Lane>(highest, lines[s] & (kSign<Lane> - 1));
        }
        for (int64_t i = 0; i < rows; ++i) {
            Vec<Sum> sum = {};
            if (!first) sum = load<Vec<Sum>>(chain + i * chain_stride + j);
            for (int s = 0; s < steps; ++s) sum = mac(sum, left[i * left_stride + s], lines[s]);
            store(chain + i * chain_stride + j, sum);
        }
    }
    return highest;
}

template <class T, class Sum>
void thin(const void* left, int64_t left_stride, int64_t rows, const void* right,
          int64_t right_stride, int64_t depth, int64_t columns, void* total, bool accumulate,
          uint64_t& highest) {
    using Lane = LaneOf<Sum>;
    using Left = typename FlushMac<Sum, false>::Left;
    constexpr int lanes = kLanes<Sum>;
    const auto* factors = static_cast<const Left*>(left);
    const auto* elements = static_cast<const T*>(right);
    const int64_t width = thin_columns(rows);
    Sum chain[kThinSums];
    Vec<Lane> largest = {};
    int64_t k = 0;
    for (; k + 4 <= depth; k += 4) {
        largest = add_lines<4>(factors + k, left_stride, rows, elements + k * right_stride,
                               right_stride, columns, k == 0, chain, width, largest);
    }
    for (; k < depth; ++k) {
        largest = add_lines<1>(factors + k, left_stride, rows, elements + k * right_stride,
                               right_stride, columns, k == 0, chain, width, largest);
    }
    // Columns beyond the last whole vector, one vector of them, filled up with zeros.
    const int64_t whole = columns / lanes * lanes;
    if (whole < columns) {
        Sum rest[kThinRows * lanes];
        for (k = 0; k < depth; ++k) {
            T line[lanes] = {};
            for (int64_t j = whole; j < columns; ++j)
                line[j - whole] = elements[k * right_stride + j];
            largest = add_lines<1>(factors + k, left_stride, rows, line, 0, lanes, k == 0, rest,
                                   lanes, largest);
        }
        for (int64_t i = 0; i < rows; ++i) {
            for (int64_t j = whole; j < columns; ++j)
                chain[i * width + j] = rest[i * lanes + j - whole];
        }
    }
    for (int64_t i = 0; i < rows; ++i) {
        Sum* sums = static_cast<Sum*>(total) + i * width;
        const Sum* own = chain + i * width;
        for (int64_t j = 0; j < columns; ++j) sums[j] = accumulate ? sums[j] + own[j] : own[j];
    }
    for (int lane = 0; lane < lanes; ++lane) {
        if (largest[lane] > highest) highest = largest[lane];
    }
}

// packed[k][column], widened, of columns that are contiguous along k.
template <class T, class Sum>
void turn(const void* source, int64_t stride, int64_t count, int64_t depth, void* packed) {
    using Lane = LaneOf<Sum>;
    // The same columns come next, `depth` elements further on: too short a run for the hardware to
    // see it coming.
    constexpr int64_t line = 64 / sizeof(T);
    for (int64_t i = 0; i < count; ++i) {
        const T* next = static_cast<const T*>(source) + i * stride + depth;
        for (int64_t k = 0; k < depth; k += line) __builtin_prefetch(next + k);
    }
    pack_panels<kThinPanel>(static_cast<const T*>(source), stride, 1, count, depth,
                            static_cast<Lane*>(packed),
                            [](T value) { return widened<T, Sum>(value); });
}

template <class T, class Sum>
constexpr mitchell::Thin kThin = {
    .run = &thin<T, Sum>,
    .run_turned = &thin<Sum, Sum>,
    .turn = &turn<T, Sum>,
    .pack_left = &pack_thresholds<1, T, Sum, false>,
    .left_bytes = sizeof(typename FlushMac<Sum, false>::Left),
};

constexpr auto make_thin = []<class T>() -> const mitchell::Thin* {
    return &kThin<T, std::conditional_t<sizeof(T) == 8, double, float>>;
};

}  // namespace

const mitchell::ThinKernels mitchell_thin_kernels = {
    make_per_dtype<const mitchell::Thin*, float, double, Float16, BFloat16>(make_thin)};

}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
