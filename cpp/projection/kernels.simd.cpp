#include "projection/kernels.hpp"

#include "core/simd.hpp"
#include "core/tile.hpp"
#include "projection/entries.hpp"
#include "projection/streams.hpp"
#include "projection/widen.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

using projection::Law;
using projection::Product;
using slipstick::projection::kRademacherTag;

// --- Rademacher ---

// Bit i & 127 of the block at counter (i >> 7, lo j, hi j) is the sign of entry (i, j): one block
// serves 128 components, so that many are made at once.
constexpr int kSignColumns = 128;

// +1 for a bit 0, -1 for a bit 1.
template <class T>
SLIPSTICK_INLINE Vec<T> signs(uint32_t bits, Vec<typename BitsOf<T>::Unsigned> masks) {
    using Lane = typename BitsOf<T>::Unsigned;
    const Vec<T> plus = broadcast(T{1});
    return (broadcast(Lane{bits}) & masks) == 0 ? plus : -plus;
}

template <class T>
void generate_signs(const Law& law, uint64_t feature, uint64_t component, int64_t count,
                    int64_t depth, void* packed) {
    using Lane = typename BitsOf<T>::Unsigned;
    constexpr int width = kTileColumns<T>;
    static_assert(32 % width == 0, "a panel reads its bits from one word");
    constexpr int64_t strip = 64;  // features whose words wait on the stack: 2 KiB
    static_assert(strip % (kSideBySide * kWordLanes) == 0);
    const RoundKeys keys(law.seed);
    const Word tag = broadcast(uint64_t{kRademacherTag});
    Vec<Lane> first_masks[kTileVectors];
    for (int v = 0; v < kTileVectors; ++v) {
        for (int lane = 0; lane < kLanes<T>; ++lane)
            first_masks[v][lane] = Lane{1} << (v * kLanes<T> + lane);
    }
    for (int64_t first = 0; first < count; first += kSignColumns) {
        const Word group = broadcast((component + static_cast<uint64_t>(first)) / kSignColumns);
        const int64_t used = count - first < kSignColumns ? count - first : kSignColumns;
        for (int64_t k0 = 0; k0 < depth; k0 += strip) {
            const int64_t length = depth - k0 < strip ? depth - k0 : strip;
            uint64_t words[4][strip];
            for (int64_t k = 0; k < length; k += kSideBySide * kWordLanes) {
                Words blocks;
                for (int b = 0; b < kSideBySide; ++b) {
                    const Word j =
                        broadcast(feature + static_cast<uint64_t>(k0 + k + b * kWordLanes)) +
                        lane_numbers();
                    blocks.word[0][b] = group;
                    blocks.word[1][b] = j;
                    blocks.word[2][b] = j >> 32;
                    blocks.word[3][b] = tag;
                }
                philox(blocks, keys);
                for (int word = 0; word < 4; ++word) {
                    for (int b = 0; b < kSideBySide; ++b)
                        store(words[word] + k + b * kWordLanes, blocks.word[word][b]);
                }
            }
            for (int64_t column = 0; column < used; column += width) {
                T* target = static_cast<T*>(packed) + (first + column) * depth + k0 * width;
                const uint64_t* bits = words[column / 32];
                Vec<Lane> masks[kTileVectors];
                for (int v = 0; v < kTileVectors; ++v)
                    masks[v] = first_masks[v] << static_cast<int>(column % 32);
                for (int64_t k = 0; k < length; ++k) {
                    for (int v = 0; v < kTileVectors; ++v) {
                        store(target + k * width + v * kLanes<T>,
                              signs<T>(static_cast<uint32_t>(bits[k]), masks[v]));
                    }
                }
            }
        }
    }
}

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

// The words of a panel's features at one c0: word w of feature f is words[w][f].
template <int width>
struct PanelWords {
    uint32_t word[4][width];
};

