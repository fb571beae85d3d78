// Products with a left operand of a few rows: the right one is read where it lies, once, with
// nothing known of it beforehand. Packing it, or looking at its range first, would cost more than
// the products; what it held is known afterwards.
#include "core/simd.hpp"
#include "core/transpose.hpp"
#include "mitchell/kernels.hpp"
#include "mitchell/lanes.hpp"
#include "mitchell/macs.hpp"
#include "mitchell/packing.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

using mitchell::kThinDepth;
using mitchell::kThinRows;
using mitchell::kThinSums;
using mitchell::Magnitudes;
using mitchell::thin_columns;
using slipstick::mitchell::as_signed;

// The bits of a vector of elements, widened. Zeros and subnormal numbers are below the smallest
// normal pattern of Sum.
template <class T, class Sum>
SLIPSTICK_INLINE Vec<LaneOf<Sum>> widened_lanes(const T* source) {
    using Lane = LaneOf<Sum>;
    const Vec<Lane> lanes = load_lanes<T, Lane>(reinterpret_cast<const Pattern<T>*>(source));
    if constexpr (sizeof(T) == sizeof(Sum)) {
        return lanes;
    } else if constexpr (DtypeOf<T>::value == Dtype::kBFloat16) {
        return lanes << 16;
    } else {
        const Vec<Lane> magnitude = lanes & 0x7fffu;
        const auto normal = as_signed(magnitude) >= 0x400;
        return (((lanes & 0x8000u) << 16) | ((magnitude << 13) + 0x38000000u)) &
               bit_cast<Vec<Lane>>(normal);
    }
}

// The magnitudes that have gone by, those of zeros apart.
template <class Sum>
struct Range {
    using Lane = LaneOf<Sum>;
    static constexpr Lane kSmallest = Lane{1} << format<Sum, Lane>().fraction_bits;
    Vec<Lane> lowest = ~Vec<Lane>{};  // less the smallest normal number: zeros wrap to the top
    Vec<Lane> highest = {};

    SLIPSTICK_INLINE void note(Vec<Lane> lanes) {
        const Vec<Lane> magnitude = lanes & (kSign<Lane> - 1);
        const Vec<Lane> above = magnitude - kSmallest;
        lowest = above < lowest ? above : lowest;
        if constexpr (sizeof(Lane) == 4) {  // one instruction, where 64 bits have the comparison
            highest = magnitude > highest ? magnitude : highest;
        } else {
            highest = as_signed(magnitude) > as_signed(highest) ? magnitude : highest;
        }
    }
    void report(Magnitudes& seen) const {
        for (int lane = 0; lane < kLanes<Lane>; ++lane) {
            const uint64_t least =
                lowest[lane] < kSign<Lane> ? lowest[lane] + kSmallest : kSign<Lane>;
            if (least < seen.lowest) seen.lowest = least;
            if (highest[lane] > seen.highest) seen.highest = highest[lane];
        }
    }
};

template <class Mac, class Sum>
SLIPSTICK_INLINE void add_finished(const Mac& mac, Vec<Sum> chain, Sum* total, bool accumulate) {
    const Vec<Sum> finished = mac.finish(chain);
    store(total, accumulate ? load<Vec<Sum>>(total) + finished : finished);
}

// What a kernel knows of a call.
template <class Mac>
struct ThinCall {
    using Sum = typename Mac::Acc;
    Mac mac;
    const typename Mac::Left* left;
    int64_t rows;
    Sum* total;
    int64_t width;  // from a row of `total` to the next
    bool accumulate;
    Range<Sum> range;

    ThinCall(const mitchell::MacConstants& constants, const void* left_rows, int64_t row_count,
             void* sums, bool adds)
        : mac{constants},
          left(static_cast<const typename Mac::Left*>(left_rows)),
          rows(row_count),
          total(static_cast<Sum*>(sums)),
          width(thin_columns(row_count)),
          accumulate(adds) {}
};

// --- A right operand whose lines run along the columns ---

