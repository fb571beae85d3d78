// What launchers ask of prepare.cu beyond the problem that they are given.
#pragma once

#include "attention/problem.cuh"

namespace slipstick::cuda::attention {

// The problem with `tile_starts` for tiles of so many rows, where its sequences are packed.
Problem prepare_tiles(const Context& context, Problem problem, int64_t tile_rows);

}  // namespace slipstick::cuda::attention
