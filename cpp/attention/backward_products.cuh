// The products that a warp of the backward kernels makes of tiles in shared memory.
#pragma once

#include "attention/mma_tile.cuh"

namespace slipstick::cuda::attention {

// Whether this thread's part of a tile holds an infinity or a NaN.
template <int kRows, int kColumns, int kThreads, class T>
__device__ __forceinline__ bool holds_nonfinite(const T* tile) {
    constexpr uint32_t both = kExponent<T> * 0x10001u;
    uint32_t any = 0;
    for (int i = static_cast<int>(threadIdx.x); i < kRows * kColumns / kChunk; i += kThreads) {
        const auto read = reinterpret_cast<const Pack<uint32_t, 4>*>(tile)[i];
        // A half with all bits of the exponent becomes 0, and 0 - 1 has the highest bit.
        for (const uint32_t word : read.element) any |= ((word & both) ^ both) - 0x10001u;
    }
    return (any & 0x80008000u) != 0;
}

template <class T>
__device__ __forceinline__ void clear_nonfinite_halves(uint32_t& word) {
    if ((word & kExponent<T>) == kExponent<T>) word &= 0xffff0000u;
    if ((word >> 16 & kExponent<T>) == kExponent<T>) word &= 0xffffu;
}

// sums = left right^T for 16 kTall rows of `left` from `left_row` on and 8 kAcross rows of `right`
// from `right_row` on, both tiles of shared memory.
template <int kColumns, int kTall, int kAcross, class T>
__device__ __forceinline__ void multiply_rows(float (&sums)[kTall][kAcross][4], const T* left,
                                              int left_row, const T* right, int right_row) {
#pragma unroll
    for (int i = 0; i < kTall; ++i) {
#pragma unroll
        for (int j = 0; j < kAcross; ++j) {
#pragma unroll
            for (int k = 0; k < 4; ++k) sums[i][j][k] = 0.0f;
        }
    }
#pragma unroll
    for (int chunk = 0; chunk < kColumns / kChunk; chunk += 2) {
        uint32_t a[kTall][4];
#pragma unroll
        for (int i = 0; i < kTall; ++i) load_a<kColumns>(a[i], left, left_row + 16 * i, chunk);
#pragma unroll
        for (int j = 0; j < kAcross; j += 2) {
            uint32_t b[4];
            load_b_transposed<kColumns>(b, right, right_row + 8 * j, chunk);
#pragma unroll
            for (int i = 0; i < kTall; ++i) {
                multiply_add<T>(sums[i][j], a[i], b[0], b[1]);
                multiply_add<T>(sums[i][j + 1], a[i], b[2], b[3]);
            }
        }
    }
}

// sums += weights rows, where `weights` are 16 kTall x 16, as fragments, and rows are those from
// `row` on of a tile; with `clears` infinities and NaNs of the tile count as 0.
template <int kColumns, bool clears, int kTall, class T>
__device__ __forceinline__ void add_rows(float (&sums)[kTall][kColumns / 8][4],
                                         const uint32_t (&weights)[kTall][4], const T* tile,
                                         int row) {
#pragma unroll
    for (int n = 0; n < kColumns / 8; n += 2) {
        uint32_t b[4];
        load_b<kColumns>(b, tile, row, n);
        if constexpr (clears) {
            for (uint32_t& word : b) clear_nonfinite_halves<T>(word);
        }
#pragma unroll
        for (int i = 0; i < kTall; ++i) {
            multiply_add<T>(sums[i][n], weights[i], b[0], b[1]);
            multiply_add<T>(sums[i][n + 1], weights[i], b[2], b[3]);
        }
    }
}

}  // namespace slipstick::cuda::attention