// `steps` lines of the right operand for all rows and all whole vectors of columns.
template <int steps, class Mac, class T, class Sum>
SLIPSTICK_INLINE void add_lines(ThinCall<Mac>& call, int64_t k, const T* right,
                                int64_t right_stride, int64_t columns, bool first, Sum* chain,
                                int64_t chain_stride) {
    using Lane = typename Mac::Right;
    for (int64_t j = 0; j + kLanes<Sum> <= columns; j += kLanes<Sum>) {
        Vec<Lane> lines[steps];
        for (int s = 0; s < steps; ++s) {
            lines[s] = widened_lanes<T, Sum>(right + s * right_stride + j);
            __builtin_prefetch(right + (s + steps) * right_stride + j);
            call.range.note(lines[s]);
        }
        for (int64_t i = 0; i < call.rows; ++i) {
            Vec<Sum> sum = {};
            if (!first) sum = load<Vec<Sum>>(chain + i * chain_stride + j);
            for (int s = 0; s < steps; ++s)
                sum = call.mac(sum, call.left[i * kThinDepth + k + s], lines[s]);
            store(chain + i * chain_stride + j, sum);
        }
    }
}

// One chain for each element of the result.
template <class T, class Mac>
SLIPSTICK_INLINE void add_block(ThinCall<Mac>& call, int64_t begin, int64_t end, const T* right,
                                int64_t right_stride, int64_t columns, bool accumulate) {
    using Sum = typename Mac::Acc;
    constexpr int lanes = kLanes<Sum>;
    Sum chain[kThinSums];
    int64_t k = begin;
    for (; k + 4 <= end; k += 4) {
        add_lines<4>(call, k, right + k * right_stride, right_stride, columns, k == begin, chain,
                     call.width);
    }
    for (; k < end; ++k) {
        add_lines<1>(call, k, right + k * right_stride, right_stride, columns, k == begin, chain,
                     call.width);
    }
    // Columns beyond the last whole vector, one vector of them, filled up with zeros.
    const int64_t whole = columns / lanes * lanes;
    if (whole < columns) {
        Sum rest[kThinRows * lanes];
        for (k = begin; k < end; ++k) {
            T line[lanes] = {};
            for (int64_t j = whole; j < columns; ++j) line[j - whole] = right[k * right_stride + j];
            add_lines<1>(call, k, line, 0, lanes, k == begin, rest, lanes);
        }
        for (int64_t i = 0; i < call.rows; ++i) {
            for (int64_t j = whole; j < columns; ++j)
                chain[i * call.width + j] = rest[i * lanes + j - whole];
        }
    }
    for (int64_t i = 0; i < call.rows; ++i) {
        Sum* sums = call.total + i * call.width;
        const Sum* own = chain + i * call.width;
        int64_t j = 0;
        for (; j + lanes <= columns; j += lanes)
            add_finished(call.mac, load<Vec<Sum>>(own + j), sums + j, accumulate);
        for (; j < columns; ++j) {
            const Sum finished = call.mac.finish(broadcast(own[j]))[0];
            sums[j] = accumulate ? sums[j] + finished : finished;
        }
    }
}

template <class T, class Mac>
void thin(const mitchell::MacConstants& constants, const void* left, int64_t rows,
          const void* right, int64_t right_stride, int64_t depth, int64_t columns, void* total,
          bool accumulate, Magnitudes& seen) {
    ThinCall<Mac> call(constants, left, rows, total, accumulate);
    for (int64_t k = 0; k < depth; k += kDepthBlock) {
        add_block(call, k, depth - k < kDepthBlock ? depth : k + kDepthBlock,
                  static_cast<const T*>(right), right_stride, columns, accumulate || k > 0);
    }
    call.range.report(seen);
}

// --- A right operand whose lines run along k ---

