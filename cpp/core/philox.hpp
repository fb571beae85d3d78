// Philox4x32-10 (Salmon, Moraes, Dror, Shaw, SC 2011): counter-based random bits. A pure function
// of a counter and a key, the same on host, every instruction-set level and GPU.
#pragma once

#include <cstdint>

#include "core/host_device.hpp"

namespace slipstick {

inline constexpr uint32_t kPhiloxMultiplier0 = 0xD2511F53u;
inline constexpr uint32_t kPhiloxMultiplier1 = 0xCD9E8D57u;
inline constexpr uint32_t kPhiloxIncrement0 = 0x9E3779B9u;
inline constexpr uint32_t kPhiloxIncrement1 = 0xBB67AE85u;
inline constexpr int kPhiloxRounds = 10;

struct PhiloxWords {
    uint32_t word[4];
};

SLIPSTICK_HD PhiloxWords philox4x32(PhiloxWords counter, uint64_t seed) {
    auto key0 = static_cast<uint32_t>(seed);
    auto key1 = static_cast<uint32_t>(seed >> 32);
    uint32_t c0 = counter.word[0], c1 = counter.word[1], c2 = counter.word[2], c3 = counter.word[3];
    SLIPSTICK_UNROLL for (int round = 0; round < kPhiloxRounds; ++round) {
        const uint64_t product0 = uint64_t{kPhiloxMultiplier0} * c0;
        const uint64_t product1 = uint64_t{kPhiloxMultiplier1} * c2;
        c0 = static_cast<uint32_t>(product1 >> 32) ^ c1 ^ key0;
        c2 = static_cast<uint32_t>(product0 >> 32) ^ c3 ^ key1;
        c1 = static_cast<uint32_t>(product1);
        c3 = static_cast<uint32_t>(product0);
        key0 += kPhiloxIncrement0;
        key1 += kPhiloxIncrement1;
    }
    return {{c0, c1, c2, c3}};
}

}  // namespace slipstick
