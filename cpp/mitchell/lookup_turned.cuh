// Lookups turned round, for results of many columns.
//
// A gather of 2-byte entries from shared memory meets 3.5 others on its busiest bank: 9 products a
// cycle and multiprocessor. Here, for each k, the rows of the table that 32 rows of the left
// operand select are transposed, so that the 32 products with a given b lie side by side and a
// column adds them by four loads of 16 bytes, conflict-free:
//
//   turned[b][k % 2][i] = table[left[i][k]][b]        for two k's at once, 128 bytes for each b
//
// Eight threads read one such line's worth of banks: four of them a column at the first k, four the
// next column at the second, and then the other way round. Bytes of shared memory for 32 rows of
// 1024 columns and two k's, by a block of 512 threads:
//
//   adding    2 * 32 * 1024 products of 2 bytes             131,072
//   turning   32 KiB read from the table, 32 KiB written     65,536
//   indices of both operands, staged and read                14,000
//
// 210,000 bytes at 128 a cycle are 1650 cycles for 65,536 products, 40 a cycle. What adds them is
// an instruction a product (add() below): 1350 cycles at 64 a cycle, beside the loads.
#pragma once

#include "mitchell/lookup_bytes.cuh"

namespace slipstick::cuda::mitchell {

constexpr int kTurnedRows = 32;  // of a tile
constexpr int kThreadRows = 8;   // whose sums a thread holds
constexpr int kThreadColumns = 8;
constexpr int kRowGroups = kTurnedRows / kThreadRows;
constexpr int kColumnsPerThread = kThreadColumns / kRowGroups;  // of a tile, to a thread of a block
constexpr int kTurnedThreads = 512;                             // at most; at least 32
constexpr int kChunk = 16;                                      // k's that are staged at once
constexpr int kPairs = kChunk / 2;

// How the products are shared out: units are chunks of the depth of tiles, `share` of them in turn
// to a block, so that no multiprocessor waits for a last tile.
struct TurnedWork {
    int64_t row_tiles, column_tiles;
    int64_t chunks;  // of a tile
    int64_t units;
    int64_t share;
};

struct TurnedLine {
    Pack<uint32_t, 4> group[2][kRowGroups];  // of eight rows, for each of two k's
};
static_assert(sizeof(TurnedLine) == 128);

// Offsets into the block's shared memory.
struct TurnedLayout {
    static constexpr int kTurned = 0;  // two buffers
    static constexpr int kTurnedBytes = kTableSide * static_cast<int>(sizeof(TurnedLine));
    static constexpr int kLeft = kTurned + 2 * kTurnedBytes;  // two chunks of [k][row]
    static constexpr int kLeftBytes = kChunk * kTurnedRows;
    static constexpr int kRight = kLeft + 2 * kLeftBytes;  // two chunks of [k][column]
    static constexpr int right_bytes(int columns) { return kChunk * columns; }
    static constexpr int table(int columns) { return kRight + 2 * right_bytes(columns); }
};

constexpr int turned_columns(int threads) { return kColumnsPerThread * threads; }

// Sums of eight rows and eight columns. A word holds the products of two rows; sums of whole words
// and of their upper halves give both, modulo 2^32: three instructions for two words.
struct TurnedSums {
    uint32_t word[kThreadColumns][4];
    uint32_t upper[kThreadColumns][4];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int c = 0; c < kThreadColumns; ++c) {
#pragma unroll
            for (int w = 0; w < 4; ++w) word[c][w] = upper[c][w] = 0;
        }
    }

    // The thread's columns at two k's: `indices` are their bytes, in the order in which the thread
    // takes the k's, `lines` where it reads.
    __device__ __forceinline__ void add(const Pack<uint32_t, 2> (&indices)[2],
                                        const unsigned char* const (&lines)[2]) {
#pragma unroll
        for (int c = 0; c < kThreadColumns; ++c) {
            Pack<uint32_t, 4> products[2];
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const uint32_t b = (indices[i].element[c / 4] >> (c % 4 * 8)) & 0xff;
                products[i] = *reinterpret_cast<const Pack<uint32_t, 4>*>(
                    lines[i] + b * static_cast<uint32_t>(sizeof(TurnedLine)));
            }
#pragma unroll
            for (int w = 0; w < 4; ++w) {
                const uint32_t first = products[0].element[w];
                const uint32_t second = products[1].element[w];
                word[c][w] += first + second;
                upper[c][w] += (first >> 16) + (second >> 16);
            }
        }
    }

    // Of row 2 w + half.
    __device__ __forceinline__ uint32_t sum(int c, int w, int half) const {
        return half == 1 ? upper[c][w] : word[c][w] - (upper[c][w] << 16);
    }
};

