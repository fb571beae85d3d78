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

}  // namespace
}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
