// Attention's products for bfloat16 where the level has a dot product of pairs: 32-bit lanes hold
// two neighbours along the sum, the first in the low half, and one instruction adds both products
// to a float32. Included by kernels.simd.cpp and its microbenchmark, at such levels alone.
//
// Products are exact. The instruction rounds to nearest even and takes subnormal numbers, as
// operands, weights and sums, for 0, whatever the thread's mode: what is below 2^-126 does not
// count.
#pragma once

#include <immintrin.h>

#include "attention/elements.hpp"
#include "attention/scores.hpp"
#include "core/simd.hpp"
#include "core/tile.hpp"
#include "core/transpose.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

static_assert(kLanes<float> == 16 && kTileRows <= kLanes<float>);
// A chain holds whole pairs, and a step begins with one: which keys form a pair is fixed.
static_assert(kKeyChain % 2 == 0 && kDimChain % 2 == 0 && kTileRows % 2 == 0);

SLIPSTICK_INLINE int64_t pairs_in(int64_t count) { return (count + 1) / 2; }

// Packed pairs lie where float32 numbers would, and take half their room.
SLIPSTICK_INLINE uint32_t* pairs_at(float* packed) { return reinterpret_cast<uint32_t*>(packed); }
SLIPSTICK_INLINE const uint32_t* pairs_at(const float* packed) {
    return reinterpret_cast<const uint32_t*>(packed);
}

struct PairMac : PlainMac<uint32_t, uint32_t, float> {
    SLIPSTICK_INLINE Vec<float> operator()(Vec<float> acc, uint32_t left,
                                           Vec<uint32_t> right) const {
        return (Vec<float>)_mm512_dpbf16_ps((__m512)acc, (__m512bh)right,
                                            (__m512bh)broadcast(left));
    }
};

// --- Packing ---

// The first 2 * kLanes elements of a row that has `count`, zeros behind them.
SLIPSTICK_INLINE Vec<uint32_t> load_pairs(const BFloat16* row, int64_t stride, int64_t count) {
    constexpr int64_t room = 2 * kLanes<float>;
    if (stride == 1) {
        const auto some = static_cast<__mmask32>(count < room ? (1u << count) - 1 : ~0u);
        return (Vec<uint32_t>)_mm512_maskz_loadu_epi16(some, row);
    }
    BFloat16 line[room] = {};
    for (int64_t i = 0; i < room && i < count; ++i) line[i] = row[i * stride];
    return load<Vec<uint32_t>>(line);
}

// The first kLanes elements, one a lane.
SLIPSTICK_INLINE Vec<uint32_t> load_halves(const BFloat16* row, int64_t stride, int64_t count) {
    constexpr int64_t room = kLanes<float>;
    BFloat16 line[room] = {};
    if (stride == 1) {
        const auto some = static_cast<__mmask16>(count < room ? (1u << count) - 1 : ~0u);
        return (Vec<uint32_t>)_mm512_maskz_cvtepu16_epi32(0xffff,
                                                          _mm256_maskz_loadu_epi16(some, row));
    }
    for (int64_t i = 0; i < room && i < count; ++i) line[i] = row[i * stride];
    return (Vec<uint32_t>)_mm512_maskz_cvtepu16_epi32(0xffff, load<__m256i>(line));
}

SLIPSTICK_INLINE void store_first(uint32_t* target, Vec<uint32_t> value, int count) {
    _mm512_mask_storeu_epi32(target, static_cast<__mmask16>((1u << count) - 1), (__m512i)value);
}

// packed[k * step + i] = the elements 2k and 2k + 1 of row(i), for `width` rows, at most a vector's
// lanes; zeros for a null row, and behind the last element where dim is odd.
template <int width, class Row>
SLIPSTICK_INLINE void pack_pairs(Row row, int64_t stride, int64_t dim, uint32_t* packed,
                                 int64_t step) {
    constexpr int lanes = kLanes<float>;
    for (int64_t k = 0; k < dim; k += 2 * lanes) {
        Vec<uint32_t> square[lanes] = {};
        for (int i = 0; i < width; ++i) {
            const BFloat16* const elements = row(i);
            if (elements != nullptr) square[i] = load_pairs(elements + k * stride, stride, dim - k);
        }
        transpose<uint32_t>(square);
        for (int i = 0; i < lanes && k + 2 * i < dim; ++i)
            store_first(packed + (k / 2 + i) * step, square[i], width);
    }
}

