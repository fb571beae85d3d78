#include "projection/kernels.hpp"

#include "core/simd.hpp"
#include "core/tile.hpp"
#include "projection/entries.hpp"
#include "projection/signed_sums.hpp"
#include "projection/streams.hpp"
#include "projection/widen.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

using projection::Law;
using projection::Product;

// --- Gaussian and sparse ---

SLIPSTICK_INLINE void store_widened(double* target, Vec<float> value) {
    float lanes[kLanes<float>];
    store(lanes, value);
    for (int lane = 0; lane < kLanes<float>; ++lane)
        target[lane] = static_cast<double>(lanes[lane]);
}

template <class T, class Entries>
void generate_from_words(const Law& law, uint64_t feature, uint64_t component, int64_t count,
                         int64_t depth, void* packed) {
    constexpr int width = kTileColumns<T>;
    const RoundKeys keys(law.seed);
    const Entries entries(law);
    for (int64_t first = 0; first < count; first += kWordColumns) {
        Word groups[kSideBySide];
        for (Word& group : groups)
            group = broadcast((component + static_cast<uint64_t>(first)) / 4) + lane_numbers();
        T* const target = static_cast<T*>(packed) + first * depth;
        const bool has_second_half = first + kWordColumns / 2 < count;
        for (int64_t k0 = 0; k0 < depth; k0 += kSideBySide) {
            uint64_t features[kSideBySide];
            for (int b = 0; b < kSideBySide; ++b)
                features[b] = feature + static_cast<uint64_t>(k0 + b);
            Vec<float> made[kSideBySide][2];
            make_entries(entries, keys, features, groups, made);
            for (int64_t k = k0; k < depth && k < k0 + kSideBySide; ++k) {
                const Vec<float>* row = made[k - k0];
                if constexpr (sizeof(T) == sizeof(float)) {
                    store(target + k * width, row[0]);
                    store(target + k * width + kLanes<float>, row[1]);
                } else {  // a float64 panel is half as wide
                    store_widened(target + k * width, row[0]);
                    if (has_second_half) store_widened(target + (depth + k) * width, row[1]);
                }
            }
        }
    }
}

// --- The transpose: lanes run over features ---

template <class T, class Entries>
void generate_from_words_adjoint(const Law& law, uint64_t feature, uint64_t component,
                                 int64_t count, int64_t depth, void* packed) {
    constexpr int width = kTileColumns<T>;
    static_assert(width % kLanes<float> == 0);
    const RoundKeys keys(law.seed);
    const Entries entries(law);
    for (int64_t first = 0; first < count; first += width) {
        T* const panel = static_cast<T*>(packed) + first * depth;
        for (int64_t k = 0; k < depth; k += 4) {
            PanelWords<width> words;
            panel_words(keys, Entries::kTag, (component + static_cast<uint64_t>(k)) / 4,
                        feature + static_cast<uint64_t>(first), words);
            for (int w = 0; w < 4 && k + w < depth; ++w) {
                for (int f = 0; f < width; f += kLanes<float>) {
                    const Vec<float> made = entries(load<Word>(words.word[w] + f));
                    if constexpr (sizeof(T) == sizeof(float)) {
                        store(panel + (k + w) * width + f, made);
                    } else {
                        store_widened(panel + (k + w) * width + f, made);
                    }
                }
            }
        }
    }
}

// --- The left operand ---

template <class T>
SLIPSTICK_INLINE void pack_panel(const T* const rows[], int64_t depth_stride, int64_t depth,
                                 SumOf<T>* packed) {
    for (int64_t k = 0; k < depth; ++k) {
#pragma GCC unroll 12
        for (int i = 0; i < kTileRows; ++i)
            packed[k * kTileRows + i] = widened(rows[i][k * depth_stride]);
    }
}

template <class T>
void pack_rows(const void* source, const int64_t* row_offsets, int64_t depth_stride, int64_t count,
               const projection::PaddedDepth& depth, void* packed) {
    auto* target = static_cast<SumOf<T>*>(packed);
    for (int64_t first = 0; first < count; first += kTileRows, target += kTileRows * depth.length) {
        const T* rows[kTileRows];
        for (int64_t i = 0; i < kTileRows; ++i) {  // the last row again, where there are no more
            const int64_t row = first + i < count ? first + i : count - 1;
            rows[i] = static_cast<const T*>(source) + row_offsets[row];
        }
        if (depth_stride == 1) {
            pack_panel(rows, 1, depth.length, target);
        } else {
            pack_panel(rows, depth_stride, depth.length, target);
        }
    }
}

// --- The products ---

template <class T>
constexpr Product kSignProduct = {
    .matmul = kSignKernel<SumOf<T>>,
    .group = kGroup,
    .pack_rows = &pack_sign_rows<T>,
    .generate = &generate_patterns,
    .generate_columns = kSignColumns,
    .generate_adjoint = &generate_patterns_adjoint,
};

template <class T>
constexpr Product kGaussianProduct = {
    .matmul = kMatmulKernel<ExactMac<SumOf<T>>>,
    .group = 1,
    .pack_rows = &pack_rows<T>,
    .generate = &generate_from_words<SumOf<T>, GaussianEntries>,
    .generate_columns = kWordColumns,
    .generate_adjoint = &generate_from_words_adjoint<SumOf<T>, GaussianEntries>,
};

// x times +-1 or 0 is exact, so that it makes no difference whether the sum is fused: FastMac
// spares v2, which has no fma, the one in software.
template <class T>
constexpr Product kSparseProduct = {
    .matmul = kMatmulKernel<FastMac<SumOf<T>>>,
    .group = 1,
    .pack_rows = &pack_rows<T>,
    .generate = &generate_from_words<SumOf<T>, SparseEntries>,
    .generate_columns = kWordColumns,
    .generate_adjoint = &generate_from_words_adjoint<SumOf<T>, SparseEntries>,
};

}  // namespace

const projection::Kernels projection_kernels = {
    .product = {every_dtype<const Product*>([]<class T>() { return &kSignProduct<T>; }),
                every_dtype<const Product*>([]<class T>() { return &kGaussianProduct<T>; }),
                every_dtype<const Product*>([]<class T>() { return &kSparseProduct<T>; })},
    .generate_entries = {&generate_signs, &generate_from_words<double, GaussianEntries>,
                         &generate_from_words<double, SparseEntries>},
};

}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
