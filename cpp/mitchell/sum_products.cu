#include "mitchell/sum_products.cuh"

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "mitchell/operands.hpp"

namespace slipstick::cuda::mitchell {
namespace {

using slipstick::mitchell::Kind;

// --- Depths in slices ---

constexpr int kAddThreads = 256;
// Few results of deep sums are formed in slices, one chain each, so that every multiprocessor has
// work: the chains lie in scratch memory, up to so much of it.
constexpr int64_t kMostChainBytes = int64_t{128} << 20;

// Adds the chains of every result in order, and stores the sums. Without chains all are zero.
__global__ void __launch_bounds__(kAddThreads)
    add_chains_kernel(TileProblem p, const uint32_t* chains, int64_t slices) {
    const int64_t results = p.rows * p.columns;
    const int64_t count = p.batches.count * results;
    const int64_t step = int64_t{gridDim.x} * kAddThreads;
    int64_t index = int64_t{blockIdx.x} * kAddThreads + threadIdx.x;
    for (; index < count; index += step) {
        const int64_t batch = index / results;
        if (slices != 0 && p.choices[batch * p.choice_step].kernel != p.kernel) continue;
        uint32_t total = slices == 0 ? 0 : chains[index];
#pragma unroll 4
        for (int64_t slice = 1; slice < slices; ++slice) {
            const uint32_t chain = chains[slice * count + index];
            total = p.integer_sums ? total + chain
                                   : bits::of(bits::as_float(total) + bits::as_float(chain));
        }
        const int64_t row = (index - batch * results) / p.columns;
        const int64_t column = index - batch * results - row * p.columns;
        store_total(p.out, places_of(p.batches, batch).out + place_in(p.out, row, column), total);
    }
}

void add_chains(const Context& context, const char* function, const TileProblem& problem,
                const uint32_t* chains, int64_t slices) {
    const int64_t count = problem.batches.count * problem.rows * problem.columns;
    const int64_t blocks = std::min<int64_t>(ceil_div(count, kAddThreads), 1 << 20);
    launch(context, function, add_chains_kernel, static_cast<unsigned>(blocks), kAddThreads, 0,
           problem, chains, slices);
}

// --- Candidates ---

Format<uint32_t> format_of(Dtype dtype) {
    switch (dtype) {
        case Dtype::kFloat16:
            return slipstick::mitchell::kFormat16<uint32_t>;
        case Dtype::kBFloat16:
            return slipstick::mitchell::kFormatB16<uint32_t>;
        default:
            return slipstick::mitchell::kFormat32<uint32_t>;
    }
}

TileProblem make_tiles(const SumProblem& sums, Kernel kernel) {
    const Product& product = sums.product;
    TileProblem tiles{};
    tiles.kernel = kernel;
    tiles.choices = sums.choices.first;
    tiles.choice_step = sums.choices.step;
    tiles.mac = {product.parameters, format_of(product.dtype), sums.exchanged};
    tiles.dtype = product.dtype;
    tiles.item = static_cast<int>(item_size(product.dtype));
    tiles.rows = sums.rows;
    tiles.columns = sums.columns;
    const bool two_terms =
        kernel == Kernel::kExact && slipstick::mitchell::exact_terms(product) == 2;
    tiles.halved = two_terms ? 1 : 0;
    tiles.depth = product.depth << tiles.halved;
    tiles.slice_depth = tiles.depth;
    tiles.left = sums.left;
    tiles.right = sums.right;
    if (tiles.halved == 1) {  // elements are taken one by one
        for (Operand* operand : {&tiles.left, &tiles.right}) {
            if (operand->access == Access::kPackedDepth) operand->access = Access::kDepth;
            if (operand->access == Access::kPackedLines) operand->access = Access::kLines;
            operand->advance /= 2;
        }
    }
    tiles.out = sums.out;
    tiles.integer_sums = !slipstick::mitchell::is_float(product.dtype);
    tiles.batches = sums.batches;
    return tiles;
}

// Makes scratch memory of chains what the kernel writes.
void cut_into_slices(TileProblem& tiles, uint32_t* chains) {
    const int64_t results = tiles.rows * tiles.columns;
    tiles.slice_depth = kDepthBlock;
    tiles.out = {
        chains, tiles.integer_sums ? Dtype::kUInt32 : Dtype::kFloat32, tiles.columns, 1, 0, 0, 1.0};
    tiles.slice = results * tiles.batches.count;
    int64_t step = results;
    for (int axis = tiles.batches.rank - 1; axis >= 0; --axis) {
        tiles.batches.out[axis] = step;
        step *= tiles.batches.size[axis];
    }
}

template <class Tile>
int64_t tile_count(const SumProblem& sums) {
    return ceil_div(sums.rows, Tile::kRows) * ceil_div(sums.columns, Tile::kColumns) *
           sums.batches.count;
}

// One of the kernels that may be chosen.
struct Candidate {
    TileProblem tiles;
    TileSize size;
    int64_t slices;  // 0: not cut
};

Candidate make_candidate(const Context& context, const char* function, const SumProblem& sums,
                         Kernel kernel) {
    Candidate candidate{make_tiles(sums, kernel), TileSize::kSmall, 0};
    int64_t blocks = tile_count<SmallTile>(sums);
    int per_multiprocessor = SmallTile::kBlocks;
    // Products by the rules of a method take so long that a small tile costs them nothing, and sums
    // with low bits are rare.
    if (std::min(sums.rows, sums.columns) > SmallTile::kRows && kernel != Kernel::kGeneral &&
        kernel != Kernel::kLowFlushed) {
        candidate.size = TileSize::kLarge;
        blocks = tile_count<LargeTile>(sums);
        per_multiprocessor = LargeTile::kBlocks;
    } else if (sums.rows <= ThinTile::kRows && sums.columns > SmallTile::kColumns &&
               (kernel == Kernel::kSums || kernel == Kernel::kFlushed ||
                kernel == Kernel::kExact)) {
        candidate.size = TileSize::kThin;
        blocks = tile_count<ThinTile>(sums);
        per_multiprocessor = ThinTile::kBlocks;
    }
    const int64_t slices = ceil_div(candidate.tiles.depth, kDepthBlock);
    const int64_t results = sums.batches.count * sums.rows * sums.columns;
    if (slices > 1 && 2 * blocks <= resident_blocks(context, per_multiprocessor, function) &&
        slices <= kMostChainBytes / (results * int64_t{sizeof(uint32_t)}))
        candidate.slices = slices;
    return candidate;
}

void launch_candidate(const Context& context, const char* function, Kind kind,
                      const Candidate& candidate, uint32_t* chains) {
    TileProblem tiles = candidate.tiles;
    if (candidate.slices != 0) cut_into_slices(tiles, chains);
    if (tiles.kernel == Kernel::kGeneral) {
        launch_general(context, function, kind, tiles);
    } else {
        launch_sums(context, function, candidate.size, tiles);
    }
    if (candidate.slices != 0)
        add_chains(context, function, candidate.tiles, chains, candidate.slices);
}

}  // namespace

void sum_products(const Context& context, const char* function, const SumProblem& problem) {
    if (problem.product.depth == 0) {
        return add_chains(context, function, make_tiles(problem, Kernel::kSums), nullptr, 0);
    }
    const unsigned kernels = slipstick::mitchell::candidates(problem.product);
    std::vector<Candidate> candidates;
    int64_t slices = 0;
    for (const Kernel kernel : {Kernel::kSums, Kernel::kLowSums, Kernel::kFlushed,
                                Kernel::kLowFlushed, Kernel::kExact, Kernel::kGeneral}) {
        if ((kernels >> static_cast<int>(kernel) & 1) == 0) continue;
        candidates.push_back(make_candidate(context, function, problem, kernel));
        slices = std::max(slices, candidates.back().slices);
    }
    // Of one memory for all: each result's chains come from the kernel that was chosen for it.
    uint32_t* chains = nullptr;
    if (slices != 0) {
        chains = context.memory->allocate_array<uint32_t>(slices * problem.batches.count *
                                                          problem.rows * problem.columns);
    }
    for (const Candidate& candidate : candidates)
        launch_candidate(context, function, problem.product.kind, candidate, chains);
}

void set_access(Operand& operand, Dtype dtype, int64_t lines, int64_t depth, const Batches& batches,
                const int64_t* steps) {
    const int64_t item = item_size(dtype);
    operand.advance = operand.taps == nullptr ? kStep * operand.depth * item : 0;
    bool packs =
        operand.taps == nullptr && reinterpret_cast<intptr_t>(operand.data) % (4 * item) == 0;
    for (int axis = 0; axis < batches.rank; ++axis) packs &= steps[axis] % 4 == 0;
    if (packs && operand.depth == 1 && depth % 4 == 0 && (operand.line % 4 == 0 || lines == 1)) {
        operand.access = Access::kPackedDepth;
    } else if (packs && operand.line == 1 && lines % 4 == 0 &&
               (operand.depth % 4 == 0 || depth == 1)) {
        operand.access = Access::kPackedLines;
    } else if (operand.width != 0 || std::abs(operand.line) < std::abs(operand.depth)) {
        operand.access = Access::kLines;
    } else {
        operand.access = Access::kDepth;
    }
}

}  // namespace slipstick::cuda::mitchell
