// Sums of patterns, and of exact products: what most products of a method become.
#include "mitchell/sum_products.cuh"

namespace slipstick::cuda::mitchell {

// make_candidate (sum_products.cu) picks no size for a kernel that is not listed under it.
void launch_sums(const Context& context, const char* function, TileSize size,
                 const TileProblem& problem) {
    if (size == TileSize::kLarge) {
        switch (problem.kernel) {
            case Kernel::kSums:
                return launch_tiles<SumMac<false>, LargeTile>(context, function, problem);
            case Kernel::kLowSums:
                return launch_tiles<SumMac<true>, LargeTile>(context, function, problem);
            case Kernel::kFlushed:
                return launch_tiles<FlushMac<false>, LargeTile>(context, function, problem);
            default:
                return launch_tiles<ExactMac, LargeTile>(context, function, problem);
        }
    }
    if (size == TileSize::kThin) {
        switch (problem.kernel) {
            case Kernel::kSums:
                return launch_tiles<SumMac<false>, ThinTile>(context, function, problem);
            case Kernel::kFlushed:
                return launch_tiles<FlushMac<false>, ThinTile>(context, function, problem);
            default:
                return launch_tiles<ExactMac, ThinTile>(context, function, problem);
        }
    }
    switch (problem.kernel) {
        case Kernel::kSums:
            return launch_tiles<SumMac<false>, SmallTile>(context, function, problem);
        case Kernel::kLowSums:
            return launch_tiles<SumMac<true>, SmallTile>(context, function, problem);
        case Kernel::kFlushed:
            return launch_tiles<FlushMac<false>, SmallTile>(context, function, problem);
        case Kernel::kLowFlushed:
            return launch_tiles<FlushMac<true>, SmallTile>(context, function, problem);
        default:
            return launch_tiles<ExactMac, SmallTile>(context, function, problem);
    }
}

}  // namespace slipstick::cuda::mitchell
