// What a level offers to convolutions beside the kernels of matrix products.
#pragma once

#include "mitchell/kernels.hpp"

namespace slipstick::cpu::mitchell {

// Sums of one output channel over a band of output rows, straight from lines of the input:
//   acc[y][x] = sum over k of weights[k] (x) lines[offsets[k] + y * line_step + x]
// in chains of kDepthBlock, as in a matrix product. `columns` is a multiple of the widest vector.
struct LineSums {
    const void* weights;  // every kTileRows-th packed element, as pack_left leaves one row
    const void* lines;
    const int64_t* offsets;
    int64_t depth;
    int64_t line_step;
    int64_t rows;
    int64_t columns;
    void* acc;  // rows x columns
};
using LineSumsFn = void (*)(const MacConstants& constants, const LineSums& sums);

// chain += products, or with `flush` total += chain and chain = 0. `products` have the dtype that
// `multiply` gives, chain and total that of the sums.
using AddProductsFn = void (*)(const void* products, int64_t count, void* chain);
using AddChainFn = void (*)(void* chain, int64_t count, void* total);

// Line sums of the paths of `Matmul`, in its packed elements; null where the dtype lacks the path.
struct Conv2d {
    LineSumsFn sums;
    LineSumsFn low_sums;
    LineSumsFn flushed;
    LineSumsFn low_flushed;
    AddProductsFn add_products;
    AddChainFn add_chain;
    int64_t lanes;  // of the widest vector that line sums use
};
struct Conv2dKernels {
    PerDtype<const Conv2d*> conv2d;
};

}  // namespace slipstick::cpu::mitchell

namespace slipstick::cpu {
SLIPSTICK_LEVEL_TABLE(mitchell::Conv2dKernels, mitchell_conv2d_kernels)
}  // namespace slipstick::cpu
