// How long a chain of a sum is, on every device: part of what a result is, bit for bit.
#pragma once

#include <cstdint>

namespace slipstick {

// The sums over k run in blocks of 256: one chain a block, the blocks added in order. Part of the
// public definition of a projection, and a better bound on the rounding error than one long chain.
inline constexpr int64_t kDepthBlock = 256;

}  // namespace slipstick