// A vector of columns for `rows` rows, of which there may be fewer: their chains stay in registers.
template <int rows, class T, class Mac>
SLIPSTICK_INLINE void add_turned(ThinCall<Mac>& call, int64_t begin, int64_t end,
                                 const T* const* columns, int64_t column, bool accumulate) {
    using Sum = typename Mac::Acc;
    using Lane = typename Mac::Right;
    constexpr int lanes = kLanes<Sum>;
    const typename Mac::Left* left[rows];
    for (int row = 0; row < rows; ++row)
        left[row] = call.left + (row < call.rows ? row : call.rows - 1) * kThinDepth;
    Vec<Sum> chain[rows] = {};
    const auto add_square = [&](Vec<Lane>(&square)[lanes], int64_t k, int64_t count) {
        for (int i = 0; i < lanes; ++i) call.range.note(square[i]);
        transpose<Lane>(square);
        for (int i = 0; i < count; ++i) {
            for (int row = 0; row < rows; ++row)
                chain[row] = call.mac(chain[row], left[row][k + i], square[i]);
        }
    };
    int64_t k = begin;
    for (; k + lanes <= end; k += lanes) {
        Vec<Lane> square[lanes];
        for (int i = 0; i < lanes; ++i) square[i] = widened_lanes<T, Sum>(columns[i] + k);
        add_square(square, k, lanes);
    }
    if (k < end) {
        Vec<Lane> square[lanes];
        for (int i = 0; i < lanes; ++i) {
            T rest[lanes] = {};
            for (int64_t j = k; j < end; ++j) rest[j - k] = columns[i][j];
            square[i] = widened_lanes<T, Sum>(rest);
        }
        add_square(square, k, end - k);
    }
    for (int row = 0; row < rows && row < call.rows; ++row)
        add_finished(call.mac, chain[row], call.total + row * call.width + column, accumulate);
}

template <int rows, class T, class Mac>
void turned_rows(ThinCall<Mac>& call, const T* right, int64_t right_stride, int64_t depth,
                 int64_t columns) {
    constexpr int lanes = kLanes<typename Mac::Acc>;
    for (int64_t j = 0; j < columns; j += lanes) {
        const T* lines[lanes];
        for (int i = 0; i < lanes; ++i) {
            // Beyond the last it comes again: what it gives is not stored.
            lines[i] = right + (j + i < columns ? j + i : columns - 1) * right_stride;
        }
        for (int64_t k = 0; k < depth; k += kDepthBlock) {
            const int64_t end = depth - k < kDepthBlock ? depth : k + kDepthBlock;
            add_turned<rows>(call, k, end, lines, j, call.accumulate || k > 0);
        }
    }
}

template <class T, class Mac>
void thin_turned(const mitchell::MacConstants& constants, const void* left, int64_t rows,
                 const void* right, int64_t right_stride, int64_t depth, int64_t columns,
                 void* total, bool accumulate, Magnitudes& seen) {
    ThinCall<Mac> call(constants, left, rows, total, accumulate);
    const auto run = rows > 4   ? &turned_rows<8, T, Mac>
                     : rows > 2 ? &turned_rows<4, T, Mac>
                     : rows > 1 ? &turned_rows<2, T, Mac>
                                : &turned_rows<1, T, Mac>;
    run(call, static_cast<const T*>(right), right_stride, depth, columns);
    call.range.report(seen);
}

// Rows of the left operand for MaskedMac.
template <class T, class Sum>
void pack_masked(const Packing& shared, const void* source, int64_t stride, int64_t depth_stride,
                 int64_t count, int64_t depth, void* packed) {
    using Lane = LaneOf<Sum>;
    using Left = typename MaskedMac<Sum>::Left;
    const LanePacking<Lane> packing(shared);
    const auto convert = [&](T value) {
        const Lane lane = slipstick::mitchell::widened<T, Sum>(value);
        const Lane magnitude = slipstick::mitchell::magnitude_of(lane);
        return Left{lane + packing.bias, static_cast<Lane>(~packing.all_if_zero(magnitude))};
    };
    pack_panels<1>(static_cast<const T*>(source), stride, depth_stride, count, depth,
                   static_cast<Left*>(packed), convert);
}

template <class T, class Mac, mitchell::PackFn pack>
constexpr mitchell::ThinPath kThinPath = {
    .run = &thin<T, Mac>,
    .run_turned = &thin_turned<T, Mac>,
    .pack_left = pack,
    .left_bytes = sizeof(typename Mac::Left),
};
template <class T, class Sum>
constexpr mitchell::Thin kThin = {
    .plain = kThinPath<T, SumMac<Sum, Sum, false>, &pack_sums<1, T, Sum>>,
    .masked = kThinPath<T, MaskedMac<Sum>, &pack_masked<T, Sum>>,
};

constexpr auto make_thin = []<class T>() -> const mitchell::Thin* {
    return &kThin<T, std::conditional_t<sizeof(T) == 8, double, float>>;
};

}  // namespace

const mitchell::ThinKernels mitchell_thin_kernels = {
    make_per_dtype<const mitchell::Thin*, float, double, Float16, BFloat16>(make_thin)};

}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
