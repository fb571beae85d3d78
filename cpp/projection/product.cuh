// A dense array times a random matrix that each block generates, piece by piece, in its shared
// memory: tiles of rows x columns of the result, the depth in steps of 8, and the CPU's order of
// sums: chains of 256 by global index, added in order; signs by groups of four.
//
// Arithmetic: a product is one fma in all kinds. Of signs, with relative signs r = s_0 s_i,
//   ((s_0 x_0 + s_1 x_1) + s_2 x_2) + s_3 x_3 = s_0 (((x_0 + r_1 x_1) + r_2 x_2) + r_3 x_3)
// rounds alike on both sides, since rounding is symmetric: four fma with the last one that adds to
// the chain. At 8 x 8 sums a thread, four depths take 256 fma and 16 loads of 16 bytes from shared
// memory, which has time for 64.
//
// Generation, for a tile of 256 rows and 64 columns: a word of a Gaussian entry takes about 57
// instructions (12 of Philox, 45 of the law), which are spread over the 256 fma of its column: 22 %
// more. Of signs a thread makes one Philox block in 256 depths, and unpacks 4 entries in 12
// instructions: 3 %.
//
// Memory: x is read once for 64 columns (from the second cache for more), 8 bytes of it a clock and
// multiprocessor at the peak of fma, of 24 that the cache gives. With few columns the floor is
// reading x: 0.27 clocks an element at 3.35 TB/s, where a tile of 16 columns takes 0.13, one of 32
// takes 0.25 and one of 64 twice as long.
#pragma once

#include "core/chain.hpp"
#include "core/launch.cuh"
#include "core/ptx.cuh"
#include "projection/cuda.hpp"
#include "projection/entry.hpp"
#include "projection/rows.cuh"

namespace slipstick::cuda::projection {

using slipstick::projection::gaussian_from_bits;
using slipstick::projection::kGaussianTag;
using slipstick::projection::kRademacherTag;
using slipstick::projection::kSignGroup;
using slipstick::projection::kSparseTag;
using slipstick::projection::ScalarOps;
using slipstick::projection::sign_of_bit;
using slipstick::projection::sparse_from_bits;
using slipstick::projection::words_of;

struct ProductProblem {
    Law law;
    bool adjoint;  // the depth counts components, and columns are features
    const void* x;
    Dtype dtype;
    int64_t x_stride;  // of the depth
    Rows x_rows;
    bool in_pieces;  // rows can be copied in aligned pieces of 16 bytes
    int64_t depth;
    uint64_t first_depth;   // the global index of x's column 0
    uint64_t first_column;  // and of the result's
    int64_t columns;
    // The chains of this launch, a slice of them to a block.
    int64_t first_chain, chains, slice_chains;
    // Where slices of one chain put it, [slice][row][column]; null where the sums are complete.
    void* slices;
    // Of uint8: the signs of the sums, eight columns to a byte that lie side by side.
    ScaledTarget out;
};

// Threads: 32 along the rows times 8 along the columns.
template <class SumType, int row_sums, int column_sums>
struct Tile {
    using Sum = SumType;
    static constexpr int kRowSums = row_sums;
    static constexpr int kColumnSums = column_sums;
    static constexpr int kThreads = 256;
    static constexpr int kRows = 32 * row_sums;
    static constexpr int kColumns = 8 * column_sums;
    static constexpr int kStep = 8;
    // Depths whose entries are made at once: so many that every thread has a block of words.
    static constexpr int kBatch = sizeof(Sum) == sizeof(float) ? 16 : 8;
    // Rows of x in shared memory, so far apart that 8 threads read 8 of them at a time.
    static constexpr int kPitch = kStep + 16 / static_cast<int>(sizeof(Sum));
    // Columns of a thread lie side by side, and those of the next one in other banks.
    static constexpr int kGroupPitch = 8 * (4 * column_sums + 4);
    static constexpr int kThreadsOfRow = kThreads / kRows;
    static constexpr int kElements = kStep / kThreadsOfRow;  // of x that a thread brings

    struct alignas(16) Memory {
        Sum x[2][kRows * kPitch];
        Sum entries[2][kBatch / 4 * kGroupPitch];
        Sum totals[row_sums * column_sums][kThreads];
        uint32_t words[512];  // of the signs of one chain
    };

