// Dense products with matrices of few entries a column. Who owns a sum makes it: a thread has one
// component of sixteen rows, looks through the entries of 32 columns in shared memory for those of
// its component, and adds what it finds in the CPU's order: chains of 256 features by global index.
//
// Cost for 256 components and one entry a column: a comparison takes 2 instructions of each of 256
// threads for 16 numbers of x, 32 for a number; memory brings 3.6 numbers a clock to a
// multiprocessor of an H100, whose 128 lanes have 36 instructions for each. Eight entries a column
// add 8 loads of shared memory and 8 additions for a number, spread over the lanes: 16 more.
#include "projection/hashed.cuh"

#include <algorithm>

#include "core/chain.hpp"
#include "core/launch.cuh"
#include "projection/entry.hpp"
#include "projection/rows.cuh"

namespace slipstick::cuda::projection {
namespace {

using slipstick::projection::Hashed;
using slipstick::projection::hashed_entry;
using slipstick::projection::Law;

constexpr int kThreads = 256;
constexpr int kColumns = 32;  // of the matrix, whose entries are made at once
constexpr int64_t kMostBlocks = int64_t{1} << 30;

struct Problem {
    uint64_t seed;
    int64_t components;
    int64_t nonzeros;
    uint64_t first_feature;
    int64_t features;
    const void* x;
    Dtype dtype;
    int64_t x_step;
    Rows x_rows;
    bool across;  // neighbouring rows of x are neighbours in memory
    ScaledTarget out;
};

// Components of a block, and so many groups of threads with rows of their own.
struct Tile {
    int components;
    int groups;
};

// The block of components, one of `nonzeros`, that a component belongs to.
__device__ __forceinline__ int64_t part_of(const Problem& problem, int64_t component) {
    return ((component + 1) * problem.nonzeros - 1) / problem.components;
}

template <class Sum>
constexpr int kEach = 64 / static_cast<int>(sizeof(Sum));  // rows of a thread

template <class Sum>
__global__ void __launch_bounds__(kThreads) add_columns(const Problem problem, const Tile tile) {
    constexpr int rows_each = kEach<Sum>;
    const int rows = rows_each * tile.groups;
    const int pitch = rows + 1;  // odd: columns lie in different banks
    auto* const numbers = dynamic_shared<Sum>();
    auto* const entries = reinterpret_cast<uint32_t*>(numbers + kColumns * pitch);
    const auto thread = static_cast<int>(threadIdx.x);
    const int64_t tiles = ceil_div(problem.components, tile.components);
    const int64_t row_tiles = ceil_div(problem.x_rows.count, rows);
    for (int64_t at = blockIdx.x; at < tiles * row_tiles; at += gridDim.x) {
        const int64_t first_component = at % tiles * tile.components;
        const int64_t first_row = at / tiles * rows;
        const int64_t left = problem.x_rows.count - first_row;
        const int rows_here = left < rows ? static_cast<int>(left) : rows;
        const int64_t component = first_component + thread % tile.components;
        const int own_row = thread / tile.components * rows_each;
        const bool has_component = component < problem.components;
        const int64_t last = first_component + tile.components;
        const int64_t first_part = part_of(problem, first_component);
        const int64_t end_part =
            part_of(problem, (last < problem.components ? last : problem.components) - 1) + 1;
        const auto parts = static_cast<int>(end_part - first_part);
        const int own_part =
            has_component ? static_cast<int>(part_of(problem, component) - first_part) : 0;
        const auto sought = static_cast<uint32_t>(component) << 1;
        Sum chain[rows_each] = {};
        Sum total[rows_each] = {};
        for (int64_t column = 0; column < problem.features;) {
            const uint64_t feature = problem.first_feature + static_cast<uint64_t>(column);
            const auto to_edge = static_cast<int64_t>(kColumns - feature % kColumns);
            const int64_t rest = problem.features - column;
            const auto count = static_cast<int>(rest < to_edge ? rest : to_edge);
            __syncthreads();
            for (int i = thread; i < kColumns * rows; i += kThreads) {
                const int j = problem.across ? i / rows : i % kColumns;
                const int row = problem.across ? i % rows : i / kColumns;
                if (j >= count || row >= rows_here) continue;
                numbers[j * pitch + row] = load_number<Sum>(
                    problem.x, problem.dtype,
                    offset_of(problem.x_rows, first_row + row) + (column + j) * problem.x_step);
            }
            for (int i = thread; i < kColumns * parts; i += kThreads) {
                const int j = i % kColumns;
                if (j >= count) continue;
                const Hashed drawn =
                    hashed_entry(problem.seed, problem.components, problem.nonzeros,
                                 first_part + i / kColumns, feature + static_cast<uint64_t>(j));
                entries[i] = static_cast<uint32_t>(drawn.component) << 1 |
                             static_cast<uint32_t>(drawn.negative);
            }
            __syncthreads();
            if (feature % kDepthBlock == 0) {
#pragma unroll
                for (int r = 0; r < rows_each; ++r) {
                    total[r] += chain[r];
                    chain[r] = 0;
                }
            }
            const uint32_t* const own = entries + own_part * kColumns;
            for (int j = 0; j < count; ++j) {
                const uint32_t entry = own[j];
                if ((entry & ~1u) != sought || !has_component) continue;
                const Sum* const line = numbers + j * pitch + own_row;
#pragma unroll
                for (int r = 0; r < rows_each; ++r)
                    chain[r] += (entry & 1u) != 0 ? -line[r] : line[r];
            }
            column += count;
        }
        if (!has_component) continue;
#pragma unroll
        for (int r = 0; r < rows_each; ++r) {
            if (own_row + r >= rows_here) continue;
            problem.out.store(offset_of(problem.out.rows, first_row + own_row + r) +
                                  component * problem.out.column_stride,
                              total[r] + chain[r]);
        }
    }
}

// The adjoint: a thread has one feature of some rows and adds the few numbers of y that its column
// has entries for, in increasing order of their components.
template <class Sum>
__global__ void __launch_bounds__(kThreads) gather_columns(const Problem problem) {
    constexpr int rows_each = 8;
    const int64_t tiles = ceil_div(problem.features, kThreads);
    const int64_t row_tiles = ceil_div(problem.x_rows.count, rows_each);
    for (int64_t at = blockIdx.x; at < tiles * row_tiles; at += gridDim.x) {
        const int64_t column = at % tiles * kThreads + threadIdx.x;
        const int64_t first_row = at / tiles * rows_each;
        if (column >= problem.features) continue;
        const uint64_t feature = problem.first_feature + static_cast<uint64_t>(column);
        int64_t starts[rows_each];
#pragma unroll
        for (int r = 0; r < rows_each; ++r) {
            const int64_t row = first_row + r;
            starts[r] = offset_of(problem.x_rows, row < problem.x_rows.count ? row : first_row);
        }
        Sum chain[rows_each] = {};
        Sum total[rows_each] = {};
        int64_t block = 0;
        for (int64_t part = 0; part < problem.nonzeros; ++part) {
            const Hashed drawn =
                hashed_entry(problem.seed, problem.components, problem.nonzeros, part, feature);
            if (drawn.component / kDepthBlock != block) {
                block = drawn.component / kDepthBlock;
#pragma unroll
                for (int r = 0; r < rows_each; ++r) {
                    total[r] += chain[r];
                    chain[r] = 0;
                }
            }
#pragma unroll
            for (int r = 0; r < rows_each; ++r) {
                const Sum number = load_number<Sum>(problem.x, problem.dtype,
                                                    starts[r] + drawn.component * problem.x_step);
                chain[r] += drawn.negative ? -number : number;
            }
        }
#pragma unroll
        for (int r = 0; r < rows_each; ++r) {
            if (first_row + r >= problem.x_rows.count) continue;
            problem.out.store(
                offset_of(problem.out.rows, first_row + r) + column * problem.out.column_stride,
                total[r] + chain[r]);
        }
    }
}

Problem make_problem(const ConstTensor& x, const Law& law, int64_t components,
                     uint64_t first_feature, int64_t features, const Tensor& out) {
    Problem problem{};
    problem.seed = law.seed;
    problem.components = components;
    problem.nonzeros = law.nonzeros;
    problem.first_feature = first_feature;
    problem.features = features;
    problem.x = x.data;
    problem.dtype = x.dtype;
    problem.x_step = x.strides[x.rank - 1];
    problem.x_rows = Rows(x);
    problem.across = problem.x_step != 1 && problem.x_rows.rank > 0 &&
                     problem.x_rows.strides[problem.x_rows.rank - 1] == 1;
    problem.out = ScaledTarget(out, law.scale);
    return problem;
}

unsigned blocks_of(int64_t blocks) {
    return static_cast<unsigned>(std::clamp<int64_t>(blocks, 1, kMostBlocks));
}

// f.operator()<Sum>()
template <class F>
void dispatch_sum(const Tensor& out, F&& f) {
    out.dtype == Dtype::kFloat64 ? f.template operator()<double>() : f.template operator()<float>();
}

}  // namespace

void project_hashed(const Context& context, const ConstTensor& x, const Law& law,
                    uint64_t first_feature, const Tensor& out) {
    const Problem problem =
        make_problem(x, law, out.shape[out.rank - 1], first_feature, x.shape[x.rank - 1], out);
    Tile tile{32, 0};
    while (tile.components < kThreads && tile.components < problem.components) tile.components *= 2;
    tile.groups = kThreads / tile.components;
    dispatch_sum(out, [&]<class Sum>() {
        const int rows = kEach<Sum> * tile.groups;
        // Parts that a tile can touch: one a component, or fewer, larger ones.
        const int64_t parts = std::min<int64_t>(
            ceil_div(tile.components * problem.nonzeros, problem.components) + 2, problem.nonzeros);
        const auto bytes = static_cast<size_t>(kColumns * (rows + 1)) * sizeof(Sum) +
                           static_cast<size_t>(parts) * kColumns * sizeof(uint32_t);
        const int64_t blocks =
            ceil_div(problem.components, tile.components) * ceil_div(problem.x_rows.count, rows);
        launch(context, "project", add_columns<Sum>, blocks_of(blocks), kThreads, bytes, problem,
               tile);
    });
}

void back_project_hashed(const Context& context, const ConstTensor& y, const Law& law,
                         uint64_t first_feature, const Tensor& out) {
    const Problem problem =
        make_problem(y, law, y.shape[y.rank - 1], first_feature, out.shape[out.rank - 1], out);
    dispatch_sum(out, [&]<class Sum>() {
        const int64_t blocks =
            ceil_div(problem.features, kThreads) * ceil_div(problem.x_rows.count, 8);
        launch(context, "back_project", gather_columns<Sum>, blocks_of(blocks), kThreads, 0,
               problem);
    });
}

}  // namespace slipstick::cuda::projection