// A tile's operands on their way through shared memory.
class TurnedTile {
public:
    __device__ TurnedTile(unsigned char* shared, const uint16_t* table, ByteLines left,
                          ByteLines right, int64_t row, int64_t column, int64_t depth)
        : shared_(shared),
          table_(table),
          left_(left),
          right_(right),
          row_(row),
          column_(column),
          depth_(depth),
          thread_(static_cast<int>(threadIdx.x)),
          threads_(static_cast<int>(blockDim.x)),
          columns_(turned_columns(threads_)) {}

    // A chunk comes in parts, one while each pair of the chunk before it is added: a word of the
    // right operand for each thread, and with the first part the left operand.
    struct Part {
        uint32_t right, left;
    };
    __device__ __forceinline__ Part fetch(int part, int64_t k) const {
        return {fetch_word(right_, column_, columns_, thread_ + part * threads_, k),
                holds_left(part) ? fetch_word(left_, row_, kTurnedRows, thread_, k) : 0};
    }
    __device__ __forceinline__ void stage(int part, int buffer, const Part& words) const {
        stage_word(right_, right(buffer), columns_, thread_ + part * threads_, words.right);
        if (holds_left(part)) stage_word(left_, left(buffer), kTurnedRows, thread_, words.left);
    }

    // Turns the table for two k's, the pair-th of a chunk in `buffer`.
    __device__ __forceinline__ void turn(int pair, int buffer, int64_t k) const {
        const int lane = thread_ % 32;
        const int which = lane % 8 / kRowGroups;
        const int group = lane % kRowGroups;
        const bool present = k + which < depth_;
        const auto rows = *reinterpret_cast<const Pack<uint8_t, kThreadRows>*>(
            left(buffer) + (2 * pair + which) * kTurnedRows +
            staged_place(group * kThreadRows, 2 * pair));
        auto* const lines = reinterpret_cast<TurnedLine*>(turned(pair % 2));
        // Sixteen threads read eight bytes of every bank, whatever rows they read them from, and
        // eight write sixteen.
        for (int task = thread_ / 16; task < 32; task += threads_ / 16) {
            const int place = 2 * (lane % 8) + lane / 8 % 2 + 2 * (task % 8);
            const int b = 4 * (task / 8 * 16 + place % 16);
            Pack<uint32_t, 2> entries[kThreadRows] = {};
            if (present) {
#pragma unroll
                for (int i = 0; i < kThreadRows; ++i) {
                    entries[i] = *reinterpret_cast<const Pack<uint32_t, 2>*>(
                        table_ + kTableSide * int{rows.element[i]} + b);
                }
            }
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                Pack<uint32_t, 4> line;
#pragma unroll
                for (int w = 0; w < 4; ++w) {
                    const uint32_t first = entries[2 * w].element[i / 2];
                    const uint32_t second = entries[2 * w + 1].element[i / 2];
                    line.element[w] = i % 2 == 0 ? (first & 0xffff) | (second << 16)
                                                 : (first >> 16) | (second & 0xffff0000);
                }
                lines[b + i].group[which][group] = line;
            }
        }
    }

    // Adds the products of two k's that turn() has prepared.
    __device__ __forceinline__ void add(int pair, int buffer, TurnedSums& sums) const {
        const int group = thread_ % kRowGroups;
        const int which = thread_ / kRowGroups % 2;
        const auto* const indices =
            right(buffer) + 2 * pair * columns_ + staged_place(first_column(), 2 * pair);
        const auto& line = *reinterpret_cast<const TurnedLine*>(turned(pair % 2));
        const Pack<uint32_t, 2> both[2] = {
            *reinterpret_cast<const Pack<uint32_t, 2>*>(indices + which * columns_),
            *reinterpret_cast<const Pack<uint32_t, 2>*>(indices + (1 - which) * columns_)};
        const unsigned char* const places[2] = {
            reinterpret_cast<const unsigned char*>(&line.group[which][group]),
            reinterpret_cast<const unsigned char*>(&line.group[1 - which][group])};
        sums.add(both, places);
    }

    // Stores the sums, or adds them to the result; `offset` was added to the products of each k.
    // They pass through shared memory, so that neighbouring threads store neighbouring columns.
    __device__ void put(const TurnedSums& sums, const LookupProblem& p, uint32_t* out,
                        uint32_t offset, bool is_whole) const {
        const int group = thread_ % kRowGroups;
#pragma unroll
        for (int w = 0; w < 4; ++w) {
            auto* const exchanged = reinterpret_cast<uint32_t*>(turned(w % 2));
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                uint32_t* const line = exchanged + (2 * group + half) * columns_ + first_column();
#pragma unroll
                for (int c = 0; c < kThreadColumns; c += 4) {
                    Pack<uint32_t, 4> four;
#pragma unroll
                    for (int i = 0; i < 4; ++i) four.element[i] = sums.sum(c + i, w, half) - offset;
                    *reinterpret_cast<Pack<uint32_t, 4>*>(line + c) = four;
                }
            }
            __syncthreads();
            for (int c = thread_; c < columns_; c += threads_) {
                if (column_ + c >= right_.lines) break;
                const int64_t place = target_of(p.right.targets, column_ + c);
#pragma unroll 1
                for (int i = 0; i < 2 * kRowGroups; ++i) {
                    const int64_t row = row_ + i / 2 * kThreadRows + 2 * w + i % 2;
                    if (row >= left_.lines) break;
                    put_sum(out + place + target_of(p.left.targets, row),
                            exchanged[i * columns_ + c], is_whole);
                }
            }
        }
        __syncthreads();
    }