    __device__ __forceinline__ static int thread_row() {
        return static_cast<int>(threadIdx.x / 32 % 4 * 8 + threadIdx.x % 8);
    }
    __device__ __forceinline__ static int thread_column() {
        return static_cast<int>(threadIdx.x / 128 * 4 + threadIdx.x % 32 / 8);
    }
    // Of the entries of four depths and a column, within a group's.
    __device__ __forceinline__ static int place_of(int column) {
        return 4 * column + column / column_sums * 4;
    }
};

// Where a block is: depths count from the start of the chain that holds column 0 of x.
struct Walk {
    int64_t origin;  // of column 0
    int64_t end;
    int64_t chain_begin, chain_end;

    // The chain that depth `at`, its first one here, belongs to.
    __device__ __forceinline__ void enter(int64_t at) {
        chain_begin = at;
        const int64_t next = (at / kDepthBlock + 1) * kDepthBlock;
        chain_end = next < end ? next : end;
    }
};

// --- x ---

template <class T>
__device__ __forceinline__ void load_x(const ProductProblem& p, const Walk& walk, int64_t offset,
                                       bool row_exists, int64_t at, typename T::Sum* x) {
    using Sum = typename T::Sum;
    constexpr int piece = 16 / static_cast<int>(sizeof(Sum));
    constexpr int copied = T::kElements < piece ? piece : T::kElements;
    const int first = static_cast<int>(threadIdx.x % T::kThreadsOfRow) * T::kElements;
    const int64_t from = at - walk.origin + first;  // the column of x
    Sum* const target = x + threadIdx.x / T::kThreadsOfRow * T::kPitch + first;
    if (p.in_pieces && from - first % copied + copied <= p.depth) {
        const auto* const source = static_cast<const Sum*>(p.x) + offset + from;
        if (first % copied != 0) return;  // a neighbour's piece
#pragma unroll
        for (int e = 0; e < copied; e += piece)
            copy_async(target + e, row_exists ? source + e : p.x, row_exists);
        return;
    }
    const int64_t place = offset + from * p.x_stride;
    if (sizeof(Sum) == sizeof(float) && p.dtype != Dtype::kFloat32 && p.x_stride == 1 &&
        T::kElements == 8 && row_exists && from >= 0 && from + 8 <= p.depth &&
        (reinterpret_cast<uintptr_t>(p.x) + 2 * static_cast<uintptr_t>(place)) % 16 == 0) {
        const auto held =
            *reinterpret_cast<const Pack<uint16_t, 8>*>(static_cast<const uint16_t*>(p.x) + place);
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            target[e] = p.dtype == Dtype::kFloat16 ? to_float(Float16{held.element[e]})
                                                   : to_float(BFloat16{held.element[e]});
        }
        return;
    }
    // Two elements on their way at a time: more addresses would push sums out of registers.
#pragma unroll 2
    for (int e = 0; e < T::kElements; ++e) {
        const bool exists = row_exists && from + e >= 0 && from + e < p.depth;
        target[e] = exists ? load_number<Sum>(p.x, p.dtype, place + e * p.x_stride) : Sum{0};
    }
}

// --- The matrix ---

// The words of the signs of a chain: of depth f of the chain and word w of the tile's columns at
// 2 f + w, or, of the adjoint, of column c and word w of the chain's depths at 8 c + w.
template <class T>
__device__ __forceinline__ void make_words(const ProductProblem& p, const Walk& walk,
                                           uint64_t chain_depth, int64_t column, uint32_t* words) {
    const int first = static_cast<int>(walk.chain_begin % kDepthBlock);
    const auto last = static_cast<int>(walk.chain_end - 1 - walk.chain_begin) + first;
    if (!p.adjoint) {
        const auto f = static_cast<int>(threadIdx.x);
        if (f < first || f > last) return;
        const auto component = static_cast<uint64_t>(column);
        const PhiloxWords made = words_of(p.law.seed, kRademacherTag, component / 128,
                                          chain_depth + static_cast<uint64_t>(f));
        const bool upper = component / 64 % 2 != 0;
        const uint32_t low = upper ? made.word[2] : made.word[0];
        const uint32_t high = upper ? made.word[3] : made.word[1];
        words[2 * f] = T::kColumns < 64 && component / 32 % 2 != 0 ? high : low;
        words[2 * f + 1] = high;
        return;
    }
    for (int n = static_cast<int>(threadIdx.x); n < 2 * T::kColumns; n += T::kThreads) {
        const int c = n / 2;
        const int half = n % 2 * 128;
        if (half > last) continue;
        const PhiloxWords made =
            words_of(p.law.seed, kRademacherTag, (chain_depth + static_cast<uint64_t>(half)) / 128,
                     p.first_column + static_cast<uint64_t>(column + c));
#pragma unroll
        for (int w = 0; w < 4; ++w) words[8 * c + half / 32 + w] = made.word[w];
    }
}

