// Lookups turned round, for results of many columns.
//
// A gather of 2-byte entries from shared memory meets 3.5 others on its busiest bank: 9 products a
// cycle and multiprocessor. Here, for each k, the rows of the table that 32 rows of the left
// operand select are transposed, so that the 32 products with a given b lie side by side and a
// column adds them by four loads of 16 bytes, conflict-free:
//
//   turned[b][k % 2][i] = table[left[i][k]][b]        for two k's at once, 128 bytes for each b
//
// Eight threads read the 128 bytes of a line's banks at once: four of them a column at the first k,
// four the next column at the second, and then the other way round. Cycles of shared memory, 128
// bytes each, for 32 rows of 1024 columns and two k's (65,536 products):
//
//   adding     2 * 32 * 1024 products of 2 bytes                    1024
//   turning    32 KiB read from the table, 32 KiB written            512
//   indices    read eight columns at a time, 16 bytes of four         64
//   operands   staged, and the rows' read for turning                 80
//
// 1680 cycles, 39 products a cycle. The arithmetic is about 1.8 instructions a product, one of them
// to add it (TurnedSums), which 64 integer lanes take 1850 cycles for: 35 a cycle.
#pragma once

#include "mitchell/lookup_bytes.cuh"

namespace slipstick::cuda::mitchell {

constexpr int kTurnedThreads = 256;  // or half as many
constexpr int kThreadRows = 8;       // whose sums a thread holds
constexpr int kThreadColumns = 16;
constexpr int kTurnedRowBits = 5;
constexpr int kTurnedRows = 1 << kTurnedRowBits;  // of a tile
constexpr int kRowGroups = kTurnedRows / kThreadRows;
constexpr int kMostColumnBits = 10;
constexpr int kChunkBits = 4;
constexpr int kChunk = 1 << kChunkBits;  // k's that are staged at once
constexpr int kPairs = kChunk / 2;

// A tile's columns are four to a thread.
constexpr int turned_columns(int threads) { return kThreadColumns / kRowGroups * threads; }
static_assert(turned_columns(kTurnedThreads) == 1 << kMostColumnBits);

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
// Without the table: what a block of compute capability 8.6, 8.9 or 12.0 can have.
static_assert(TurnedLayout::table(1024) <= 99 * 1024);

// Sums of eight rows and sixteen columns. A word holds the products of two rows; sums of whole
// words and of their upper halves give both, modulo 2^32: at most four instructions for two words.
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

