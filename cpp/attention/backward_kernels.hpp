// What a level offers to the gradients. As in the forward kernels scores are held transposed, keys
// x rows, with the rows of a panel in the lanes of a vector.
#pragma once

#include <cstdint>

#include "attention/kernels.hpp"

namespace slipstick::cpu::attention {

// `panels` panels of `lanes` query rows, packed; their rows together are the width of the tile.
// Rows behind the last are zeros. Arrays without a shape hold one element a row.
template <class Acc>
struct RowTile {
    int64_t panels;
    const Acc* query;       // a panel after the other, each dim x lanes
    const Acc* grad;        // dO, each dim_v x lanes
    const Acc* scaled;      // lambda q: blocks of lanes columns, each width x lanes
    const Acc* grad_lines;  // dO in such blocks
    const Acc* factor;      // lambda
    const Acc* lse;
    const Acc* constant;      // D - dL + dH H
    const Acc* grad_entropy;  // dH, or null
    const int64_t* first;     // the row sees the keys first <= j < last that its mask shows
    const int64_t* last;
    Acc*
        turned;  // sum of dR k: a panel after the other, each dim (rounded up to tile_rows) x lanes
    bool finite;  // neither `scaled` nor `grad` has an infinity or NaN
};

// A run of keys with its values, packed, and the sums of their gradients.
template <class Acc>
struct GradTile {
    const Acc* key;      // panels of tile_rows keys, each dim x tile_rows
    const Acc* value;    // panels of tile_rows keys, each dim_v x tile_rows
    const Acc* columns;  // the keys again: panels of tile_rows columns, each keys x tile_rows
    Acc* grad_key;       // keys (rounded up to tile_rows) x dim (rounded up to lanes)
    Acc* grad_value;     // likewise x dim_v
    int64_t start;       // number of the first key
    int64_t keys;
    bool finite;  // no key is an infinity or NaN
};

// The keys [begin, end) of a tile, counted from its start; `begin` is a multiple of tile_rows.
template <class Acc>
struct GradStep {
    int64_t dim;
    int64_t dim_v;
    int64_t begin;
    int64_t end;
    bool all_visible;  // every row sees every key from begin to end
    const Acc* bias;   // a panel after the other, each (end - begin) x lanes; or null
    // <q, k>, a panel after the other, each (end - begin) x lanes; or null: to be computed.
    const Acc* scores;
    Acc softcap;  // 0: none
    // Room for (end - begin, rounded up to tile_rows) x lanes, twice, and x width, twice.
    Acc* weights;
    Acc* grads;
    Acc* packed_weights;
    Acc* packed_grads;
};

template <class Acc>
struct Backward {
    int64_t lanes;
    int64_t tile_rows;
    // `lanes` rows of `count` elements into a panel; zeros for a null one.
    void (*pack_rows)(const void* const* rows, int64_t stride, int64_t count, Acc* panel);
    // A row times `factor` into its line of blocks of `width` lines; returns whether all products
    // are finite.
    bool (*pack_line)(const void* row, int64_t stride, int64_t count, Acc factor, int64_t width,
                      Acc* line);
    // Returns whether all are finite.
    bool (*pack_keys)(const void* source, int64_t key_stride, int64_t dim_stride, int64_t keys,
                      int64_t dim, Acc* packed);
    void (*pack_columns)(const void* source, int64_t key_stride, int64_t dim_stride, int64_t keys,
                         int64_t dim, Acc* packed);
    // Adds a step's share to the sums of its rows and keys.
    void (*add)(const RowTile<Acc>&, const GradTile<Acc>&, const GradStep<Acc>&);
    double (*dot)(const void* a, int64_t a_stride, const void* b, int64_t b_stride, int64_t count);
    // <row, sums> with sums[k * sum_stride].
    double (*dot_sums)(const void* row, int64_t stride, const Acc* sums, int64_t sum_stride,
                       int64_t count);
    // target[k * stride] = round(sums[k])
    void (*write)(const Acc* sums, int64_t count, void* target, int64_t stride);
    // rows[lane][k * stride] = round(factor[lane] * turned[k * lanes + lane]), for `count` lanes.
    void (*write_rows)(const Acc* turned, const Acc* factor, int64_t dim, void* const* rows,
                       int64_t count, int64_t stride);
};

using BackwardKernels = PerFloat<Backward>;

}  // namespace slipstick::cpu::attention

namespace slipstick::cpu {
SLIPSTICK_LEVEL_TABLE(attention::BackwardKernels, attention_backward_kernels)
}  // namespace slipstick::cpu