// The entries of kBatch depths from `f` of the chain on; of signs s_0, s_0 s_1, s_0 s_2, s_0 s_3.
template <class T, bool signs>
__device__ __forceinline__ void make_entries(const ProductProblem& p, uint64_t chain_depth, int f,
                                             int64_t column, const uint32_t* words,
                                             typename T::Sum* entries) {
    using Sum = typename T::Sum;
    constexpr int groups = T::kBatch / 4;
    if constexpr (signs) {
        for (int n = static_cast<int>(threadIdx.x); n < groups * T::kColumns; n += T::kThreads) {
            const int c = n % T::kColumns;
            const int depth = f + n / T::kColumns * 4;
            if (depth >= kDepthBlock) continue;
            uint32_t sign[4];
            if (p.adjoint) {
                const uint32_t word = words[8 * c + depth / 32] >> depth % 32;
#pragma unroll
                for (int i = 0; i < 4; ++i) sign[i] = word >> i;
            } else {
                const uint32_t bit = static_cast<uint32_t>(column + c) % 32;
#pragma unroll
                for (int i = 0; i < 4; ++i) sign[i] = words[2 * (depth + i) + c / 32] >> bit;
            }
            Sum* const target = entries + n / T::kColumns * T::kGroupPitch + T::place_of(c);
            target[0] = sign_of_bit(sign[0] & 1, 0);
#pragma unroll
            for (int i = 1; i < 4; ++i) target[i] = sign_of_bit((sign[0] ^ sign[i]) & 1, 0);
        }
    } else {
        const bool gaussian = p.law.kind == Kind::kGaussian;
        const uint32_t tag = gaussian ? kGaussianTag : kSparseTag;
        for (int n = static_cast<int>(threadIdx.x); n < groups * T::kColumns; n += T::kThreads) {
            // A block of words is four components of one feature: columns of the result side by
            // side, or depths of the adjoint.
            const int c = p.adjoint ? n % T::kColumns : n / T::kBatch * 4;
            const int d = p.adjoint ? n / T::kColumns * 4 : n % T::kBatch;
            const uint64_t depth = chain_depth + static_cast<uint64_t>(f + d);
            const auto of_column = static_cast<uint64_t>(column + c);
            const PhiloxWords made =
                p.adjoint ? words_of(p.law.seed, tag, depth / 4, p.first_column + of_column)
                          : words_of(p.law.seed, tag, of_column / 4, depth);
            Sum* const target = entries + d / 4 * T::kGroupPitch + T::place_of(c) + d % 4;
#pragma unroll
            for (int w = 0; w < 4; ++w) {
                const float entry = gaussian ? gaussian_from_bits<ScalarOps>(made.word[w])
                                             : sparse_from_bits(made.word[w], p.law.threshold);
                const int step = p.adjoint ? w : T::place_of(c + w) - T::place_of(c);
                target[step] = entry;
            }
        }
    }
}

// --- Sums ---

__device__ __forceinline__ float fused(float a, float b, float c) {
    return __builtin_fmaf(a, b, c);
}
__device__ __forceinline__ double fused(double a, double b, double c) {
    return __builtin_fma(a, b, c);
}

template <class Sum>
__device__ __forceinline__ void load_four(const Sum* source, Sum (&four)[4]) {
    constexpr int count = 16 / static_cast<int>(sizeof(Sum));
#pragma unroll
    for (int i = 0; i < 4; i += count) {
        const auto pack = *reinterpret_cast<const Pack<Sum, count>*>(source + i);
#pragma unroll
        for (int n = 0; n < count; ++n) four[i + n] = pack.element[n];
    }
}