template <int width>
SLIPSTICK_INLINE void panel_words(const RoundKeys& keys, uint32_t tag, uint64_t group,
                                  uint64_t feature, PanelWords<width>& made) {
    constexpr int step = kSideBySide * kWordLanes;  // what one call of philox makes
    static_assert(width % step == 0);
    for (int f = 0; f < width; f += step) {
        Words blocks;
        // Even features in one vector, odd ones in the other: two halves of 64-bit lanes.
        for (int b = 0; b < kSideBySide; ++b) {
            const Word j = broadcast(feature + static_cast<uint64_t>(f + b)) + lane_numbers() * 2;
            blocks.word[0][b] = broadcast(group);
            blocks.word[1][b] = j;
            blocks.word[2][b] = j >> 32;
            blocks.word[3][b] = broadcast(uint64_t{tag});
        }
        philox(blocks, keys);
        for (int w = 0; w < 4; ++w) {
            const Word both = (blocks.word[w][0] & 0xffffffffu) | (blocks.word[w][1] << 32);
            store(made.word[w] + f, both);
        }
    }
}

template <class T>
void generate_signs_adjoint(const Law& law, uint64_t feature, uint64_t component, int64_t count,
                            int64_t depth, void* packed) {
    using Lane = typename BitsOf<T>::Unsigned;
    constexpr int width = kTileColumns<T>;
    constexpr int sign = 8 * sizeof(T) - 1;
    const RoundKeys keys(law.seed);
    const Vec<Lane> one = bit_cast<Vec<Lane>>(broadcast(T{1}));
    const Vec<Lane> sign_bit = broadcast(static_cast<Lane>(Lane{1} << sign));
    for (int64_t first = 0; first < count; first += width) {
        T* const panel = static_cast<T*>(packed) + first * depth;
        for (int64_t k0 = 0; k0 < depth; k0 += kSignColumns) {
            PanelWords<width> words;
            panel_words(keys, kRademacherTag,
                        (component + static_cast<uint64_t>(k0)) / kSignColumns,
                        feature + static_cast<uint64_t>(first), words);
            for (int64_t k = k0; k < depth && k < k0 + kSignColumns; k += 32) {
                const int length = static_cast<int>(depth - k < 32 ? depth - k : 32);
                for (int v = 0; v < kTileVectors; ++v) {
                    // The bit of the last component to the top, then one place a component down.
                    Lane lanes[kLanes<T>];
                    for (int i = 0; i < kLanes<T>; ++i)
                        lanes[i] = words.word[(k - k0) / 32][v * kLanes<T> + i];
                    Vec<Lane> bits = load<Vec<Lane>>(lanes) << (sign + 1 - length);
                    for (int64_t i = length - 1; i >= 0; --i, bits <<= 1) {
                        store(panel + (k + i) * width + v * kLanes<T>,
                              bit_cast<Vec<T>>((bits & sign_bit) | one));
                    }
                }
            }
        }
    }
}

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
               int64_t depth, void* packed) {
    auto* target = static_cast<SumOf<T>*>(packed);
    for (int64_t first = 0; first < count; first += kTileRows, target += kTileRows * depth) {
        const T* rows[kTileRows];
        for (int64_t i = 0; i < kTileRows; ++i) {  // the last row again, where there are no more
            const int64_t row = first + i < count ? first + i : count - 1;
            rows[i] = static_cast<const T*>(source) + row_offsets[row];
        }
        if (depth_stride == 1) {
            pack_panel(rows, 1, depth, target);
        } else {
            pack_panel(rows, depth_stride, depth, target);
        }
    }
}

// --- The products ---

// x times +-1 or 0 is exact, so that it makes no difference whether the sum is fused: FastMac
// spares v2, which has no fma, the one in software.
template <class T>
constexpr Product kSignProduct = {
    .matmul = kMatmulKernel<FastMac<SumOf<T>>>,
    .pack_rows = &pack_rows<T>,
    .generate = &generate_signs<SumOf<T>>,
    .generate_columns = kSignColumns,
    .generate_adjoint = &generate_signs_adjoint<SumOf<T>>,
};

template <class T>
constexpr Product kGaussianProduct = {
    .matmul = kMatmulKernel<ExactMac<SumOf<T>>>,
    .pack_rows = &pack_rows<T>,
    .generate = &generate_from_words<SumOf<T>, GaussianEntries>,
    .generate_columns = kWordColumns,
    .generate_adjoint = &generate_from_words_adjoint<SumOf<T>, GaussianEntries>,
};

template <class T>
constexpr Product kSparseProduct = {
    .matmul = kMatmulKernel<FastMac<SumOf<T>>>,
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
};

}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
