// The register-tiled kernel under every sum of products on CUDA, generic in how it multiplies
// (macs.cuh) and, at run time, in where the operands come from (tile_operands.cuh) and their dtype.
//
//   out[i][j] = sum over k of left[i][k] (x) right[k][j]
//
// The sums are the CPU's (core/tile.hpp): blocks of kDepthBlock terms, in each one chain over
// increasing k from +0, the finished chains added in order.
#pragma once

#include <algorithm>

#include "core/chain.hpp"
#include "core/launch.cuh"
#include "mitchell/batches.cuh"
#include "mitchell/macs.cuh"
#include "mitchell/tile_operands.cuh"

namespace slipstick::cuda::mitchell {

using slipstick::mitchell::Kernel;

// A thread holds `groups` x `groups` squares of 4 x 4 sums, a block of threads `down` x `across`
// threads' worth. A warp is 4 x 8 threads, where there are 4: what it reads from shared memory at
// once are 16 bytes at 4 and at 8 places.
template <int groups, int down, int across, int blocks>
struct TileShape {
    static constexpr int kGroups = groups;
    static constexpr int kThreads = down * across;
    static constexpr int kRowStep = 4 * down;  // from one square of a thread to the next
    static constexpr int kColumnStep = 4 * across;
    static constexpr int kRows = groups * kRowStep;
    static constexpr int kColumns = groups * kColumnStep;
    // Four more than whole rows of banks, so that eight lines by four terms meet no bank twice.
    static constexpr int kLeftPitch = kRows + 4;
    static constexpr int kRightPitch = kColumns + 4;
    static constexpr int kBlocks = blocks;  // on a multiprocessor, at least

