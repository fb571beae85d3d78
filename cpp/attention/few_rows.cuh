// Attention of a few rows a key head on a device, as in decoding: what the kernels on tensor cores
// and those without have in common.
//
// Reading keys and values is nearly all that it takes, so each is read once for all rows of a tile,
// and many bytes are on their way at any time. A device of 132 multiprocessors that brings 3350
// bytes a nanosecond, 700 ns after they were asked for, wants 18 KB on their way to each of them.
// Every warp has its own keys, 16 at a time, and its own ring of tiles in shared memory: while it
// works on one of kSlots tiles (keys, their values, the next keys, ...), the others are on their
// way. No barrier is met before the warp's last key.
//
// The keys of a sequence are cut into parts by their number alone. A part leaves (m, l, a, out) in
// scratch memory, and combine.cu puts the parts together; a single part writes the result. Within
// a part step s (keys 16 s to 16 s + 15) is warp s % kWarps's, and the warps' states are put
// together in their order: so a row's bits depend neither on the batch, nor on the rows beside it,
// nor on how many blocks there are.
#pragma once

#include <algorithm>
#include <cmath>

#include "attention/few_rows_parts.cuh"
#include "core/launch.cuh"
#include "core/ptx.cuh"

namespace slipstick::cuda::attention {

inline constexpr int kStepKeys = 16;

// --- A block ---

template <class Acc>
struct RowInfo {
    Acc factor;  // lambda
    int first;   // the row sees keys first <= j < last that its mask shows
    int last;
    int head;
    int query;
};

// What the rows of a tile see: some row the keys from first to last, each row those from all_first
// to all_last.
struct Seen {
    int first;
    int last;
    int all_first;
    int all_last;
};

// For up to 32 rows; each warp finds it by itself, before it knows more of the rows.
__device__ __forceinline__ Seen seen_by(const Problem& problem, const Work& work, int rows) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    Seen seen{std::numeric_limits<int>::max(), 0, 0, std::numeric_limits<int>::max()};
    if (lane < rows) {
        const KeyRange range =
            range_of(problem, work.sequence, (work.first_row + lane) / problem.group);
        seen.all_first = static_cast<int>(range.first);
        seen.all_last = static_cast<int>(range.last);
        if (range.last > 0) {
            seen.first = seen.all_first;
            seen.last = seen.all_last;
        }
    }
#pragma unroll
    for (int distance = 1; distance < kWarp; distance *= 2) {
        seen.first = std::min(seen.first, shuffle_xor(seen.first, distance));
        seen.last = std::max(seen.last, shuffle_xor(seen.last, distance));
        seen.all_first = std::max(seen.all_first, shuffle_xor(seen.all_first, distance));
        seen.all_last = std::min(seen.all_last, shuffle_xor(seen.all_last, distance));
    }
    return seen;
}

// How the keys or values of a tile come to it.
template <class T>
struct Lines {
    const T* first;  // of key 0
    int64_t step;    // from key to key
    int64_t column_step;
    int columns;
    bool aligned;  // lines can be copied 16 bytes at a time
};

template <class T>
bool has_aligned_lines(const Operand& operand, int64_t columns) {
    constexpr int64_t vector = 16 / sizeof(T);
    return columns % vector == 0 && operand.column == 1 &&
           reinterpret_cast<uintptr_t>(operand.data) % 16 == 0 && operand.batch % vector == 0 &&
           operand.head % vector == 0 && operand.row % vector == 0;
}

template <class T>
__device__ __forceinline__ Lines<T> lines_of(const Operand& operand, int columns, bool aligned,
                                             const Work& work) {
    return {operand.at<const T>(work.sequence.batch, work.kv_head, work.sequence.first_key),
            operand.row, operand.column, columns, aligned};
}