private:
    __device__ unsigned char* turned(int buffer) const {
        return shared_ + TurnedLayout::kTurned + buffer * TurnedLayout::kTurnedBytes;
    }
    __device__ unsigned char* left(int buffer) const {
        return shared_ + TurnedLayout::kLeft + buffer * TurnedLayout::kLeftBytes;
    }
    __device__ unsigned char* right(int buffer) const {
        return shared_ + TurnedLayout::kRight + buffer * TurnedLayout::right_bytes(columns_);
    }
    __device__ int first_column() const { return thread_ / kRowGroups * kThreadColumns; }

    // Where the element k of a chunk has line `line` among those of that k: what eight threads
    // bring of two lines' sixteen k's would meet on one bank otherwise.
    __device__ __forceinline__ static int staged_place(int line, int k) {
        return line ^ (k / 4 * 8);
    }
    __device__ __forceinline__ bool holds_left(int part) const {
        return part == 0 && thread_ < kTurnedRows * kChunk / 4;
    }
    // The words of a chunk of `width` lines: four k's of a line, or four lines at one k.
    __device__ __forceinline__ static uint32_t fetch_word(const ByteLines& lines, int64_t first,
                                                          int width, int word, int64_t k) {
        if (lines.runs_along_depth()) return lines.along(first + word / 4, k + word % 4 * 4);
        return lines.across(first + word % (width / 4) * 4, k + word / (width / 4));
    }
    __device__ __forceinline__ static void stage_word(const ByteLines& lines, unsigned char* target,
                                                      int width, int word, uint32_t elements) {
        if (lines.runs_along_depth()) {
            const int k = word % 4 * 4;
            target += k * width + staged_place(word / 4, k);
#pragma unroll
            for (int i = 0; i < 4; ++i)
                target[i * width] = static_cast<unsigned char>(elements >> (8 * i));
        } else {
            const int k = word / (width / 4);
            target += k * width + staged_place(word % (width / 4) * 4, k);
            *reinterpret_cast<uint32_t*>(target) = elements;
        }
    }

    unsigned char* shared_;
    const uint16_t* table_;
    ByteLines left_, right_;
    int64_t row_, column_;
    int64_t depth_;
    int thread_, threads_, columns_;
};