    static constexpr int kWarpDown = down < 4 ? down : 4;
    static constexpr int kWarpAcross = 32 / kWarpDown;
    __device__ __forceinline__ static int thread_row() {
        const int thread = static_cast<int>(threadIdx.x);
        return thread / 32 / (across / kWarpAcross) * kWarpDown + thread % 32 / kWarpAcross;
    }
    __device__ __forceinline__ static int thread_column() {
        const int thread = static_cast<int>(threadIdx.x);
        return thread / 32 % (across / kWarpAcross) * kWarpAcross + thread % kWarpAcross;
    }
};
// 64 sums a thread: 128 instructions for 64 products of patterns, and 4 loads of 16 bytes. A step
// is 1065 instructions and 126 more for loads, lanes and the barrier (float32, sm_90). Of the
// registers 128 are left to each thread of two blocks, so the totals lie in shared memory: 64 KiB
// for each block, and 17 KiB of lanes, twice which still fits an A100 (flushed sums have 26 KiB).
using LargeTile = TileShape<2, 16, 16, 2>;
// Fills a device with small results, and costs less to compile for long products.
using SmallTile = TileShape<1, 8, 8, 8>;
// For few rows: an element of the right operand takes part in 8 products and not in 32, which the
// memory's speed leaves time for.
using ThinTile = TileShape<1, 2, 32, 6>;

// What becomes of the sums.
struct Target {
    void* data;
    Dtype dtype;
    int64_t row;  // steps in elements
    int64_t column;
    int64_t width;  // columns of a line, and the step of lines; 0 where all are one line
    int64_t line;
    double scale;
};

__device__ __forceinline__ int64_t place_in(const Target& out, int64_t row, int64_t column) {
    const int64_t place = row * out.row;
    if (out.width == 0) return place + column * out.column;
    const int64_t line = column / out.width;
    return place + line * out.line + (column - line * out.width) * out.column;
}

struct TileProblem {
    Kernel kernel;  // runs where the choice is this one
    const Choice* choices;
    int64_t choice_step;  // from one result of a batch to the next
    MacArguments mac;
    Dtype dtype;  // of the operands
    int item;     // its bytes
    int64_t rows;
    int64_t columns;
    int64_t depth;        // in terms
    int64_t slice_depth;  // terms of one slice: all, or kDepthBlock
    int64_t slice;        // the step of the result from one slice to the next
    int halved;           // 1 where an element is two terms
    Operand left;
    Operand right;
    Target out;
    bool integer_sums;
    Batches batches;
    int64_t first_batch;
};

template <class Mac, class Tile>
struct TileMemory {
    static constexpr int kLeft = Mac::kLeftWords * kStep * Tile::kLeftPitch;
    static constexpr int kRight = kStep * Tile::kRightPitch;
    uint32_t lanes[2][kLeft + kRight];
    uint32_t totals[Tile::kRows][Tile::kColumns];
    Prepared prepared;
    // What the block's threads need now and then.
    int64_t begin, end;           // the terms of its slice
    int64_t row, column, offset;  // where its sums begin
};

// Four elements that a thread holds, as what lanes are made of.
template <class Mac, class Held>
__device__ __forceinline__ void widen(const TileProblem& p, const Operand& operand,
                                      const Held& held, uint32_t* widened) {
    const auto each = [&]<class T>(auto element_of) {
        constexpr int item = sizeof(T);
#pragma unroll
        for (int i = 0; i < 4; ++i)
            widened[i] = Mac::widen(element_of(held.template element<item>(operand, i)));
    };
    switch (p.dtype) {
        case Dtype::kFloat32:
            return each.template operator()<float>(
                [](uint32_t word) { return bits::as_float(word); });
        case Dtype::kFloat16:
            return each.template operator()<Float16>(
                [](uint32_t word) { return Float16{static_cast<uint16_t>(word)}; });
        case Dtype::kBFloat16:
            return each.template operator()<BFloat16>(
                [](uint32_t word) { return BFloat16{static_cast<uint16_t>(word)}; });
        case Dtype::kInt8:
            return each.template operator()<int8_t>(
                [](uint32_t word) { return static_cast<int8_t>(static_cast<uint8_t>(word)); });
        default:
            return each.template operator()<uint8_t>(
                [](uint32_t word) { return static_cast<uint8_t>(word); });
    }
}

// Brings what the thread holds of a step into lanes.
template <class Mac, class Tile, class Left, class Right>
__device__ __forceinline__ void store_lanes(const TileProblem& p, const Prepared& prepared,
                                            Left& left, Right& right, uint32_t* shared) {
    uint32_t of_left[Left::kCount][4];
    uint32_t of_right[Right::kCount][4];
    left.for_each([&](const auto& held, int n) { widen<Mac>(p, p.left, held, of_left[n]); });
    right.for_each([&](const auto& held, int n) { widen<Mac>(p, p.right, held, of_right[n]); });
    constexpr int plane = kStep * Tile::kLeftPitch;
    const auto convert = [&]<bool changes>() {
        left.for_each([&](const auto& held, int n) {
            Pack<uint32_t, 4> lanes[Mac::kLeftWords];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const bool second = p.halved != 0 && i % 2 == 1;
                const auto lane = Mac::template left<changes>(prepared, of_left[n][i], second);
#pragma unroll
                for (int word = 0; word < Mac::kLeftWords; ++word)
                    lanes[word].element[i] = lane.word[word];
            }
#pragma unroll
            for (int word = 0; word < Mac::kLeftWords; ++word)
                held.template store<Tile::kLeftPitch>(p.left, lanes[word], shared + word * plane);
        });
        right.for_each([&](const auto& held, int n) {
            Pack<uint32_t, 4> lanes;
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const bool second = p.halved != 0 && i % 2 == 1;
                lanes.element[i] =
                    Mac::template right<changes>(prepared, of_right[n][i], second).word[0];
            }
            held.template store<Tile::kRightPitch>(p.right, lanes,
                                                   shared + Mac::kLeftWords * plane);
        });
    };
    if (prepared.left.lanes.changes) {
        convert.template operator()<true>();
    } else {
        convert.template operator()<false>();
    }
}