// Adds four depths to the chains, or, where they are not signs, `count` of them.
template <class T, bool signs>
__device__ __forceinline__ void add_group(typename T::Sum (&chain)[T::kRowSums][T::kColumnSums],
                                          const typename T::Sum* x, const typename T::Sum* entries,
                                          int count) {
    using Sum = typename T::Sum;
    if (!signs && count < 4) {
#pragma unroll 1
        for (int f = 0; f < count; ++f) {
#pragma unroll
            for (int i = 0; i < T::kRowSums; ++i) {
#pragma unroll
                for (int c = 0; c < T::kColumnSums; ++c)
                    chain[i][c] = fused(x[32 * i * T::kPitch + f], entries[4 * c + f], chain[i][c]);
            }
        }
        return;
    }
    Sum number[T::kRowSums][4];
#pragma unroll
    for (int i = 0; i < T::kRowSums; ++i) load_four(x + 32 * i * T::kPitch, number[i]);
#pragma unroll
    for (int c = 0; c < T::kColumnSums; ++c) {
        Sum entry[4];
        load_four(entries + 4 * c, entry);
#pragma unroll
        for (int i = 0; i < T::kRowSums; ++i) {
            if constexpr (signs) {
                Sum sum = number[i][0];
#pragma unroll
                for (int f = 1; f < 4; ++f) sum = fused(entry[f], number[i][f], sum);
                chain[i][c] = fused(entry[0], sum, chain[i][c]);
            } else {
#pragma unroll
                for (int f = 0; f < 4; ++f)
                    chain[i][c] = fused(number[i][f], entry[f], chain[i][c]);
            }
        }
    }
}

template <class T, bool signs>
__device__ __forceinline__ void multiply_tile(const ProductProblem& p, typename T::Memory& memory,
                                              int64_t row, int64_t column, int64_t slice) {
    using Sum = typename T::Sum;
    constexpr int64_t group = signs ? kSignGroup : 1;
    Walk walk;
    walk.origin = static_cast<int64_t>(p.first_depth % kDepthBlock);
    const int64_t first_chain = p.first_chain + slice * p.slice_chains;
    const int64_t last_chain = first_chain + p.slice_chains;
    const int64_t end_of_all = (walk.origin + p.depth + group - 1) / group * group;
    const int64_t begin = first_chain * kDepthBlock > walk.origin ? first_chain * kDepthBlock
                                                                  : walk.origin / group * group;
    walk.end = last_chain * kDepthBlock < end_of_all ? last_chain * kDepthBlock : end_of_all;
    const uint64_t zero = p.first_depth - static_cast<uint64_t>(walk.origin);

    const int64_t x_row = row + threadIdx.x / T::kThreadsOfRow;
    const bool row_exists = x_row < p.x_rows.count;
    const int64_t offset = row_exists ? offset_of(p.x_rows, x_row) : 0;
    Sum chain[T::kRowSums][T::kColumnSums] = {};

    // Brings what step `step` needs, while the one before it is computed.
    const auto chain_depth = [&] {
        return zero + static_cast<uint64_t>(walk.chain_begin / kDepthBlock * kDepthBlock);
    };
    int batch = 0;
    const auto prepare = [&](int64_t at, int step) {
        load_x<T>(p, walk, offset, row_exists, at, memory.x[step % 2]);
        commit_copies();
        if ((at - walk.chain_begin) % T::kBatch != 0) return;
        if (signs && at == walk.chain_begin) {
            make_words<T>(p, walk, chain_depth(), column, memory.words);
            __syncthreads();
        }
        make_entries<T, signs>(p, chain_depth(), static_cast<int>(at % kDepthBlock), column,
                               memory.words, memory.entries[batch % 2]);
        ++batch;
    };
    walk.enter(begin);
    prepare(begin, 0);
    bool first = true;
    int64_t chain_begin = walk.chain_begin, chain_end = walk.chain_end;
    int current = 0;  // the batch that is being added
    int step = 0;
#pragma unroll 1
    for (int64_t at = begin; at < walk.end; ++step) {
        wait_for_copies<0>();
        __syncthreads();
        const int64_t rest = chain_end - at;
        const int count = rest < T::kStep ? static_cast<int>(rest) : T::kStep;
        const int64_t next = at + count;
        if (next < walk.end) {
            if (next == chain_end) walk.enter(next);
            prepare(next, step + 1);
        }
        const Sum* const x = memory.x[step % 2] + T::thread_row() * T::kPitch;
        const auto within = static_cast<int>((at - chain_begin) % T::kBatch);
        const Sum* const entries = memory.entries[current % 2] + within / 4 * T::kGroupPitch +
                                   T::thread_column() * (4 * T::kColumnSums + 4);
#pragma unroll
        for (int f = 0; f < T::kStep; f += 4) {
            if (f < count)
                add_group<T, signs>(chain, x + f, entries + f / 4 * T::kGroupPitch, count - f);
        }
        if (within + count >= T::kBatch || next == chain_end) ++current;
        if (next == chain_end) {
#pragma unroll
            for (int i = 0; i < T::kRowSums; ++i) {
#pragma unroll
                for (int c = 0; c < T::kColumnSums; ++c) {
                    Sum& total = memory.totals[i * T::kColumnSums + c][threadIdx.x];
                    total = first ? chain[i][c] : total + chain[i][c];
                    chain[i][c] = 0;
                }
            }
            first = false;
            chain_begin = walk.chain_begin;
            chain_end = walk.chain_end;
        }
        at = next;
    }

#pragma unroll 1
    for (int i = 0; i < T::kRowSums; ++i) {
        const int64_t out_row = row + 32 * i + T::thread_row();
        if (out_row >= p.x_rows.count) break;
        const int64_t from = column + T::thread_column() * T::kColumnSums;
        const int64_t line = p.slices != nullptr ? 0 : offset_of(p.out.rows, out_row);
        unsigned byte = 0;
#pragma unroll
        for (int c = 0; c < T::kColumnSums; ++c) {
            if (from + c >= p.columns) break;
            const Sum total = memory.totals[i * T::kColumnSums + c][threadIdx.x];
            if (p.slices != nullptr) {
                static_cast<Sum*>(
                    p.slices)[(slice * p.x_rows.count + out_row) * p.columns + from + c] = total;
            } else if (p.out.dtype == Dtype::kUInt8) {
                byte |= static_cast<unsigned>(total >= Sum{0}) << c;
            } else {
                p.out.store(line + (from + c) * p.out.column_stride, total);
            }
        }
        if (p.slices == nullptr && p.out.dtype == Dtype::kUInt8 && from < p.columns)
            static_cast<uint8_t*>(p.out.data)[line + from / 8] = static_cast<uint8_t>(byte);
    }
    __syncthreads();
}

