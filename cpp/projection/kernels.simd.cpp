#include "projection/kernels.hpp"

#include <type_traits>

#include "core/simd.hpp"
#include "core/tile.hpp"
#include "projection/gaussian.hpp"
#include "projection/streams.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

using projection::Law;
using projection::Product;
using slipstick::projection::gaussian_from_bits;
using slipstick::projection::kGaussianTag;
using slipstick::projection::kRademacherTag;
using slipstick::projection::kSparseTag;

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

// Word i & 3 of the block at counter (i >> 2, lo j, hi j) gives entry (i, j): one vector of blocks
// makes as many components as a float32 panel is wide.
constexpr int kWordColumns = 4 * kWordLanes;
static_assert(kWordColumns == kTileColumns<float>);

struct VectorOps {
    using Float = Vec<float>;
    using Bits = Vec<uint32_t>;
    SLIPSTICK_INLINE static Float constant(float value) { return broadcast(value); }
    SLIPSTICK_INLINE static Float as_float(Bits bits) { return bit_cast<Float>(bits); }
    SLIPSTICK_INLINE static Bits as_bits(Float value) { return bit_cast<Bits>(value); }
    SLIPSTICK_INLINE static Float fma(Float a, Float b, Float c) {
        return SLIPSTICK_LEVEL::fma(a, b, c);
    }
    SLIPSTICK_INLINE static Float square_root(Float x) { return SLIPSTICK_LEVEL::square_root(x); }
    template <class Mask>
    SLIPSTICK_INLINE static bool any(Mask mask) {
        return SLIPSTICK_LEVEL::any(mask);
    }
};

struct GaussianEntries {
    static constexpr uint32_t kTag = kGaussianTag;
    SLIPSTICK_INLINE explicit GaussianEntries(const Law&) {}
    SLIPSTICK_INLINE Vec<float> operator()(Word words) const {
        return gaussian_from_bits<VectorOps>(bit_cast<Vec<uint32_t>>(words));
    }
};

struct SparseEntries {
    static constexpr uint32_t kTag = kSparseTag;
    SLIPSTICK_INLINE explicit SparseEntries(const Law& law)
        : last(broadcast(static_cast<int32_t>(law.threshold - 1))) {}
    SLIPSTICK_INLINE Vec<float> operator()(Word words) const {
        const auto word = bit_cast<Vec<uint32_t>>(words);
        const Vec<float> sign = bit_cast<Vec<float>>((word << 31) | bits::of(1.0f));
        return bit_cast<Vec<int32_t>>(word >> 1) <= last ? sign : Vec<float>{};
    }

    Vec<int32_t> last;  // the largest of the 31-bit numbers that say "not 0"
};

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
        const Word groups =
            broadcast((component + static_cast<uint64_t>(first)) / 4) + lane_numbers();
        T* const target = static_cast<T*>(packed) + first * depth;
        const bool has_second_half = first + kWordColumns / 2 < count;
        for (int64_t k0 = 0; k0 < depth; k0 += kSideBySide) {
            Words blocks;
            for (int b = 0; b < kSideBySide; ++b) {
                const uint64_t j = feature + static_cast<uint64_t>(k0 + b);
                blocks.word[0][b] = groups;
                blocks.word[1][b] = broadcast(j);
                blocks.word[2][b] = broadcast(j >> 32);
                blocks.word[3][b] = broadcast(uint64_t{Entries::kTag});
            }
            philox(blocks, keys);
            // Lane g of `front` is words 0 and 1 of block g, of `back` words 2 and 3.
            Vec<float> made[kSideBySide][2];
            for (int b = 0; b < kSideBySide; ++b) {
                const Word front = (blocks.word[0][b] & 0xffffffffu) | (blocks.word[1][b] << 32);
                const Word back = (blocks.word[2][b] & 0xffffffffu) | (blocks.word[3][b] << 32);
                made[b][0] = entries(interleave_low(front, back));
                made[b][1] = entries(interleave_high(front, back));
            }
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

// --- The left operand ---

// What an element is multiplied and summed as: 16-bit floats as float32, integers as float64.
template <class T>
constexpr auto widened(T value) {
    if constexpr (std::is_same_v<T, Bool>) {
        return value ? 1.0 : 0.0;
    } else if constexpr (std::is_integral_v<T>) {
        return static_cast<double>(value);
    } else if constexpr (sizeof(T) == 2) {
        return to_float(value);
    } else {
        return value;
    }
}
template <class T>
using SumOf = decltype(widened(T{}));

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
};

template <class T>
constexpr Product kGaussianProduct = {
    .matmul = kMatmulKernel<ExactMac<SumOf<T>>>,
    .pack_rows = &pack_rows<T>,
    .generate = &generate_from_words<SumOf<T>, GaussianEntries>,
    .generate_columns = kWordColumns,
};

template <class T>
constexpr Product kSparseProduct = {
    .matmul = kMatmulKernel<FastMac<SumOf<T>>>,
    .pack_rows = &pack_rows<T>,
    .generate = &generate_from_words<SumOf<T>, SparseEntries>,
    .generate_columns = kWordColumns,
};

template <class Maker>
constexpr PerDtype<const Product*> every_dtype(Maker maker) {
    return make_per_dtype<const Product*, float, double, Float16, BFloat16, int8_t, int16_t,
                          int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, Bool>(maker);
}

}  // namespace

const projection::Kernels projection_kernels = {
    .product = {every_dtype([]<class T>() { return &kSignProduct<T>; }),
                every_dtype([]<class T>() { return &kGaussianProduct<T>; }),
                every_dtype([]<class T>() { return &kSparseProduct<T>; })},
};

}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