// The sums of a thread: products of `count` terms.
template <class Mac, class Tile>
struct ThreadSums {
    static constexpr int kSide = 4 * Tile::kGroups;
    float acc[kSide][kSide];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int i = 0; i < kSide; ++i) {
#pragma unroll
            for (int j = 0; j < kSide; ++j) acc[i][j] = 0;
        }
    }

    __device__ __forceinline__ void add_term(const Mac& mac, const uint32_t* left,
                                             const uint32_t* right) {
        uint32_t rows[Mac::kLeftWords][kSide];
        uint32_t columns[kSide];
#pragma unroll
        for (int group = 0; group < Tile::kGroups; ++group) {
#pragma unroll
            for (int word = 0; word < Mac::kLeftWords; ++word) {
                const auto four = *reinterpret_cast<const Pack<uint32_t, 4>*>(
                    left + word * kStep * Tile::kLeftPitch + group * Tile::kRowStep);
#pragma unroll
                for (int i = 0; i < 4; ++i) rows[word][4 * group + i] = four.element[i];
            }
            const auto four =
                *reinterpret_cast<const Pack<uint32_t, 4>*>(right + group * Tile::kColumnStep);
#pragma unroll
            for (int j = 0; j < 4; ++j) columns[4 * group + j] = four.element[j];
        }
#pragma unroll
        for (int i = 0; i < kSide; ++i) {
#pragma unroll
            for (int j = 0; j < kSide; ++j)
                mac(acc[i][j], rows[0][i], rows[Mac::kLeftWords - 1][i], columns[j]);
        }
    }

    __device__ __forceinline__ void add_terms(const Mac& mac, int count, const uint32_t* left,
                                              const uint32_t* right) {
        if (!Mac::kHeavy && count == kStep) {
#pragma unroll
            for (int k = 0; k < kStep; ++k)
                add_term(mac, left + k * Tile::kLeftPitch, right + k * Tile::kRightPitch);
        } else {
#pragma unroll 1
            for (int k = 0; k < count; ++k)
                add_term(mac, left + k * Tile::kLeftPitch, right + k * Tile::kRightPitch);
        }
    }

    // Calls f(four totals, row, first column) for all of the thread's; it is row and columns of
    // acc.
    template <class F>
    __device__ __forceinline__ static void for_each_four(uint32_t (*totals)[Tile::kColumns], F f) {
#pragma unroll
        for (int i = 0; i < kSide; ++i) {
            const int row = i / 4 * Tile::kRowStep + 4 * Tile::thread_row() + i % 4;
#pragma unroll
            for (int group = 0; group < Tile::kGroups; ++group) {
                const int column = group * Tile::kColumnStep + 4 * Tile::thread_column();
                f(*reinterpret_cast<Pack<uint32_t, 4>*>(&totals[row][column]), i, 4 * group);
            }
        }
    }

    // Totals that the first chain is added to as if it were alone: -0, or integers.
    __device__ __forceinline__ static void start(bool integer, uint32_t (*totals)[Tile::kColumns]) {
        const uint32_t none = integer ? 0 : 0x80000000u;
        for_each_four(
            totals, [&](Pack<uint32_t, 4>& total, int, int) { total = {none, none, none, none}; });
    }

    // Adds the chains to the totals, of floats or of the integers that the chains hold exactly, and
    // starts new ones.
    __device__ __forceinline__ void finish(const Prepared& prepared, bool integer,
                                           uint32_t (*totals)[Tile::kColumns]) {
        for_each_four(totals, [&](Pack<uint32_t, 4>& place, int i, int first) {
            Pack<uint32_t, 4> total = place;
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                uint32_t& sum = total.element[j];
                const float chain = Mac::finish(prepared, acc[i][first + j]);
                sum = integer ? sum + static_cast<uint32_t>(static_cast<int32_t>(chain))
                              : bits::of(bits::as_float(sum) + chain);
            }
            place = total;
        });
        clear();
    }
};

// One total scaled, rounded once and stored: the CPU's store_scaled (core/store.cpp).
__device__ __forceinline__ void store_total(const Target& out, int64_t offset, uint32_t total) {
    const auto scaled = [&] { return double{bits::as_float(total)} * out.scale; };
    switch (out.dtype) {
        case Dtype::kFloat32:
            static_cast<float*>(out.data)[offset] =
                out.scale == 1 ? bits::as_float(total) : static_cast<float>(scaled());
            break;
        case Dtype::kFloat16:
            static_cast<Float16*>(out.data)[offset] = to_float16(to_float_odd(scaled()));
            break;
        case Dtype::kBFloat16:
            static_cast<BFloat16*>(out.data)[offset] = to_bfloat16(to_float_odd(scaled()));
            break;
        default:
            static_cast<uint32_t*>(out.data)[offset] = total;
            break;
    }
}

// Neighbouring threads store neighbouring columns.
template <class Tile, class Memory>
__device__ __forceinline__ void store_totals(const TileProblem& p, const Memory& memory) {
    constexpr int width = std::min(Tile::kThreads, Tile::kColumns);
    constexpr int height = Tile::kThreads / width;
    const int thread = static_cast<int>(threadIdx.x);
#pragma unroll 1
    for (int inner = thread % width; inner < Tile::kColumns; inner += width) {
        const int64_t column = memory.column + inner;
        if (column >= p.columns) return;
        const int64_t offset = memory.offset + place_in(p.out, memory.row, column);
        for (int row = thread / width; row < Tile::kRows && memory.row + row < p.rows;
             row += height)
            store_total(p.out, offset + row * p.out.row, memory.totals[row][inner]);
    }
}