// Brings the lines of the step from `key` on, 16 bytes to where place(line, column) says: zeros for
// keys that no row sees, and from the last column up to a multiple of `whole`. A warp calls it;
// copies are under way when it returns. Unrolled further it would take registers that `out` wants.
template <int kDim, int whole, class T, class Place>
__device__ __forceinline__ void load_lines(const Lines<T>& lines, int key, const Seen& seen,
                                           const Place& place) {
    constexpr int vector = 16 / static_cast<int>(sizeof(T));
    constexpr int pieces = kDim / vector;
    const int width = (lines.columns + whole - 1) / whole * whole;
#pragma unroll 2
    for (int at = static_cast<int>(threadIdx.x) % kWarp; at < kStepKeys * pieces; at += kWarp) {
        const int line = at / pieces;
        const int column = at % pieces * vector;
        if (column >= width) continue;
        const bool shown = key + line >= seen.first && key + line < seen.last;
        const T* const source = lines.first + (key + line) * lines.step;
        T* const target = place(line, column);
        if (lines.aligned) {
            const bool valid = shown && column < lines.columns;
            copy_async(target, valid ? source + column : lines.first, valid);
            continue;
        }
#pragma unroll
        for (int e = 0; e < vector; ++e) {
            target[e] = shown && column + e < lines.columns
                            ? source[(column + e) * lines.column_step]
                            : T{};
        }
    }
}

// Where column `column` of a row's `out` lies while warps give it to the block: lanes of tensor
// cores hold pairs of columns of four rows at a time, which thus come to different banks.
template <int kDim>
__device__ __forceinline__ int out_at(int row, int column) {
    return row * kDim + (column ^ row % 4 * 8);
}

// What the threads of a block share. Engine is how keys turn into states; see few_rows below.
template <class Engine>
struct FewRowsShared {
    using T = typename Engine::T;
    using Acc = typename Engine::Acc;
    static constexpr int kWarps = Engine::kWarps;
    static constexpr int kRows = Engine::kRows;

    // A warp's `out` takes its tiles' place when it is done with them.
    union alignas(16) Ring {
        T tile[Engine::kSlots][Engine::kTile];
        Acc out[kRows * Engine::kDim];
    } ring[kWarps];
    alignas(16) T query[Engine::kQuery];
    alignas(16) typename Engine::Scratch scratch[kWarps];
    Work work;  // wanted now and then: registers are for `out`
    RowInfo<Acc> rows[kRows];
    RowState<Acc> state[kWarps][kRows];
    Acc weight[kWarps][kRows];
    RowState<Acc> total[kRows];
    Acc divisor[kRows];
};

template <class Acc>
__device__ __forceinline__ void put_rows(const Problem& problem, const Work& work, int rows,
                                         int count, RowInfo<Acc>* info) {
    const int r = static_cast<int>(threadIdx.x);
    if (r >= count) return;
    info[r] = {};
    if (r >= rows) return;
    const int64_t row = work.first_row + r;
    const int64_t head = work.kv_head * problem.group + row % problem.group;
    const int64_t query = row / problem.group;
    const KeyRange range = range_of(problem, work.sequence, query);
    info[r] = {factor_of<Acc>(problem, work.sequence, work.number, head, query),
               static_cast<int>(range.first), static_cast<int>(range.last), static_cast<int>(head),
               static_cast<int>(query)};
}

