// What a level offers to skinny.hpp: the product of a matrix with few columns, and of its
// transpose, both reading the matrix where it lies.
#pragma once

#include <cstdint>

#include "core/isa.hpp"

namespace slipstick::cpu::projection {

// Sums over the depth run in blocks of 256, added in order.
template <class T>
struct SkinnyKernel {
    // out[i][j] = sum over k of a[i][k] right[k][j]. `right` is packed into panels of tile_columns
    // columns, each `depth` lines deep; out has room for whole panels.
    void (*times)(const T* a, int64_t row_stride, int64_t rows, int64_t depth, const T* right,
                  int64_t panels, T* out, int64_t out_stride);
    // out[j][k] = sum over i of left[i][j] a[i][k], for `columns` values of k. `left` is packed
    // into panels of tile_rows columns, panel_stride elements apart; out has room for whole tiles.
    void (*transposed)(const T* a, int64_t row_stride, int64_t depth, int64_t columns,
                       const T* left, int64_t panel_stride, int64_t panels, T* out,
                       int64_t out_stride);
    int64_t tile_rows;
    int64_t tile_columns;
};

struct SkinnyKernels {
    SkinnyKernel<float> float32;
    SkinnyKernel<double> float64;
};

}  // namespace slipstick::cpu::projection

namespace slipstick::cpu {
SLIPSTICK_LEVEL_TABLE(projection::SkinnyKernels, projection_skinny_kernels)
}  // namespace slipstick::cpu
