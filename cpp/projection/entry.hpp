// One entry of each kind from its random words, by the counters that README.md lists: the same on
// the host and on the GPU. (The CPU's kernels make vectors of them: streams.hpp, entries.hpp.)
#pragma once

#include "core/philox.hpp"
#include "projection/gaussian.hpp"

namespace slipstick::projection {

SLIPSTICK_HD PhiloxWords words_of(uint64_t seed, uint32_t tag, uint64_t c0, uint64_t feature) {
    return philox4x32({{static_cast<uint32_t>(c0), static_cast<uint32_t>(feature),
                        static_cast<uint32_t>(feature >> 32), tag}},
                      seed);
}

// +1 or -1 by bit `bit` & 31 of the word.
SLIPSTICK_HD float sign_of_bit(uint32_t word, uint32_t bit) {
    return bits::as_float(bits::of(1.0f) | (word >> (bit & 31) << 31));
}

// `threshold` is that of the law.
SLIPSTICK_HD float sparse_from_bits(uint32_t word, uint32_t threshold) {
    return word >> 1 < threshold ? sign_of_bit(word, 0) : 0.0f;
}

// The entry of column `feature` that is not 0 in block r of s: its component and its sign.
struct Hashed {
    int64_t component;
    bool negative;
};
SLIPSTICK_HD Hashed hashed_entry(uint64_t seed, int64_t components, int64_t nonzeros, int64_t r,
                                 uint64_t feature) {
    const PhiloxWords words = words_of(seed, kHashedTag, static_cast<uint64_t>(r), feature);
    const int64_t first = r * components / nonzeros;
    const auto height = static_cast<uint64_t>((r + 1) * components / nonzeros - first);
    return {first + static_cast<int64_t>(words.word[0] * height >> 32), (words.word[1] & 1) != 0};
}

// --- The block SRHT ---

inline constexpr int kSrhtStages = 12;
inline constexpr int kSrhtBlock = 1 << kSrhtStages;  // features of a block, components of a group

// Where position t of a group's order of 0 ... kSrhtBlock - 1 is exchanged to, t = 4 q ... 4 q + 3.
SLIPSTICK_HD void srht_exchanges(uint64_t seed, uint32_t group, int quad, int (&to)[4]) {
    const PhiloxWords words =
        philox4x32({{static_cast<uint32_t>(quad), group, 0, kSrhtRowTag}}, seed);
    SLIPSTICK_UNROLL for (int i = 0; i < 4; ++i) {
        const int t = 4 * quad + i;
        const auto reach = static_cast<uint64_t>(kSrhtBlock - t);
        to[i] = t + static_cast<int>(words.word[i] * reach >> 32);
    }
}

// The words of the signs of 128 features, D, and of 128 components, D~: bit 1 stands for -1.
SLIPSTICK_HD PhiloxWords srht_input_signs(uint64_t seed, uint32_t group, uint64_t feature) {
    return words_of(seed, kSrhtInputSignTag, group, feature / 128);
}
SLIPSTICK_HD PhiloxWords srht_output_signs(uint64_t seed, uint64_t component, uint64_t block) {
    return words_of(seed, kSrhtOutputSignTag, component / 128, block);
}

}  // namespace slipstick::projection
