// What a level offers to the family: one product a dense kind and dtype.
#pragma once

#include "core/dtype.hpp"
#include "core/isa.hpp"
#include "core/matmul.hpp"
#include "projection/projection.hpp"

namespace slipstick::cpu::projection {

// Whole groups: `length` elements of a row with zeros around them.
struct PaddedDepth {
    int64_t before;
    int64_t length;
    int64_t after;
};

// Packs `count` rows of x, row i at source + row_offsets[i] elements, into left panels as the
// product's kernel reads them. What stands in the padding of rows is any number: its sums are never
// handed out.
using PackRowsFn = void (*)(const void* source, const int64_t* row_offsets, int64_t depth_stride,
                            int64_t count, const PaddedDepth& depth, void* packed);

// Fills right panels with the entries of `count` components from `component` on (a multiple of
// Product::generate_columns) and of `depth` features from `feature` on. Padding as above.
using GenerateFn = void (*)(const Law& law, uint64_t feature, uint64_t component, int64_t count,
                            int64_t depth, void* packed);

struct Product {
    MatmulKernel matmul;
    int64_t group;  // `feature` and `depth` are multiples of it
    PackRowsFn pack_rows;
    GenerateFn generate;
    int64_t generate_columns;  // what one call of `generate` makes best; whole panels
    // The transpose, for the adjoint: panels of `count` features from `feature` on and of `depth`
    // components from `component` on, a multiple of 128.
    GenerateFn generate_adjoint;
};

struct Kernels {
    PerDtype<const Product*> product[kProductKinds];
    // Entries as float64, unscaled, in panels as wide as the tiles of the float64 product. `depth`
    // is at most kDepthBlock.
    GenerateFn generate_entries[kProductKinds];
};

}  // namespace slipstick::cpu::projection

namespace slipstick::cpu {
SLIPSTICK_LEVEL_TABLE(projection::Kernels, projection_kernels)
}  // namespace slipstick::cpu
