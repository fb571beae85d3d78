// Tiles of 16-bit elements in shared memory, the products that warps make of them, and the way of
// rows to and from global memory: what the backward kernels on tensor cores stand on.
#pragma once

#include "attention/problem.cuh"
#include "core/launch.cuh"
#include "core/ptx.cuh"

namespace slipstick::cuda::attention {

inline constexpr int kChunk = 8;  // elements that move together: 16 bytes

// --- Lines of global memory ---

// The rows of a key head of an operand: keys, or queries with the heads of a group side by side.
template <class Data>
struct Lines {
    Data* data;  // of the first head of the group
    int64_t row;
    int64_t head;
    int64_t column;
    unsigned group;
    int columns;
    bool vectors;  // 16 bytes of a row lie together, at multiples of 16

    __device__ __forceinline__ Data* at(int line) const {
        if (group == 1) return data + line * row;
        const auto number = static_cast<unsigned>(line);
        return data + number / group * row + number % group * head;
    }
};

// Whether 16 bytes of the operand's rows, which have so many columns, can move together.
template <class Data>
bool has_vectors(const Steps<Data>& steps, int columns) {
    const bool near = reinterpret_cast<uintptr_t>(steps.data) % 16 == 0;
    const int64_t all = steps.batch | steps.head | steps.row | columns;
    return near && all % kChunk == 0 && (steps.column == 1 || columns <= 1);
}

template <class T, class Data>
__device__ __forceinline__ auto lines_of(const Steps<Data>& steps, int64_t batch, int64_t head,
                                         int64_t group, int columns, bool vectors) {
    auto* const data = steps.template at<T>(batch, head * group, 0);
    return Lines<std::remove_pointer_t<decltype(data)>>{
        data, steps.row, steps.head, steps.column, static_cast<unsigned>(group), columns, vectors};
}

// --- Tiles of shared memory ---

// Rows of kWidth elements, a multiple of 64. Chunk c of row r lies in place c ^ r % 8 of the row,
// so that the same chunk of eight rows meets every bank once.
template <class T, int kWidth>
__device__ __forceinline__ T* chunk_of(T* tile, int row, int chunk) {
    return tile + row * kWidth + (chunk ^ (row & 7)) * kChunk;
}

// Starts loading lines `first` to `first + count`, zeros for the rest of the kRows rows and behind
// the columns.
template <class T, int kWidth, int kRows, int kThreads>
__device__ __forceinline__ void load_lines(T* tile, const Lines<const T>& lines, int first,
                                           int count) {
    constexpr int kChunks = kWidth / kChunk;
    static_assert(kRows * kChunks % kThreads == 0);
#pragma unroll 2
    for (int i = 0; i < kRows * kChunks / kThreads; ++i) {
        const int place = i * kThreads + static_cast<int>(threadIdx.x);
        const int row = place / kChunks;
        const int column = place % kChunks * kChunk;
        const int left = row < count ? lines.columns - column : 0;
        T* const target = chunk_of<T, kWidth>(tile, row, column / kChunk);
        const T* const source = left > 0 ? lines.at(first + row) : lines.data;
        if (lines.vectors) {
            copy_async(target, source + (left > 0 ? column : 0), left > 0);
        } else {
            for (int k = 0; k < kChunk; ++k)
                target[k] = k < left ? source[(column + k) * lines.column] : T{};
        }
    }
}

// Whether this thread's part of a tile holds an infinity or a NaN.
template <class T, int kWidth, int kRows, int kThreads>
__device__ __forceinline__ bool holds_no_number(const T* tile) {
    // Added to a float's bits without sign, one at the lowest place of the exponent carries into
    // the sign where all of the exponent is set.
    constexpr uint32_t kExponent = std::is_same_v<T, Float16> ? 0x7c007c00u : 0x7f807f80u;
    constexpr uint32_t kStep = std::is_same_v<T, Float16> ? 0x04000400u : 0x00800080u;
    uint32_t carried = 0;
    for (int i = static_cast<int>(threadIdx.x); i < kRows * kWidth / kChunk; i += kThreads) {
        const auto chunk = reinterpret_cast<const Pack<uint32_t, 4>*>(tile)[i];
        for (int k = 0; k < 4; ++k) carried |= (chunk.element[k] & kExponent) + kStep;
    }
    return (carried & 0x80008000u) != 0;
}

// --- Products of a warp ---

// sums = left right^T for 16 kTall rows of `left` from `row` on and 8 kAcross rows of `right` from
// `column` on, both tiles of shared memory.
template <class T, int kWidth, int kTall, int kAcross>
__device__ __forceinline__ void multiply_lines(float (&sums)[kTall][kAcross][4], const T* left,
                                               int row, const T* right, int column) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
    for (int i = 0; i < kTall; ++i) {
#pragma unroll
        for (int j = 0; j < kAcross; ++j) {
#pragma unroll
            for (int k = 0; k < 4; ++k) sums[i][j][k] = 0.0f;
        }
    }
    const int left_row = row + lane % 16;
    const int right_row = column + lane / 16 * 8 + lane % 8;
#pragma unroll
    for (int depth = 0; depth < kWidth / 16; ++depth) {
        uint32_t a[kTall][4];
#pragma unroll
        for (int i = 0; i < kTall; ++i) {
            load_matrices(
                a[i], chunk_of<const T, kWidth>(left, left_row + 16 * i, 2 * depth + lane / 16));
        }
#pragma unroll
        for (int j = 0; j < kAcross; j += 2) {
            uint32_t b[4];
            load_matrices(
                b, chunk_of<const T, kWidth>(right, right_row + 8 * j, 2 * depth + lane / 8 % 2));
#pragma unroll
            for (int i = 0; i < kTall; ++i) {
                multiply_add<T>(sums[i][j], a[i], b[0], b[1]);
                multiply_add<T>(sums[i][j + 1], a[i], b[2], b[3]);
            }
        }
    }
}

