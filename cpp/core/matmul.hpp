// The loop over blocks around the micro-kernel: splits a product over the threads, packs,
// multiplies, and hands finished accumulators back. Where the operands come from and what becomes
// of the sums is the caller's: memory of any stride, numbers generated on the fly, a scale, a
// rounding.
#pragma once

#include <cstdint>

#include "core/chain.hpp"
#include "core/threads.hpp"

namespace slipstick::cpu {

// What a level offers for one kind of product (see core/tile.hpp).
struct MatmulKernel {
    void (*multiply)(const void* mac, int64_t rows, int64_t depth, int64_t columns,
                     const void* left, const void* right, void* acc, int64_t acc_stride,
                     bool accumulate);
    int64_t tile_rows;
    int64_t tile_columns;
    int64_t left_bytes;
    int64_t right_bytes;
    int64_t acc_bytes;
    // How the sums lie: in panels of this many rows, tile_rows or 1. With p of them the sum of row
    // i and column j is element (i - i % p) * acc_stride + j * p + i % p of acc.
    int64_t acc_rows;
};

struct MatmulProblem {
    int64_t rows;
    int64_t depth;
    int64_t columns;
    // Where k = 0 lies within a block of kDepthBlock: blocks follow the global index of a feature.
    int64_t depth_origin = 0;
    // Columns that pack_right is asked for at once, a multiple of tile_columns; 0 stands for
    // eight panels. A generator that makes many columns in one go asks for as many.
    int64_t pack_columns = 0;
};

// pack_left(i, rows, k, depth, packed) and pack_right(j, columns, k, depth, packed) fill panels
// (tile.hpp); finish(i, rows, j, columns, acc, acc_stride) takes the sums of a block of the result.
// All three are called from several threads at once, for disjoint blocks. Scratch memory: at most 8
// MiB (float32; twice that for float64).
using PackFn = FunctionRef<void(int64_t, int64_t, int64_t, int64_t, void*)>;
using FinishFn = FunctionRef<void(int64_t, int64_t, int64_t, int64_t, const void*, int64_t)>;
void matmul(const MatmulKernel& kernel, const void* mac, const MatmulProblem& problem,
            PackFn pack_left, PackFn pack_right, FinishFn finish);

}  // namespace slipstick::cpu
