// Attention of a few query rows, as in decoding: keys and values are read once, where they lie.
// What a level offers for it.
#pragma once

#include <cstdint>
#include <cstring>

#include "attention/kernels.hpp"
#include "attention/view.hpp"
#include "attention/visibility.hpp"
#include "core/isa.hpp"

namespace slipstick::cpu::attention {

inline constexpr int kFewRows = 8;
// Keys of one step. Its sums are one chain each, its scores and values stay in the first caches.
inline constexpr int64_t kStepKeys = 64;

// What a row has seen so far; `out` of the driver belongs to it.
template <class Acc>
struct RowState {
    Acc maximum;  // m, -inf at the start
    Acc sum;      // l = sum of e^(s - m)
    Acc moment;   // a = sum of e^(s - m) (s - m)
};

// The keys of a step that a row sees: first <= j < last, and bias[j] above -inf.
template <class Acc>
struct RowStep {
    Acc factor;   // lambda
    Acc softcap;  // 0: none
    int64_t first;
    int64_t last;
    const Acc* bias;  // of kStepKeys elements, or null
    bool has_moment;
};

// Memory that is wanted next: while a step's arithmetic runs, one line a key is fetched.
struct Fetch {
    const char* data;
    int64_t step;   // bytes from line to line
    int64_t bytes;  // of a line; 0: nothing
    int64_t lines;
};

// Steps of up to kStepKeys keys, whose elements are contiguous; lines of scores and weights are
// kStepKeys elements long.
template <class Acc>
struct FewRowsKernels {
    // A query row of `dim` elements, widened and filled up with zeros to `width` of them.
    int64_t (*width)(int64_t dim);
    void (*pack_query)(const void* row, int64_t stride, int64_t dim, Acc* packed);
    // scores[row][j] = <query row, key j>
    void (*score)(const Acc* query, int64_t rows, int64_t dim, const void* key, int64_t key_stride,
                  int64_t keys, const Fetch& fetch, Acc* scores);
    // Scores of one row to weights e^(s - m); returns e^(m_before - m), the factor for `out`.
    Acc (*weigh)(const RowStep<Acc>& step, int64_t keys, Acc* scores, RowState<Acc>& state);
    // out[row][c] = alpha[row] out[row][c] + the chain over j of weights[row][j] value[j][c].
    void (*add_values)(const Acc* weights, int64_t rows, const Acc* alpha, const void* value,
                       int64_t value_stride, int64_t keys, int64_t dim_v, const Fetch& fetch,
                       Acc* out, int64_t out_stride);
    // row[c * stride] = round(out[c] / sum)
    void (*finish)(const Acc* out, Acc sum, int64_t dim_v, void* row, int64_t stride);
};

using FewRowsTable = PerFloat<FewRowsKernels>;

// `keys` lines of a view's third axis, `width` contiguous elements each: where they lie, or copied
// to `buffer`.
struct Lines {
    const void* data;
    int64_t stride;  // in elements
};
inline Lines contiguous_lines(const View<4>& view, int64_t batch, int64_t head, int64_t key,
                              int64_t keys, int64_t width, void* buffer) {
    const char* const source = static_cast<const char*>(view.address(batch, head, key, int64_t{0}));
    if (view.strides[3] == 1 || width <= 1) return {source, view.strides[2]};
    const int64_t size = item_size(view.dtype);
    char* target = static_cast<char*>(buffer);
    for (int64_t j = 0; j < keys; ++j) {
        for (int64_t c = 0; c < width; ++c, target += size) {
            std::memcpy(target, source + (j * view.strides[2] + c * view.strides[3]) * size,
                        static_cast<size_t>(size));
        }
    }
    return {buffer, width};
}

// The part of attend() (forward.hpp) for sequences of up to kFewRows rows a key head.
void attend_few_rows(const Shape& shape, const Visibility& visibility, const Inputs& inputs,
                     const Options& options, const Tensor& out, const Stats* stats);

}  // namespace slipstick::cpu::attention

namespace slipstick::cpu {
SLIPSTICK_LEVEL_TABLE(attention::FewRowsTable, attention_few_rows_kernels)
}  // namespace slipstick::cpu
