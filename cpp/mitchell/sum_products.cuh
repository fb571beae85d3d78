// Sums of products on CUDA, as matrix products and convolutions ask for them.
#pragma once

#include "mitchell/ranges.cuh"
#include "mitchell/tile.cuh"

namespace slipstick::cuda::mitchell {

// out[i][j] = sum over k of left[i][k] (x) right[k][j], for every result of a batch.
struct SumProblem {
    Product product;  // its depth is that of the sums
    Choices choices;
    bool exchanged;  // the method's first operand is the right one
    int64_t rows;
    int64_t columns;
    Operand left;
    Operand right;
    Target out;
    Batches batches;
};

// Launches every kernel that the device may have chosen. Choices of Kernel::kLookup are not served.
void sum_products(const Context& context, const char* function, const SumProblem& problem);

// Sets how threads share an operand of `lines` by `depth` elements, one of a batch that `steps`
// (left or right of `batches`) leads through, and how far they move from step to step.
void set_access(Operand& operand, Dtype dtype, int64_t lines, int64_t depth, const Batches& batches,
                const int64_t* steps);

// The kernels of tile_sums.cu and tile_general.cu.
enum class TileSize { kThin, kSmall, kLarge };
void launch_sums(const Context& context, const char* function, TileSize size,
                 const TileProblem& problem);
void launch_general(const Context& context, const char* function, slipstick::mitchell::Kind kind,
                    const TileProblem& problem);

}  // namespace slipstick::cuda::mitchell
