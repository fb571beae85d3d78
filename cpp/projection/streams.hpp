// Philox4x32-10 on vectors: the bits that every kind of matrix is made of. Included by *.simd.cpp
// alone.
#pragma once

#include "core/philox.hpp"
#include "core/simd.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

// One 32-bit word a 64-bit lane, in its low half: what the widening multiplication reads and
// writes. The high halves hold anything.
using Word = Vec<uint64_t>;
constexpr int kWordLanes = kLanes<uint64_t>;
SLIPSTICK_INLINE Word lane_numbers() {
    Word numbers;
    for (int lane = 0; lane < kWordLanes; ++lane) numbers[lane] = static_cast<uint64_t>(lane);
    return numbers;
}

struct RoundKeys {
    Word key0[kPhiloxRounds];
    Word key1[kPhiloxRounds];

    SLIPSTICK_INLINE explicit RoundKeys(uint64_t seed) {
        auto low = static_cast<uint32_t>(seed);
        auto high = static_cast<uint32_t>(seed >> 32);
        for (int round = 0; round < kPhiloxRounds; ++round) {
            key0[round] = broadcast(uint64_t{low});
            key1[round] = broadcast(uint64_t{high});
            low += kPhiloxIncrement0;
            high += kPhiloxIncrement1;
        }
    }
};

// Independent blocks that are computed side by side: the ten rounds of one are a chain of about 65
// cycles, which leaves the units idle two thirds of the time.
constexpr int kSideBySide = 2;

struct Words {
    Word word[4][kSideBySide];
};

SLIPSTICK_INLINE void philox(Words& blocks, const RoundKeys& keys) {
    const Word multiplier0 = broadcast(uint64_t{kPhiloxMultiplier0});
    const Word multiplier1 = broadcast(uint64_t{kPhiloxMultiplier1});
    auto& c = blocks.word;
#pragma GCC unroll 10
    for (int round = 0; round < kPhiloxRounds; ++round) {
#pragma GCC unroll 2
        for (int b = 0; b < kSideBySide; ++b) {
            const Word product0 = multiply_low_halves(multiplier0, c[0][b]);
            const Word product1 = multiply_low_halves(multiplier1, c[2][b]);
            c[0][b] = (product1 >> 32) ^ c[1][b] ^ keys.key0[round];
            c[2][b] = (product0 >> 32) ^ c[3][b] ^ keys.key1[round];
            c[1][b] = product1;
            c[3][b] = product0;
        }
    }
}

// The words of the features of a panel at one c0: word w of feature f is words[w][f].
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

}  // namespace
}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