// Blocks run over the tiles, neighbouring columns first, so that they find x in the second cache.
template <class T, bool signs>
__global__ void __launch_bounds__(T::kThreads, 2) product_kernel(ProductProblem p) {
    auto& memory = *dynamic_shared<typename T::Memory>();
    const int64_t across = (p.columns + T::kColumns - 1) / T::kColumns;
    const int64_t down = (p.x_rows.count + T::kRows - 1) / T::kRows;
    const int64_t slices = (p.chains + p.slice_chains - 1) / p.slice_chains;
    for (int64_t n = blockIdx.x; n < across * down * slices; n += gridDim.x) {
        const int64_t tile_row = n / across;
        const int64_t slice = tile_row / down;
        multiply_tile<T, signs>(p, memory, (tile_row - slice * down) * T::kRows,
                                (n - tile_row * across) * T::kColumns, slice);
    }
}

template <class T>
void launch_product(const Context& context, const char* function, const ProductProblem& problem) {
    // What a block of compute capability 8.6, 8.9 or 12.0 can have.
    static_assert(sizeof(typename T::Memory) <= 99 * 1024);
    const int64_t tiles = ceil_div(problem.columns, T::kColumns) *
                          ceil_div(problem.x_rows.count, T::kRows) *
                          ceil_div(problem.chains, problem.slice_chains);
    constexpr int64_t kMostBlocks = int64_t{1} << 30;
    const dim3 grid(static_cast<unsigned>(tiles < kMostBlocks ? tiles : kMostBlocks));
    const bool signs = problem.law.kind == Kind::kRademacher;
    launch(context, function, signs ? product_kernel<T, true> : product_kernel<T, false>, grid,
           T::kThreads, sizeof(typename T::Memory), problem);
}

}  // namespace slipstick::cuda::projection