// The fragment of columns n and n + 1, of 8 elements each, of rows `row` to `row + 16` of a tile.
template <class T, int kWidth>
__device__ __forceinline__ void load_right(uint32_t (&b)[4], const T* tile, int row, int n) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    load_matrices_transposed(b, chunk_of<const T, kWidth>(tile, row + lane % 16, n + lane / 16));
}

// sums += weights lines, where `weights` are 16 kTall x 16, as fragments, and lines are rows `row`
// to `row + 16` of a tile.
template <class T, int kWidth, int kTall>
__device__ __forceinline__ void add_lines(float (&sums)[kTall][kWidth / 8][4],
                                          const uint32_t (&weights)[kTall][4], const T* tile,
                                          int row) {
#pragma unroll
    for (int n = 0; n < kWidth / 8; n += 2) {
        uint32_t b[4];
        load_right<T, kWidth>(b, tile, row, n);
#pragma unroll
        for (int i = 0; i < kTall; ++i) {
            multiply_add<T>(sums[i][n], weights[i], b[0], b[1]);
            multiply_add<T>(sums[i][n + 1], weights[i], b[2], b[3]);
        }
    }
}

// The same where 0 times a line may be NaN: line by line, added where `seen` says so. Its bit 4 n +
// k is about element k of the accumulators that column n of 8 of the weights was made of.
template <class T, int kWidth, int kTall>
__device__ __forceinline__ void add_seen_lines(float (&sums)[kTall][kWidth / 8][4],
                                               const uint32_t (&weights)[kTall][4],
                                               const uint32_t (&seen)[kTall], const T* tile,
                                               int row) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll 1
    for (int line = 0; line < 16; ++line) {
        const int pair = line % 8 / 2;
        const uint32_t half = line % 2 == 0 ? 0xffffu : 0xffff0000u;
        const uint32_t mine = lane % 4 == pair ? half : 0;
        const uint32_t upper = line < 8 ? mine : 0;
        const uint32_t lower = line < 8 ? 0 : mine;
        uint32_t sees[kTall];
#pragma unroll
        for (int i = 0; i < kTall; ++i)
            sees[i] = shuffle(seen[i], lane / 4 * 4 + pair) >> (line / 8 * 4 + line % 2);
#pragma unroll
        for (int n = 0; n < kWidth / 8; n += 2) {
            uint32_t b[4];
            load_right<T, kWidth>(b, tile, row, n);
#pragma unroll
            for (int i = 0; i < kTall; ++i) {
                const uint32_t a[4] = {weights[i][0] & upper, weights[i][1] & upper,
                                       weights[i][2] & lower, weights[i][3] & lower};
#pragma unroll
                for (int side = 0; side < 2; ++side) {
                    float terms[4] = {};
                    multiply_add<T>(terms, a, b[2 * side] & upper, b[2 * side + 1] & lower);
#pragma unroll
                    for (int k = 0; k < 4; ++k)
                        if ((sees[i] >> (k / 2 * 2) & 1) != 0) sums[i][n + side][k] += terms[k];
                }
            }
        }
    }
}

// --- Results ---

// Writes factor times 16 kTall rows of sums to lines `first` on, of which there are `count`, by way
// of the warp's own rows of a tile.
template <class T, int kWidth, int kTall, class Factor>
__device__ __forceinline__ void store_lines(const float (&sums)[kTall][kWidth / 8][4], T* tile,
                                            const Lines<T>& lines, int first, int64_t count,
                                            Factor factor) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    sync_warp();
#pragma unroll
    for (int i = 0; i < kTall; ++i) {
#pragma unroll
        for (int side = 0; side < 2; ++side) {
            const int row = 16 * i + lane / 4 + 8 * side;
#pragma unroll
            for (int n = 0; n < kWidth / 8; ++n) {
                T* const place = chunk_of<T, kWidth>(tile, row, n) + lane % 4 * 2;
                *reinterpret_cast<uint32_t*>(place) = pack<T>(
                    factor(row, sums[i][n][2 * side]), factor(row, sums[i][n][2 * side + 1]));
            }
        }
    }
    sync_warp();
    constexpr int kChunks = kWidth / kChunk;
#pragma unroll 1
    for (int place = lane; place < 16 * kTall * kChunks; place += kWarp) {
        const int row = place / kChunks;
        const int column = place % kChunks * kChunk;
        if (row >= count || column >= lines.columns) continue;
        const T* const source = chunk_of<T, kWidth>(tile, row, column / kChunk);
        T* const target = lines.at(first + row);
        if (lines.vectors) {
            *reinterpret_cast<Pack<uint32_t, 4>*>(target + column) =
                *reinterpret_cast<const Pack<uint32_t, 4>*>(source);
        } else {
            for (int k = 0; k < kChunk && column + k < lines.columns; ++k)
                target[(column + k) * lines.column] = source[k];
        }
    }
}

}  // namespace slipstick::cuda::attention