    // Eight of the thread's columns at two k's: `indices` are their bytes, in the order in which
    // the thread takes the k's, `lines` where it reads.
    template <int begin>
    __device__ __forceinline__ void add(const Pack<uint32_t, 2> (&indices)[2],
                                        const unsigned char* const (&lines)[2]) {
#pragma unroll
        for (int c = begin; c < begin + 8; ++c) {
            Pack<uint32_t, 4> products[2];
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const uint32_t b = (indices[i].element[c % 8 / 4] >> (c % 4 * 8)) & 0xff;
                products[i] = *reinterpret_cast<const Pack<uint32_t, 4>*>(
                    lines[i] + b * static_cast<uint32_t>(sizeof(TurnedLine)));
            }
#pragma unroll
            for (int w = 0; w < 4; ++w) {
                const uint32_t first = products[0].element[w];
                const uint32_t second = products[1].element[w];
                word[c][w] += first + second;
                upper[c][w] += first >> 16;
                upper[c][w] += second >> 16;
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
          columns_(turned_columns(threads_)),
          column_bits_(threads_ == kTurnedThreads ? kMostColumnBits : kMostColumnBits - 1) {}

    // A chunk comes in parts, one while each pair of the chunk before it is added: some words of
    // the right operand for each thread, and with the first part the left operand.
    static constexpr int kWords = 2;
    struct Part {
        uint32_t right[kWords], left;
    };
    __device__ __forceinline__ Part fetch(int part, int64_t k) const {
        Part words{};
#pragma unroll
        for (int i = 0; i < kWords; ++i)
            words.right[i] = fetch(right_, column_, column_bits_, thread_ + word(part, i), k);
        if (holds_left(part)) words.left = fetch(left_, row_, kTurnedRowBits, thread_, k);
        return words;
    }
    __device__ __forceinline__ void stage(int part, int buffer, const Part& words) const {
#pragma unroll
        for (int i = 0; i < kWords; ++i)
            stage(right_, right(buffer), column_bits_, thread_ + word(part, i), words.right[i]);
        if (holds_left(part)) stage(left_, left(buffer), kTurnedRowBits, thread_, words.left);
    }

    // Turns the table for two k's, the pair-th of a chunk in `buffer`.
    __device__ __forceinline__ void turn(int pair, int buffer, int64_t k) const {
        const int lane = thread_ % 32;
        const int which = lane % 8 / kRowGroups;
        const int group = lane % kRowGroups;
        const bool present = k + which < depth_;
        const auto rows =
            *reinterpret_cast<const Rows*>(left(buffer) + (2 * pair + which) * kTurnedRows +
                                           staged_place(group * kThreadRows, 2 * pair));
        auto* const lines = reinterpret_cast<TurnedLine*>(turned(pair % 2));
        // Sixteen threads read eight bytes of every bank, whatever rows they read them from, and
        // eight write sixteen.
        for (int task = thread_ / 16; task < 32; task += threads_ / 16) {
            const int place = 2 * (lane % 8) + lane / 8 % 2 + 2 * (task % 8);
            const int b = 4 * (task / 8 * 16 + place % 16);
            Entries entries = {};
            if (present && table_ == nullptr) {
                const unsigned char* const table = shared_ + TurnedLayout::table(columns_);
                read_entries(reinterpret_cast<const uint16_t*>(table), rows, b, entries);
            } else if (present) {
                read_entries(table_, rows, b, entries);
            }
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                Pack<uint32_t, 4> line;
#pragma unroll
                for (int w = 0; w < 4; ++w) {
                    const uint32_t first = entries.row[2 * w].element[i / 2];
                    const uint32_t second = entries.row[2 * w + 1].element[i / 2];
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
        const auto& line = *reinterpret_cast<const TurnedLine*>(turned(pair % 2));
        const unsigned char* const places[2] = {
            reinterpret_cast<const unsigned char*>(&line.group[which][group]),
            reinterpret_cast<const unsigned char*>(&line.group[1 - which][group])};
        const auto* const first = right(buffer) + (2 * pair + which) * columns_;
        const auto* const second = right(buffer) + (2 * pair + 1 - which) * columns_;
        const auto indices = [&](const unsigned char* staged, int column) {
            return *reinterpret_cast<const Pack<uint32_t, 2>*>(
                staged + staged_place(first_column() + column, 2 * pair));
        };
        sums.template add<0>({indices(first, 0), indices(second, 0)}, places);
        sums.template add<8>({indices(first, 8), indices(second, 8)}, places);
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
    __device__ __forceinline__ int word(int part, int i) const {
        return (kWords * part + i) * threads_;
    }
    // Where a word of a chunk of 2^bits lines has its first element: the words are four k's of a
    // line each, or four lines at one k.
    struct Corner {
        int line, k;
    };
    __device__ __forceinline__ static Corner corner(const ByteLines& lines, int bits, int word) {
        const bool along_depth = lines.runs_along_depth();
        const int run_bits = along_depth ? kChunkBits - 2 : bits - 2;
        const int quotient = word >> run_bits;
        const int rest = 4 * (word - (quotient << run_bits));
        return along_depth ? Corner{quotient, rest} : Corner{rest, quotient};
    }
    __device__ __forceinline__ static uint32_t fetch(const ByteLines& lines, int64_t first,
                                                     int bits, int word, int64_t k) {
        const Corner at = corner(lines, bits, word);
        return lines.word(lines.runs_along_depth(), first + at.line, k + at.k);
    }
    __device__ __forceinline__ static void stage(const ByteLines& lines, unsigned char* target,
                                                 int bits, int word, uint32_t elements) {
        const Corner at = corner(lines, bits, word);
        target += (at.k << bits) + staged_place(at.line, at.k);
        if (lines.runs_along_depth()) {
#pragma unroll
            for (int i = 0; i < 4; ++i)
                target[i << bits] = static_cast<unsigned char>(elements >> (8 * i));
        } else {
            *reinterpret_cast<uint32_t*>(target) = elements;
        }
    }

    using Rows = Pack<uint8_t, kThreadRows>;
    struct Entries {
        Pack<uint32_t, 2> row[kThreadRows];  // four of each
    };
    __device__ __forceinline__ static void read_entries(const uint16_t* table, const Rows& rows,
                                                        int b, Entries& entries) {
#pragma unroll
        for (int i = 0; i < kThreadRows; ++i) {
            entries.row[i] = *reinterpret_cast<const Pack<uint32_t, 2>*>(
                table + (kTableSide * int{rows.element[i]} + b));
        }
    }

    unsigned char* shared_;
    const uint16_t* table_;  // null where it lies in shared memory
    ByteLines left_, right_;
    int64_t row_, column_;
    int64_t depth_;
    int thread_, threads_, columns_, column_bits_;
};

// The products of k in [begin, end); `begin` starts a chunk.
__device__ __forceinline__ void run_turned(const TurnedTile& tile, int64_t begin, int64_t end,
                                           TurnedSums& sums) {
    sums.clear();
#pragma unroll 1
    for (int part = 0; part < kPairs; ++part) tile.stage(part, 0, tile.fetch(part, begin));
    __syncthreads();
    tile.turn(0, 0, begin);
    __syncthreads();
    int buffer = 0;
#pragma unroll 1
    for (int64_t chunk = begin; chunk < end; chunk += kChunk) {
        // While a pair is added the next one is turned, and a part of the next chunk is on its way.
        const bool fetching = chunk + kChunk < end;
        const int pairs = fetching ? kPairs : static_cast<int>(end - chunk + 1) / 2;
#pragma unroll 1
        for (int pair = 0; pair < pairs; ++pair) {
            TurnedTile::Part words{};
            if (fetching) words = tile.fetch(pair, chunk + kChunk);
            const bool is_last = pair == kPairs - 1;
            const int next = is_last ? 0 : pair + 1;
            if (fetching || pair + 1 < pairs)
                tile.turn(next, is_last ? 1 - buffer : buffer, chunk + 2 * (pair + 1));
            tile.add(pair, buffer, sums);
            if (fetching) tile.stage(pair, 1 - buffer, words);
            __syncthreads();
        }
        buffer = 1 - buffer;
    }
}

// The table comes from shared memory, or, where that is too small, by way of the first cache.
__global__ void __launch_bounds__(kTurnedThreads)
    turned_kernel(LookupProblem p, TurnedWork work, const uint16_t* table, bool is_table_shared,
                  uint32_t product_offset) {
    auto* const shared = dynamic_shared<unsigned char>();
    const int columns = turned_columns(static_cast<int>(blockDim.x));
    if (is_table_shared) {
        copy_table(table, reinterpret_cast<uint16_t*>(shared + TurnedLayout::table(columns)));
        table = nullptr;
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
        const int64_t begin = first * kChunk;
        const int64_t end = begin + count * kChunk < p.depth ? begin + count * kChunk : p.depth;
        run_turned(tile, begin, end, sums);
        tile.put(sums, p, p.out + places.out, product_offset * static_cast<uint32_t>(end - begin),
                 count == work.chunks);
        unit += count;
    }
}

}  // namespace slipstick::cuda::mitchell
