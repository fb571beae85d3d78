// The kinds that spend a word on an entry, on vectors. Included by *.simd.cpp alone.
#pragma once

#include "projection/gaussian.hpp"
#include "projection/projection.hpp"
#include "projection/streams.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

using slipstick::projection::gaussian_from_bits;
using slipstick::projection::kGaussianTag;
using slipstick::projection::kSparseTag;

// Word i & 3 of the block at counter (i >> 2, lo j, hi j) gives entry (i, j): one vector of blocks
// makes as many components as a float32 panel is wide.
constexpr int kWordColumns = 4 * kWordLanes;
static_assert(kWordColumns == 2 * kLanes<float>);

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
    SLIPSTICK_INLINE explicit GaussianEntries(const projection::Law&) {}
    SLIPSTICK_INLINE Vec<float> operator()(Word words) const {
        return gaussian_from_bits<VectorOps>(bit_cast<Vec<uint32_t>>(words));
    }
};

struct SparseEntries {
    static constexpr uint32_t kTag = kSparseTag;
    SLIPSTICK_INLINE explicit SparseEntries(const projection::Law& law)
        : last(broadcast(static_cast<int32_t>(law.threshold - 1))) {}
    SLIPSTICK_INLINE Vec<float> operator()(Word words) const {
        const auto word = bit_cast<Vec<uint32_t>>(words);
        const Vec<float> sign = bit_cast<Vec<float>>((word << 31) | bits::of(1.0f));
        return bit_cast<Vec<int32_t>>(word >> 1) <= last ? sign : Vec<float>{};
    }

    Vec<int32_t> last;  // the largest of the 31-bit numbers that say "not 0"
};

// The kWordColumns entries of components 4 groups[b][0] and on of features[b], in order.
template <class Entries>
SLIPSTICK_INLINE void make_entries(const Entries& entries, const RoundKeys& keys,
                                   const uint64_t (&features)[kSideBySide],
                                   const Word (&groups)[kSideBySide],
                                   Vec<float> (&made)[kSideBySide][2]) {
    Words blocks;
    for (int b = 0; b < kSideBySide; ++b) {
        blocks.word[0][b] = groups[b];
        blocks.word[1][b] = broadcast(features[b]);
        blocks.word[2][b] = broadcast(features[b] >> 32);
        blocks.word[3][b] = broadcast(uint64_t{Entries::kTag});
    }
    philox(blocks, keys);
    // Lane g of `front` is words 0 and 1 of block g, of `back` words 2 and 3.
    for (int b = 0; b < kSideBySide; ++b) {
        const Word front = (blocks.word[0][b] & 0xffffffffu) | (blocks.word[1][b] << 32);
        const Word back = (blocks.word[2][b] & 0xffffffffu) | (blocks.word[3][b] << 32);
        made[b][0] = entries(interleave_low(front, back));
        made[b][1] = entries(interleave_high(front, back));
    }
}

}  // namespace
}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
