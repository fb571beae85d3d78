// Tiles of 16-bit operands in shared memory: how they come there, how fragments of a warp's
// products are read from them, how results leave by way of them.
//
// A row of a tile has kColumns elements, a multiple of 64; it is cut into chunks of 16 bytes. Chunk
// c of row r lies where chunk c ^ (r % 8) would: eight rows of one chunk, which ldmatrix reads at
// once, are then in eight different groups of banks, and so are eight chunks of one row, which
// copies write at once.
#pragma once

#include "attention/problem.cuh"
#include "core/ptx.cuh"

namespace slipstick::cuda::attention {

inline constexpr int kChunk = 8;  // elements of 16 bytes

// An operand whose rows make tiles.
struct TileSource {
    const void* data;
    int64_t column_step;
    int columns;
    bool aligned;  // rows can be copied 16 bytes at a time
};

// Whether all rows of a tensor can be moved 16 bytes at a time (host).
template <class Data>
bool has_aligned_rows(const Steps<Data>& tensor, int64_t columns) {
    return columns % kChunk == 0 && columns > 0 && tensor.column == 1 &&
           reinterpret_cast<uintptr_t>(tensor.data) % 16 == 0 && tensor.batch % kChunk == 0 &&
           tensor.head % kChunk == 0 && tensor.row % kChunk == 0;
}

inline TileSource tile_source(const Operand& operand, int columns) {
    return {operand.data, operand.column, columns, has_aligned_rows(operand, columns)};
}

// Where chunk `chunk` of row `row` begins, in elements.
template <int kColumns>
__device__ __forceinline__ int chunk_at(int row, int chunk) {
    return row * kColumns + (chunk ^ (row % 8)) * kChunk;
}

// The place of the thread's piece `i` of a tile, when kThreads threads take its chunks in turn:
// along the rows, but down the columns where neighbours in memory are rows.
template <int kRows, int kColumns, int kThreads>
struct TilePieces {
    static constexpr int kChunks = kColumns / kChunk;
    static constexpr int kCount = kRows * kChunks / kThreads;
    static_assert(kColumns % 64 == 0 && kRows * kChunks % kThreads == 0);