// Blocks: along x the tiles, row after row, of one slice of the depth after the other; along y the
// results of the batch.
template <class Mac, class Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks) tile_kernel(TileProblem p) {
    using Memory = TileMemory<Mac, Tile>;
    const int64_t batch = p.first_batch + blockIdx.y;
    const Choice& choice = p.choices[batch * p.choice_step];
    if (choice.kernel != p.kernel) return;
    Memory& memory = *dynamic_shared<Memory>();
    const int64_t tiles_across = (p.columns + Tile::kColumns - 1) / Tile::kColumns;
    const int64_t tiles_down = (p.rows + Tile::kRows - 1) / Tile::kRows;
    const int64_t tile_row = blockIdx.x / tiles_across;
    const int64_t slice = tile_row / tiles_down;
    const int64_t first_row = (tile_row - slice * tiles_down) * Tile::kRows;
    const int64_t first_column = (blockIdx.x - tile_row * tiles_across) * Tile::kColumns;
    const int64_t begin = slice * p.slice_depth;
    const int64_t end = p.depth - begin < p.slice_depth ? p.depth : begin + p.slice_depth;
    const Places places = places_of(p.batches, batch);

    Loaders<Tile::kRows, Tile::kThreads, false> left(p.left, p.item, places.left, first_row, p.rows,
                                                     begin, p.halved);
    Loaders<Tile::kColumns, Tile::kThreads, true> right(p.right, p.item, places.right, first_column,
                                                        p.columns, begin, p.halved);
    if (threadIdx.x == 0) {
        memory.prepared = Prepared(choice);
        memory.begin = begin;
        memory.end = end;
        memory.row = first_row;
        memory.column = first_column;
        memory.offset = places.out + slice * p.slice;
    }
    __syncthreads();
    const Prepared& prepared = memory.prepared;
    const Mac mac(prepared, p.mac);
    ThreadSums<Mac, Tile> sums;
    sums.clear();
    sums.start(p.integer_sums, memory.totals);
    // A step's elements are on their way while the products of the one before are formed. Nobody
    // writes to a buffer before all have read it: between the two lies the other one's barrier.
#pragma unroll 1
    for (unsigned step = 0;; ++step) {
        const int64_t k = memory.begin + int64_t{step} * kStep;
        const int64_t rest = memory.end - k;
        const bool more = rest > 0;
        if (more) {
            const int count = rest < kStep ? static_cast<int>(rest) : kStep;
            left.for_each(
                [&](auto& loader, int) { loader.load(p.left, p.item, k, count, p.halved); });
            right.for_each(
                [&](auto& loader, int) { loader.load(p.right, p.item, k, count, p.halved); });
        }
        if (step > 0) {
            const uint32_t* const lanes = memory.lanes[(step - 1) % 2];
            sums.add_terms(mac, more ? kStep : static_cast<int>(rest) + kStep,
                           lanes + 4 * Tile::thread_row(),
                           lanes + Memory::kLeft + 4 * Tile::thread_column());
            constexpr unsigned chain = kDepthBlock / kStep;
            if (step % chain == 0 || !more) sums.finish(prepared, p.integer_sums, memory.totals);
        }
        if (!more) break;
        uint32_t* const lanes = memory.lanes[step % 2];
        store_lanes<Mac, Tile>(p, prepared, left, right, lanes);
        __syncthreads();
    }
    __syncthreads();
    store_totals<Tile>(p, memory);
}

template <class Mac, class Tile>
void launch_tiles(const Context& context, const char* function, TileProblem problem) {
    // What a block of compute capability 8.6, 8.9 or 12.0 can have.
    static_assert(sizeof(TileMemory<Mac, Tile>) <= 99 * 1024);
    constexpr int64_t kMostBatches = 65535;
    const int64_t blocks = ceil_div(problem.rows, Tile::kRows) *
                           ceil_div(problem.columns, Tile::kColumns) *
                           ceil_div(problem.depth, problem.slice_depth);
    const int64_t batches = problem.batches.count;
    for (; problem.first_batch < batches; problem.first_batch += kMostBatches) {
        const dim3 grid(
            static_cast<unsigned>(blocks),
            static_cast<unsigned>(std::min(kMostBatches, batches - problem.first_batch)));
        launch(context, function, tile_kernel<Mac, Tile>, grid, Tile::kThreads,
               sizeof(TileMemory<Mac, Tile>), problem);
    }
}

}  // namespace slipstick::cuda::mitchell
