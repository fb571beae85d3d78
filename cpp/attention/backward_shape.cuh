// What the backward kernels on tensor cores are made for and told.
#pragma once

#include "attention/device_kernels.cuh"
#include "attention/mma_tile.cuh"

namespace slipstick::cuda::attention {

// Of which operand a kernel writes the gradient.
enum class Gradient { kQuery, kKey, kValue, kKeyAndValue };

// Sums of a warp's rows are float32 in registers: 16 rows of 128 columns take 64 of 255 for each
// gradient, scores and grads of 16 x 64 another 64. `tall` counts 16 rows that a warp owns, which
// share what is read of the tile that streams past; `across` the rows of it at a time.
template <int width, int warps, int tall, int streamed, int across>
struct BackwardShape {
    static constexpr int kWidth = width;  // of a head, with zeros
    static constexpr int kThreads = warps * kWarp;
    static constexpr int kTall = tall;
    static constexpr int kOwned = 16 * tall * warps;
    static constexpr int kStreamed = streamed;
    static constexpr int kAcross = across;
    // Whether there is room for what is known of owned rows: one stage of 128 columns, with the
    // rows' numbers, just fits the 99 KiB of a block on 8.6, 8.9 and 12.0.
    static constexpr bool kHoldsOptions = width != 128;
};
using NarrowShape = BackwardShape<64, 4, 2, 64, 32>;
using MiddleShape = BackwardShape<128, 8, 1, 64, 64>;
using WideShape = BackwardShape<256, 4, 1, 32, 32>;

// What the scores of a row need.
struct alignas(16) RowNumbers {
    float factor;  // lambda
    float lse;
    float constant;     // D - dL + dH H
    float grad_factor;  // lambda times BackwardArguments::key_unit
};
struct alignas(8) RowOptions {
    int64_t mask;  // where the row's begins
    int first;     // first <= key < last is seen
    int last;
    float grad_entropy;
};

struct BackwardArguments {
    Problem problem;
    Operand grad_out_rows;
    TileSource query;
    TileSource key;
    TileSource value;
    TileSource grad_out;
    Target grad_query;
    Target grad_key;
    Target grad_value;
    BackwardRows<float> rows;
    float inverse_cap;  // 1 / softcap
    // A power of two near the inverse of the usual lambda: dR times lambda alone would lie lower
    // than dR, where float16 has fewer digits.
    float key_unit;
    int stages;  // tiles that stream past and have room at once, 1 or 2
    bool grad_query_aligned;
    bool grad_key_aligned;
    bool grad_value_aligned;
};

// Shared memory: two tiles of what is owned, then for each stage two tiles of what streams past;
// then what is known of rows, of each stage's or of the owned.
template <class Shape>
size_t backward_shared_bytes(int stages, bool owns_keys) {
    const int lines = 2 * Shape::kOwned + 2 * stages * Shape::kStreamed;
    const int rows = owns_keys ? stages * Shape::kStreamed : Shape::kOwned;
    const size_t options = owns_keys || Shape::kHoldsOptions ? sizeof(RowOptions) : 0;
    return static_cast<size_t>(lines) * Shape::kWidth * 2 +
           static_cast<size_t>(rows) * (sizeof(RowNumbers) + options);
}

inline constexpr float kLog2E = 1.4426950408889634f;

}  // namespace slipstick::cuda::attention
