// What a level offers to the fast transforms: the passes that hadamard, rotate and srht are made
// of.
#pragma once

#include "core/dtype.hpp"
#include "core/isa.hpp"

namespace slipstick::cpu::projection {

// The Walsh-Hadamard transform of n = 2^p numbers in natural order is the graph of butterflies
// (a, b) -> (a + b, a - b) at strides 1, 2, 4, ..., n / 2, in that order; the stage of stride 2^s
// is stage s. Before the stages 0, 4, 8, ... all numbers are multiplied by scales[0], scales[1],
// ...; scales == nullptr leaves them alone. Every pass below computes a part of this graph, so that
// how a transform is cut into passes changes no bit.
inline constexpr int kScaleStages = 4;

// float and double.
struct TransformKernels {
    // All stages of `count` rows of 2^log2n numbers side by side; source may be target. Without
    // stages the numbers are still multiplied by scales[0]. Best where a row fits the second cache.
    // `signs`, if any, are the bits of each number of a row, 1 to turn it over first; rows are then
    // of 32 numbers or more.
    void (*rows)(const void* source, int64_t source_stride, void* target, int64_t target_stride,
                 int64_t count, int log2n, const double* scales, const uint32_t* signs);
    // Stages first_stage ... first_stage + log2rows - 1 down the columns of a matrix of 2^log2rows
    // rows. `scratch` has room for 2^log2rows * padded(columns) numbers.
    void (*columns)(const void* source, int64_t source_stride, void* target, int64_t target_stride,
                    int64_t columns, int log2rows, int first_stage, const double* scales,
                    void* scratch);
    // Down the columns of a matrix of `rows` compact rows (12, 20 or 28), in place, the sums of
    // signs[i][k] x[k] over increasing k, from +0.
    void (*mix)(void* data, int64_t columns, int rows, const void* signs);
    // target[i] = -source[i] where bit i of `signs` is 1, else source[i].
    void (*flip)(const void* source, void* target, int64_t count, const uint32_t* signs);
    // sums[i] += signs[i] * values[rows[i] & mask].
    void (*sample)(const void* values, const int32_t* rows, int32_t mask, const void* signs,
                   int64_t count, void* sums);
    int64_t lanes;

    int64_t padded(int64_t columns) const { return (columns + lanes - 1) / lanes * lanes; }
};

// Elements as what they are computed in: 16-bit floats as float, integers as double.
using ReadFn = void (*)(const void* source, int64_t stride, int64_t count, void* target);
// Rounded once.
using WriteFn = void (*)(const void* source, void* target, int64_t stride, int64_t count);

struct TransformTable {
    PerDtype<const TransformKernels*> transform;  // by the dtype of x
    PerDtype<ReadFn> read;
    PerDtype<WriteFn> write;  // of the floats
    // The four words of `count` blocks from counter (first_word, lo j, hi j, tag) on, j = first,
    // first + 1, ...; room is for a multiple of 16 blocks.
    void (*sign_words)(uint64_t seed, uint32_t first_word, uint64_t first, int64_t count,
                       uint32_t tag, uint32_t* words);
};
inline constexpr int64_t kSignBlockRoom = 16;

}  // namespace slipstick::cpu::projection

namespace slipstick::cpu {
SLIPSTICK_LEVEL_TABLE(projection::TransformTable, projection_transform_kernels)
}  // namespace slipstick::cpu