inline void pack_query_pairs(const void* const* rows, int64_t stride, int64_t dim, float* panel) {
    constexpr int lanes = kLanes<float>;
    for (int first = 0; first < kTileColumns<float>; first += lanes) {
        const auto row = [&](int i) { return static_cast<const BFloat16*>(rows[first + i]); };
        pack_pairs<lanes>(row, stride, dim, pairs_at(panel) + first, kTileColumns<float>);
    }
}

inline void pack_key_pairs(const void* source, int64_t key_stride, int64_t dim_stride, int64_t keys,
                           int64_t dim, float* packed) {
    for (int64_t first = 0; first < keys; first += kTileRows) {
        const BFloat16* const panel = static_cast<const BFloat16*>(source) + first * key_stride;
        const auto row = [&](int i) { return first + i < keys ? panel + i * key_stride : nullptr; };
        pack_pairs<kTileRows>(row, dim_stride, dim, pairs_at(packed) + first * pairs_in(dim),
                              kTileRows);
    }
}

// Panels of tile_rows columns, each pairs of keys x tile_rows; a last key without a partner gets 0.
inline bool pack_value_pairs(const void* source, int64_t key_stride, int64_t dim_stride,
                             int64_t keys, int64_t dim_v, float* packed) {
    const int64_t pairs = pairs_in(keys);
    constexpr int64_t block = 16;  // of the rows' cache lines, each is read for several panels
    Vec<uint32_t> largest = {};    // of all magnitudes, as patterns
    for (int64_t p0 = 0; p0 < pairs; p0 += block) {
        const int64_t end = pairs - p0 < block ? pairs : p0 + block;
        for (int64_t c = 0; c < dim_v; c += kTileRows) {
            for (int64_t p = p0; p < end; ++p) {
                const BFloat16* const row =
                    static_cast<const BFloat16*>(source) + 2 * p * key_stride + c * dim_stride;
                Vec<uint32_t> pair = load_halves(row, dim_stride, dim_v - c);
                if (2 * p + 1 < keys)
                    pair |= load_halves(row + key_stride, dim_stride, dim_v - c) << 16;
                largest = (Vec<uint32_t>)_mm512_max_epu16((__m512i)largest,
                                                          (__m512i)(pair & 0x7fff7fffu));
                store_first(pairs_at(packed) + c * pairs + p * kTileRows, pair, kTileRows);
            }
        }
    }
    return !any((largest & 0xffffu) >= 0x7f80u) && !any((largest >> 16) >= 0x7f80u);
}

// --- The fold of a step into a panel ---

// scores = key * query^T
SLIPSTICK_INLINE void multiply_key_pairs(const attention::Panel<float>& panel,
                                         const attention::KeyTile<float>& tile,
                                         const attention::Step<float>& step) {
    constexpr int lanes = kTileColumns<float>;
    const int64_t pairs = pairs_in(step.dim);
    for (int64_t j = step.begin; j < step.end; j += kTileRows) {
        const uint32_t* const key = pairs_at(tile.key) + j * pairs;
        int64_t k = 0;
        do {  // once for dim = 0: zeros
            const int64_t depth = pairs - k < kDimChain / 2 ? pairs - k : kDimChain / 2;
            multiply_tile(PairMac{}, depth, key + k * kTileRows, pairs_at(panel.query) + k * lanes,
                          step.scores + (j - step.begin) * lanes, lanes, k > 0);
            k += depth;
        } while (k < pairs);
    }
}