    int row;
    int chunk;
    __device__ __forceinline__ TilePieces(int i, bool down) {
        const int piece = i * kThreads + static_cast<int>(threadIdx.x) % kThreads;
        row = down ? piece % kRows : piece / kChunks;
        chunk = down ? piece / kRows : piece % kChunks;
    }
};

// Fills a tile element by element: row r with what `row_at(r)` points to, or zeros where that is
// null; zeros beyond the source's columns. kThreads consecutive threads call it.
template <int kRows, int kColumns, int kThreads, class T, class RowAt>
__device__ __forceinline__ void load_elements(T* tile, const TileSource& source,
                                              const RowAt& row_at) {
    using Pieces = TilePieces<kRows, kColumns, kThreads>;
#pragma unroll 1
    for (int i = 0; i < Pieces::kCount; ++i) {
        const Pieces piece(i, source.column_step != 1);
        const T* const row = row_at(piece.row);
        Pack<T, kChunk> read{};
#pragma unroll
        for (int e = 0; e < kChunk; ++e) {
            const int column = piece.chunk * kChunk + e;
            if (row != nullptr && column < source.columns)
                read.element[e] = row[column * source.column_step];
        }
        *reinterpret_cast<Pack<T, kChunk>*>(tile + chunk_at<kColumns>(piece.row, piece.chunk)) =
            read;
    }
}

// The same, 16 bytes at a time where the source allows it: such copies are under way when this
// returns (commit_copies, wait_for_copies), all others are done.
template <int kRows, int kColumns, int kThreads, class T, class RowAt>
__device__ __forceinline__ void load_tile(T* tile, const TileSource& source, const RowAt& row_at) {
    using Pieces = TilePieces<kRows, kColumns, kThreads>;
    if (!source.aligned) return load_elements<kRows, kColumns, kThreads>(tile, source, row_at);
#pragma unroll
    for (int i = 0; i < Pieces::kCount; ++i) {
        const Pieces piece(i, false);
        const T* const row = row_at(piece.row);
        const int column = piece.chunk * kChunk;
        const bool valid = row != nullptr && column < source.columns;
        copy_async(tile + chunk_at<kColumns>(piece.row, piece.chunk),
                   valid ? row + column : source.data, valid);
    }
}

// load_tile of rows that are `row_step` apart, row 0 at `first`; rows begin <= r < end, the others
// are zeros. For loops: two additions a copy where all rows are there.
template <int kRows, int kColumns, int kThreads, class T>
__device__ __forceinline__ void load_rows(T* tile, const TileSource& source, const T* first,
                                          int64_t row_step, int begin, int end) {
    using Pieces = TilePieces<kRows, kColumns, kThreads>;
    if (!source.aligned) {
        return load_elements<kRows, kColumns, kThreads>(tile, source, [&](int r) {
            return r >= begin && r < end ? first + r * row_step : nullptr;
        });
    }
    constexpr int step = kThreads / Pieces::kChunks;  // rows
    const Pieces piece(0, false);
    const int column = piece.chunk * kChunk;
    const bool valid = column < source.columns;
    const T* from = first + piece.row * row_step + (valid ? column : 0);
    if (begin <= 0 && end >= kRows) {
#pragma unroll
        for (int i = 0; i < Pieces::kCount; ++i, from += step * row_step)
            copy_async(tile + chunk_at<kColumns>(piece.row + i * step, piece.chunk), from, valid);
        return;
    }
#pragma unroll 1
    for (int i = 0; i < Pieces::kCount; ++i, from += step * row_step) {
        const int r = piece.row + i * step;
        const bool here = valid && r >= begin && r < end;
        copy_async(tile + chunk_at<kColumns>(r, piece.chunk), here ? from : source.data, here);
    }
}

// --- Numbers that are not finite ---

template <class T>
inline constexpr uint32_t kExponent = std::is_same_v<T, Float16> ? 0x7c00u : 0x7f80u;

// Makes zeros of infinities and NaNs, and says whether there were any, among those elements that
// this thread loaded with load_tile or load_rows of the same parameters and that have arrived. A
// barrier is not needed between the two.
template <int kRows, int kColumns, int kThreads, class T>
__device__ __forceinline__ bool clear_nonfinite(T* tile, const TileSource& source) {
    using Pieces = TilePieces<kRows, kColumns, kThreads>;
    constexpr uint32_t both = kExponent<T> * 0x10001u;
    bool found = false;
#pragma unroll 1
    for (int i = 0; i < Pieces::kCount; ++i) {
        const Pieces piece(i, source.column_step != 1);
        auto& words = *reinterpret_cast<Pack<uint32_t, 4>*>(
            tile + chunk_at<kColumns>(piece.row, piece.chunk));
        const Pack<uint32_t, 4> read = words;
        uint32_t any = 0;
        // A half with all bits of the exponent becomes 0, and 0 - 1 has the highest bit.
        for (const uint32_t word : read.element) any |= ((word & both) ^ both) - 0x10001u;
        if ((any & 0x80008000u) == 0) continue;
        found = true;
        for (uint32_t& word : words.element) {
            if ((word & kExponent<T>) == kExponent<T>) word &= 0xffff0000u;
            if ((word >> 16 & kExponent<T>) == kExponent<T>) word &= 0xffffu;
        }
    }
    return found;
}

// --- Fragments for multiply_add, read by a warp ---
//
// `row` is a multiple of 8, `chunk` is even; kColumns is that of the tile.

// Rows row..row+15, of which lanes 0-15 name chunk `chunk` and lanes 16-31 the next.
template <int kColumns, class T>
__device__ __forceinline__ const T* tall_row(const T* tile, int row, int chunk) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    // The exclusive or takes place in three bits, so the compiler sees four different ones at most.
    return tile + (row + lane % 16) * kColumns + (chunk & ~7) * kChunk +
           ((chunk & 7) ^ (lane / 16) ^ (lane % 8)) * kChunk;
}
// Likewise, but every second eight lanes name the next chunk.
template <int kColumns, class T>
__device__ __forceinline__ const T* wide_row(const T* tile, int row, int chunk) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    return tile + (row + lane % 8 + lane / 16 * 8) * kColumns + (chunk & ~7) * kChunk +
           ((chunk & 7) ^ (lane / 8 % 2) ^ (lane % 8)) * kChunk;
}

