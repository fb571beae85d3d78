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
    Acc softcap;       // 0: none
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
    // `count` elements times `factor` into a block of lines of `width` rows, as they are into a
    // panel's lane; returns whether all products are finite.
    bool (*pack_row)(const void* row, int64_t stride, int64_t count, Acc factor, int64_t width,
                     Acc* lane, Acc* line);
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
    // target[k * stride] = round(factor * sums[k * sum_stride])
    void (*write)(const Acc* sums, int64_t sum_stride, int64_t count, Acc factor, void* target,
                  int64_t stride);
};

struct BackwardKernels {
    Backward<float> float32;
    Backward<double> float64;
    Backward<float> float16;
    Backward<float> bfloat16;

    template <class T>
    const Backward<AccOf<T>>& of() const {
        if constexpr (DtypeOf<T>::value == Dtype::kFloat32) {
            return float32;
        } else if constexpr (DtypeOf<T>::value == Dtype::kFloat64) {
            return float64;
        } else if constexpr (DtypeOf<T>::value == Dtype::kFloat16) {
            return float16;
        } else {
            return bfloat16;
        }
    }
};

}  // namespace slipstick::cpu::attention

namespace slipstick::cpu {
SLIPSTICK_LEVEL_TABLE(attention::BackwardKernels, attention_backward_kernels)
}  // namespace slipstick::cpu
