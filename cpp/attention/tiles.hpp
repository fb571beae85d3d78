// How forward.cpp and backward.cpp cut their work.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/rounding.hpp"

namespace slipstick::cpu::attention {

// Panels of a tile of query rows: 64 float32 rows at v3. They share a key tile while it lies in the
// second cache.
inline constexpr int64_t kPanels = 4;
// Keys and values of a tile, packed: a quarter of a 512 KiB second cache.
inline constexpr int64_t kTileBytes = 128 << 10;
inline constexpr int64_t kTileStep = 24;  // a multiple of the rows of every level's register tile
// Packed operands that are alive at once, unless one head alone needs more.
inline constexpr int64_t kPackedBytes = 8 << 20;
inline constexpr int64_t kHeadsPerThread = 8;       // and more: a head is not worth dividing
inline constexpr double kSerialProducts = 1 << 20;  // about 50 us of multiply-adds

// Keys of a tile: a function of dtype, head dimensions and limits alone, so that a row's bits
// depend on its sequence only; fewer where there are fewer.
inline int64_t tile_keys(int64_t dim, int64_t dim_v, int64_t acc_bytes, int64_t shortest,
                         int64_t longest, int64_t keys) {
    const int64_t fitting = kTileBytes / (acc_bytes * std::max<int64_t>(1, dim + dim_v));
    return std::min(std::clamp(fitting / kTileStep * kTileStep, shortest, longest),
                    round_up(std::max<int64_t>(1, keys), kTileStep));
}

}  // namespace slipstick::cpu::attention