// A: rows row..row+15 of the tile, 16 columns from `chunk` on.
template <int kColumns, class T>
__device__ __forceinline__ void load_a(uint32_t (&a)[4], const T* tile, int row, int chunk) {
    load_matrices(a, tall_row<kColumns>(tile, row, chunk));
}
// A of the transposed tile: its rows are the tile's 16 columns from `chunk` on, its columns the
// tile's rows row..row+15.
template <int kColumns, class T>
__device__ __forceinline__ void load_a_transposed(uint32_t (&a)[4], const T* tile, int row,
                                                  int chunk) {
    load_matrices_transposed(a, wide_row<kColumns>(tile, row, chunk));
}
// B of the tile as it lies, rows row..row+15: b[0], b[1] for the product's eight columns from
// `chunk` on, b[2], b[3] for the next eight.
template <int kColumns, class T>
__device__ __forceinline__ void load_b(uint32_t (&b)[4], const T* tile, int row, int chunk) {
    load_matrices_transposed(b, tall_row<kColumns>(tile, row, chunk));
}
// B of the transposed tile (scores = queries x keys^T): its rows are the tile's 16 columns from
// `chunk` on; b[0], b[1] for the product's columns row..row+7, b[2], b[3] for row+8..row+15.
template <int kColumns, class T>
__device__ __forceinline__ void load_b_transposed(uint32_t (&b)[4], const T* tile, int row,
                                                  int chunk) {
    load_matrices(b, wide_row<kColumns>(tile, row, chunk));
}

// A of two neighbouring products' results, rounded: what a product gave, 16 rows x 16 columns, is
// the left operand of the next as it lies in registers.
template <class T>
__device__ __forceinline__ void pack_a(uint32_t (&a)[4], const float (&left)[4],
                                       const float (&right)[4]) {
    a[0] = pack<T>(left[0], left[1]);
    a[1] = pack<T>(left[2], left[3]);
    a[2] = pack<T>(right[0], right[1]);
    a[3] = pack<T>(right[2], right[3]);
}

// --- Results, by way of shared memory ---

// Puts a result of multiply_add, its rows times `upper` (the first eight) and `lower`, into rows
// row..row+15 and chunk `chunk` of a tile.
template <int kColumns, class T>
__device__ __forceinline__ void put_result(T* tile, int row, int chunk, const float (&d)[4],
                                           float upper, float lower) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const int at = row + lane / 4;
    T* const target = tile + at * kColumns + (chunk ^ (lane / 4)) * kChunk + lane % 4 * 2;
    *reinterpret_cast<uint32_t*>(target) = pack<T>(d[0] * upper, d[1] * upper);
    *reinterpret_cast<uint32_t*>(target + 8 * kColumns) = pack<T>(d[2] * lower, d[3] * lower);
}

// Writes `columns` columns of rows row..row+kRows-1 of a tile to where row_at(r) points, none where
// that is null. One warp calls it, after sync_warp where it wrote the tile.
template <int kRows, int kColumns, class T, class RowAt>
__device__ __forceinline__ void store_rows(const T* tile, int row, int columns, bool aligned,
                                           int64_t column_step, const RowAt& row_at) {
    constexpr int chunks = kColumns / kChunk;
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x) % kWarp; i < kRows * chunks; i += kWarp) {
        const int r = row + i / chunks;
        const int column = i % chunks * kChunk;
        T* const target = row_at(r);
        if (target == nullptr || column >= columns) continue;
        const auto piece =
            *reinterpret_cast<const Pack<T, kChunk>*>(tile + chunk_at<kColumns>(r, i % chunks));
        if (aligned) {
            *reinterpret_cast<Pack<T, kChunk>*>(target + column) = piece;
            continue;
        }
#pragma unroll
        for (int e = 0; e < kChunk; ++e)
            if (column + e < columns) target[(column + e) * column_step] = piece.element[e];
    }
}

}  // namespace slipstick::cuda::attention