// The warps' states together, into scratch memory or, where there is but one part, as results.
template <class Engine>
__device__ __forceinline__ void finish_part(const Problem& problem, int rows,
                                            const Parts<typename Engine::Acc>& parts, int64_t part,
                                            bool alone, FewRowsShared<Engine>& shared) {
    const Work& work = shared.work;
    using Acc = typename Engine::Acc;
    const int64_t first_state = parts.at(problem, work, part) + work.first_row;
    const int thread = static_cast<int>(threadIdx.x);
    if (thread < rows) {
        RowState<Acc> total{-kInfinity<Acc>, 0, 0};
        for (int warp = 0; warp < Engine::kWarps; ++warp)
            total.maximum = larger(total.maximum, shared.state[warp][thread].maximum);
        for (int warp = 0; warp < Engine::kWarps; ++warp)
            shared.weight[warp][thread] = add_state(shared.state[warp][thread], total);
        if (alone) {
            shared.divisor[thread] = finish_state(problem, work, work.first_row + thread, total);
        } else {
            parts.state[first_state + thread] = total;
        }
    }
    __syncthreads();
    const int lane = thread % kWarp;
    for (int r = thread / kWarp; r < rows; r += Engine::kWarps) {
        const RowInfo<Acc>& info = shared.rows[r];
        auto* const out = problem.out.at<typename Engine::T>(
            work.sequence.batch, info.head, work.sequence.first_query + info.query);
        Acc* const state_out = parts.out + (first_state + r) * problem.dim_v;
        for (int column = lane; column < problem.dim_v; column += kWarp) {
            Acc sum = 0;
#pragma unroll
            for (int warp = 0; warp < Engine::kWarps; ++warp) {
                const Acc weight = shared.weight[warp][r];
                if (!(weight < 0))
                    sum += weight * shared.ring[warp].out[out_at<Engine::kDim>(r, column)];
            }
            if (alone) {
                out[column * problem.out.column] =
                    rounded<typename Engine::T>(sum / shared.divisor[r]);
            } else {
                state_out[column] = sum;
            }
        }
    }
}

// The rows' queries, zeros beyond their columns and for rows beyond the last: element `column` of
// row r goes to where place(r, column) says. All threads of a block call it.
template <int kRows, int kDim, int kWarps, class T, class Place>
__device__ __forceinline__ void load_queries(const Problem& problem, const Work& work, int rows,
                                             const Place& place) {
    for (int r = static_cast<int>(threadIdx.x) / kWarp; r < kRows; r += kWarps) {
        const int64_t row = work.first_row + r;
        const T* const source = problem.query.at<const T>(
            work.sequence.batch, work.kv_head * problem.group + row % problem.group,
            work.sequence.first_query + row / problem.group);
#pragma unroll 2
        for (int i = 0; i < kDim; i += kWarp) {
            const int column = i + static_cast<int>(threadIdx.x) % kWarp;
            const bool valid = r < rows && column < problem.dim;
            *place(r, column) = valid ? source[column * problem.query.column] : T{};
        }
    }
}