// Chunks [first, first + count) of a tile.
__device__ __forceinline__ void run_turned(const TurnedTile& tile, int64_t first, int64_t count,
                                           int64_t depth, TurnedSums& sums) {
    const int64_t begin = first * kChunk;
    const int64_t end = begin + count * kChunk < depth ? begin + count * kChunk : depth;
    sums.clear();
#pragma unroll 1
    for (int part = 0; part < kPairs; ++part) tile.stage(part, 0, tile.fetch(part, begin));
    __syncthreads();
    tile.turn(0, 0, begin);
    __syncthreads();
    int pair = 0;
    int buffer = 0;
    // While a pair is added the next one is turned, and a part of the next chunk is on its way.
#pragma unroll 1
    for (int64_t k = begin; k < end; k += 2) {
        const int64_t next_chunk = k - 2 * pair + kChunk;
        const bool fetching = next_chunk < end;
        TurnedTile::Part words{};
        if (fetching) words = tile.fetch(pair, next_chunk);
        const bool is_last = pair == kPairs - 1;
        const int next_pair = is_last ? 0 : pair + 1;
        const int next_buffer = is_last ? 1 - buffer : buffer;
        if (k + 2 < end) tile.turn(next_pair, next_buffer, k + 2);
        tile.add(pair, buffer, sums);
        if (fetching) tile.stage(pair, 1 - buffer, words);
        __syncthreads();
        pair = next_pair;
        buffer = next_buffer;
    }
}

// The table comes from shared memory, or, where that is too small, by way of the first cache.
__global__ void __launch_bounds__(kTurnedThreads)
    turned_kernel(LookupProblem p, TurnedWork work, const uint16_t* table, bool is_table_shared,
                  uint32_t product_offset) {
    auto* const shared = dynamic_shared<unsigned char>();
    const int columns = turned_columns(static_cast<int>(blockDim.x));
    if (is_table_shared) {
        auto* const copy = reinterpret_cast<uint16_t*>(shared + TurnedLayout::table(columns));
        copy_table(table, copy);
        table = copy;
    }
    int64_t unit = blockIdx.x * work.share;
    const int64_t last = unit + work.share < work.units ? unit + work.share : work.units;
    while (unit < last) {
        const int64_t index = unit / work.chunks;
        const int64_t first = unit - index * work.chunks;
        const int64_t count = work.chunks - first < last - unit ? work.chunks - first : last - unit;
        const int64_t line = index / work.column_tiles;
        const int64_t batch = line / work.row_tiles;
        const Places places = places_of(p.batches, batch);
        const TurnedTile tile(shared, table, ByteLines(p.left, places.left, p.depth),
                              ByteLines(p.right, places.right, p.depth),
                              (line - batch * work.row_tiles) * kTurnedRows,
                              (index - line * work.column_tiles) * columns, p.depth);
        TurnedSums sums;
        run_turned(tile, first, count, p.depth, sums);
        const int64_t end = (first + count) * kChunk;
        const int64_t depth = (end < p.depth ? end : p.depth) - first * kChunk;
        tile.put(sums, p, p.out + places.out, product_offset * static_cast<uint32_t>(depth),
                 count == work.chunks);
        unit += count;
    }
}

}  // namespace slipstick::cuda::mitchell
