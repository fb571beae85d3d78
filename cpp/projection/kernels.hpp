// What a level offers to the family: one product a dense kind and dtype.
#pragma once

#include "core/dtype.hpp"
#include "core/isa.hpp"
#include "core/matmul.hpp"
#include "projection/projection.hpp"

namespace slipstick::cpu::projection {

// Packs `count` rows of x, row i at source + row_offsets[i] elements, into left panels (tile.hpp).
// What stands in the padding is any number: its sums are never handed out.
using PackRowsFn = void (*)(const void* source, const int64_t* row_offsets, int64_t depth_stride,
                            int64_t count, int64_t depth, void* packed);

// Fills right panels with the entries of `count` components from `component` on (a multiple of
// Product::generate_columns) and of `depth` features from `feature` on. Padding as above.
using GenerateFn = void (*)(const Law& law, uint64_t feature, uint64_t component, int64_t count,
                            int64_t depth, void* packed);

struct Product {
    MatmulKernel matmul;
    PackRowsFn pack_rows;
    GenerateFn generate;
    int64_t generate_columns;  // what one call of `generate` makes best; whole panels
    // The transpose, for the adjoint: panels of `count` features from `feature` on and of `depth`
    // components from `component` on, a multiple of 128.
    GenerateFn generate_adjoint;
};

struct Kernels {
    PerDtype<const Product*> product[kProductKinds];
};

}  // namespace slipstick::cpu::projection

namespace slipstick::cpu {
SLIPSTICK_LEVEL_TABLE(projection::Kernels, projection_kernels)
}  // namespace slipstick::cpu