// Engine has
//   T, Acc            the type of the operands, and of scores and sums
//   kDim              columns of keys and values at most
//   kRows             rows of a tile, a divisor of kFewRows
//   kWarps, kSlots    of a block; tiles of a warp's ring, 2 at least
//   kTile, kQuery     elements of a tile of kStepKeys keys, of the queries
//   Scratch           shared memory of a warp
// and for a warp
//   load_keys(tile, key), load_values(tile, key)   begin copies of the step from `key` on: zeros
//                     for keys beyond first and last
//   put_queries(work) all threads: queries to shared memory
//   reset()           no key has been seen
//   score(tile, key)  scores and weights of a step
//   add(tile, key)    its values
//   put_state()       to shared memory
template <class Engine>
__global__ void __launch_bounds__(Engine::kWarps* kWarp)
    few_rows(Problem problem, Parts<typename Engine::Acc> parts, bool aligned_keys,
             bool aligned_values, int part_blocks) {
    constexpr int subtiles = kFewRows / Engine::kRows;
    auto& shared = *dynamic_shared<FewRowsShared<Engine>>();
    const int64_t tile = blockIdx.x / part_blocks;
    int64_t part = blockIdx.x % part_blocks;
    Work work = few_rows_work(problem, tile / subtiles);
    work.first_row = tile % subtiles * Engine::kRows;
    const int64_t rows_left = problem.group * work.sequence.queries - work.first_row;
    const KeyParts cut = parts_of(work.sequence.length);
    if (work.none || rows_left <= 0 || part >= cut.count) return;
    const int rows = rows_left < Engine::kRows ? static_cast<int>(rows_left) : Engine::kRows;

    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    const Seen all = seen_by(problem, work, rows);
    using T = typename Engine::T;
    Engine engine(problem, rows, lines_of<T>(problem.key, problem.dim, aligned_keys, work),
                  lines_of<T>(problem.value, problem.dim_v, aligned_values, work), shared);
    bool ready = false;
    for (; part < cut.count; part += part_blocks) {
        Seen seen = all;
        seen.first = std::max(seen.first, static_cast<int>(part * cut.keys));
        seen.last = static_cast<int>(std::min(int64_t{seen.last}, (part + 1) * cut.keys));
        engine.see(seen);
        // The warp's steps: first, first + kWarps, ...
        int first = seen.first / kStepKeys;
        first += (warp - first % Engine::kWarps + Engine::kWarps) % Engine::kWarps;
        const int last = seen.first < seen.last ? (seen.last - 1) / kStepKeys : -1;
        const int steps = first > last ? 0 : (last - first) / Engine::kWarps + 1;
        const auto key_of = [&](int i) { return (first + i * Engine::kWarps) * kStepKeys; };
        auto& ring = shared.ring[warp].tile;
        // Tile 2 i holds the keys of step i, tile 2 i + 1 its values.
        const auto load = [&](int number) {
            if (number < 2 * steps) {
                auto* const slot = ring[number % Engine::kSlots];
                if (number % 2 == 0) {
                    engine.load_keys(slot, key_of(number / 2));
                } else {
                    engine.load_values(slot, key_of(number / 2));
                }
            }
            commit_copies();
        };
        // Waits for a tile; then everyone is done with the one before, whose place the next takes.
        const auto arrived = [&](int number) {
            wait_for_copies<Engine::kSlots - 2>();
            sync_warp();
            load(number + Engine::kSlots - 1);
            return ring[number % Engine::kSlots];
        };
#pragma unroll 1
        for (int number = 0; number < Engine::kSlots - 1; ++number) load(number);
        if (!ready) {
            if (threadIdx.x == 0) shared.work = work;
            put_rows(problem, work, rows, Engine::kRows, shared.rows);
            engine.put_queries(work);
            __syncthreads();
            ready = true;
        }
        engine.reset();
#pragma unroll 1
        for (int i = 0; i < steps; ++i) {
            engine.score(arrived(2 * i), key_of(i));
            engine.add(arrived(2 * i + 1), key_of(i));
        }
        sync_warp();
        engine.put_state();
        __syncthreads();
        finish_part(problem, rows, parts, part, cut.count == 1, shared);
        __syncthreads();
    }
}

template <class Engine>
void run_few_rows(const Context& context, const Problem& problem) {
    using T = typename Engine::T;
    using Acc = typename Engine::Acc;
    const int64_t tiles = problem.sequences * problem.kv_heads * (kFewRows / Engine::kRows);
    const Parts<Acc> parts = allocate_parts<Acc>(context, problem);
    // A thousand blocks fill a device; where tiles alone are more, a block takes several parts, so
    // that sequences much shorter than the longest leave few blocks without work.
    const int64_t part_blocks = std::min(parts.most, std::max<int64_t>(8, ceil_div(1024, tiles)));
    launch(context, problem.function, &few_rows<Engine>,
           dim3(static_cast<unsigned>(tiles * part_blocks)), dim3(Engine::kWarps * kWarp),
           sizeof(FewRowsShared<Engine>), problem, parts,
           has_aligned_lines<T>(problem.key, problem.dim),
           has_aligned_lines<T>(problem.value, problem.dim_v), static_cast<int>(part_blocks));
    if (parts.most > 1) combine(context, problem, parts);
}

}  // namespace slipstick::cuda::attention