// As weigh, but the weights are left as pairs of keys, rounded to bfloat16: a line of pairs lies
// where the first half of the lines were. A last key without a partner gets a partner of weight 0.
// l and a are sums of the weights before they are rounded: with 8 bits each, lse would be off by up
// to 2^-9, and 1e-5 is allowed. The output's error from the rounding is at most 2^-9 of the largest
// value; the naive implementation in bfloat16, the yardstick, rounds its weights as well.
template <bool has_moment>
SLIPSTICK_INLINE void weigh_pairs(const attention::Panel<float>& panel,
                                  const attention::Step<float>& step, const Lanes<float>& factor) {
    constexpr int lanes = kTileColumns<float>;
    auto reference = Lanes<float>::load(panel.maximum);
    auto total = Lanes<float>::load(panel.sum);
    auto total_moment = Lanes<float>::load(panel.moment);
    const Vec<float> zero = {};
    const Vec<float> low = broadcast(kLowestExponent<float>);
    for (int v = 0; v < kTileVectors; ++v)
        reference.part[v] = reference.part[v] == -kInfinity<float> ? zero : reference.part[v];
    const float* line = step.scores;
    uint32_t* pairs = pairs_at(step.scores);
    for (int64_t j = step.begin; j < step.end;) {
        Lanes<float> sum = {};
        Lanes<float> moment = {};
        const auto weight_of = [&](const float* scores, int v) {
            const Vec<float> score = load<Vec<float>>(scores + v * kLanes<float>);
            const Vec<float> t = score * factor.part[v] - reference.part[v];
            const Vec<float> weight = exp<float>(t);
            sum.part[v] += weight;
            if constexpr (has_moment)
                moment.part[v] = mul_add(weight, maximum(t, low), moment.part[v]);
            return weight;
        };
        const auto store_pairs = [&](Vec<float> even, Vec<float> odd, int v) {
            const auto halves = (VectorOf<uint16_t, kVectorBytes>::type)_mm512_cvtne2ps_pbh(
                (__m512)odd, (__m512)even);
            store(pairs + v * kLanes<float>,
                  __builtin_shufflevector(halves, halves, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21,
                                          6, 22, 7, 23, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13,
                                          29, 14, 30, 15, 31));
        };
        const int64_t end = chain_end(j, step.end);
        for (; j + 1 < end; j += 2, line += 2 * lanes, pairs += lanes) {
            for (int v = 0; v < kTileVectors; ++v) {
                const Vec<float> even = weight_of(line, v);
                const Vec<float> odd = weight_of(line + lanes, v);
                store_pairs(even, odd, v);
            }
        }
        if (j < end) {
            for (int v = 0; v < kTileVectors; ++v) store_pairs(weight_of(line, v), zero, v);
            ++j;
        }
        for (int v = 0; v < kTileVectors; ++v) {
            total.part[v] += sum.part[v];
            if constexpr (has_moment) total_moment.part[v] += moment.part[v];
        }
    }
    total.store(panel.sum);
    if constexpr (has_moment) total_moment.store(panel.moment);
}

// out += value^T * weights
SLIPSTICK_INLINE void multiply_value_pairs(const attention::Panel<float>& panel,
                                           const attention::KeyTile<float>& tile,
                                           const attention::Step<float>& step) {
    constexpr int lanes = kTileColumns<float>;
    for (int64_t c = 0; c < step.dim_v; c += kTileRows) {
        const uint32_t* const value = pairs_at(tile.value) + c * pairs_in(tile.keys);
        for (int64_t j = step.begin; j < step.end;) {
            const int64_t end = chain_end(j, step.end);
            multiply_tile(PairMac{}, pairs_in(end - j), value + j / 2 * kTileRows,
                          pairs_at(step.scores) + (j - step.begin) / 2 * lanes,
                          panel.out + c * lanes, lanes, true);
            j = end;
        }
    }
}

// Column c of a tile's key j.
SLIPSTICK_INLINE float value_in_pairs(const attention::KeyTile<float>& tile, int64_t j, int64_t c) {
    const uint32_t pair = pairs_at(tile.value)[c / kTileRows * kTileRows * pairs_in(tile.keys) +
                                               j / 2 * kTileRows + c % kTileRows];
    return bit_cast<float>(j % 2 == 0 ? pair << 16 : pair & 0xffff0000u);
}

}  // namespace
}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
