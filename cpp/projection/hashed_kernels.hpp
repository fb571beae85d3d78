// What a level offers to the hashed kinds. Rows of x lie in the lanes of vectors: a tile holds a
// feature (or a component) of `width` rows side by side, and a nonzero of the matrix moves them
// all.
#pragma once

#include "core/dtype.hpp"
#include "core/isa.hpp"
#include "core/matmul.hpp"
#include "projection/projection.hpp"

namespace slipstick::cpu::projection {

// A nonzero: the component times 2, plus 1 where the entry is -1. Those of a column stand together,
// by increasing component.
using Hit = uint32_t;

// The nonzeros of a block of features that share a component: terms [end of the last, end).
struct Group {
    uint32_t component;
    uint32_t end;
};
// A feature of the block times 2, plus 1 where the entry is -1.
using Term = uint16_t;

// Makes the hits of `count` columns, law.nonzeros each.
using HitsFn = void (*)(const Law& law, const uint64_t* features, int64_t count, Hit* hits);

// A dtype's operations, on sums of float or double. Widths are multiples of `lanes`.
struct HashedOps {
    int64_t sum_bytes;
    int64_t lanes;
    bool reads_in_place;  // the elements are what is summed
    // tile[k * width + i] = element k of row i; behind the last row, it again.
    void (*pack)(const void* source, const int64_t* row_offsets, int64_t rows, int64_t depth_stride,
                 int64_t depth, void* tile, int64_t width);
    // sums[component * width + i] += the chain of each group over the features of a block, feature
    // f of row i at x[f * stride + i].
    void (*scatter)(const Group* groups, int64_t group_count, const Term* terms, const void* x,
                    int64_t stride, int64_t used, void* sums, int64_t width);
    // tile[c * width + i] = the sums of column c over row i of y, whose component m stands at y[m *
    // width + i]: one chain for each 256 components, added in order.
    void (*gather)(const Hit* hits, int64_t nonzeros, int64_t columns, const void* y, int64_t width,
                   void* tile);
    // rows[i * row_stride + c] = tile[c * width + i]; reads whole squares of `lanes`.
    void (*unpack)(const void* tile, int64_t width, int64_t used, int64_t columns, void* rows,
                   int64_t row_stride);
};

struct HashedKernels {
    HitsFn hits;
    PerDtype<const HashedOps*> ops;
};

}  // namespace slipstick::cpu::projection

namespace slipstick::cpu {
SLIPSTICK_LEVEL_TABLE(projection::HashedKernels, projection_hashed_kernels)
}  // namespace slipstick::cpu
