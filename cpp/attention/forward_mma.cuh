// Attention of 16-bit operands on tensor cores by mma.sync, for every device from 8.0 on: the
// kernel behind forward_mma.cu.
//
// A block is four warps. Each holds the sums of its 16 or 32 rows in registers, and of one tile of
// keys the scores, which become weights and then the left operand of the second product without
// leaving them. Two barriers a tile: the tile's values are on their way while scores and weights
// are made, the next tile's keys while the weights meet the values.
//
//   columns   rows a block   keys a tile   shared memory   registers (sm_80, sm_90)
//     64          128             64           35 KiB       226, 228; full 253, 254
//    128          128             64           67 KiB       255; full 255
//    256           64             32           66 KiB       214, 212; full 226, 230
//
// That is two blocks a multiprocessor; of 8.6 and 8.9 one from 128 columns on. In the full kernel
// of 128 columns five addresses of copies are spilled (10 loads a tile, from the first cache);
// nothing else is. With 32 rows a warp's fragment of keys or values serves two products of 16 x 8 x
// 16; with 16, shared memory would be the limit, not the tensor cores.
//
// A tile of a warp at 128 columns is about 960 instructions (sm_90): 256 products (2048 cycles of
// an A100's tensor core, 1024 of an H100's, of which mma.sync reaches some 60 %), 80 loads of
// fragments (1280 cycles of shared memory for the four warps), 16 copies, and of a thread's 64
// scores a maximum, two instructions for the exponent, an exponential (16 a cycle: 512 cycles for
// the block), an addition and half a conversion each; 128 more where a maximum has moved, 128 for
// entropy, 250 where a row's range ends in the tile. So tensor cores are the limit: 65 to 75 % of
// an A100's peak, 35 to 40 % of an H100's, are what this is expected to reach. Not measured.
#pragma once

#include "attention/forward_rows.cuh"
#include "attention/prepare.cuh"
#include "core/launch.cuh"

namespace slipstick::cuda::attention {

// What one block does.
template <class Shape>
class ForwardBlock : ForwardRows<Shape> {
    using Rows = ForwardRows<Shape>;
    using Rows::find_keys;
    using Rows::has_row;
    using Rows::is_partial;
    using Rows::lane_;
    using Rows::memory_;
    using Rows::place;
    using Rows::place_of;
    using Rows::problem_;
    using Rows::put_nonfinite_back;
    using Rows::row_of;
    using Rows::tiles_;
    using Rows::turn_queries;
    using Rows::warp_;
    using Rows::warp_row_;
    using Rows::work_;
    using Rows::write_rows_stats;

public:
    using Rows::Rows;
    using T = typename Shape::T;
    static constexpr int kColumns = Shape::kColumns;
    static constexpr int kRowBlocks = Shape::kRowBlocks;
    static constexpr int kKeys = Shape::kKeys;
    static constexpr int kKeyBlocks = kKeys / 8;
    static constexpr int kValueBlocks = kColumns / 8;
    static constexpr int kSteps = kColumns / 16;

    __device__ __forceinline__ void operator()() {
        const bool reshaped = Shape::kFull && (problem_.has_mask() || problem_.softcap != 0);
        load_tile<Shape::kRows, kColumns, Shape::kThreads>(memory_.query, tiles_.query, [&](int r) {
            return has_row(r) ? place(problem_.query, r) : nullptr;
        });
        commit_copies();
        find_keys(reshaped);
        const int begin = memory_.keys[Shape::kWarps].first / kKeys * kKeys;
        if (begin < memory_.keys[Shape::kWarps].last) load_keys(begin);
        commit_copies();
        wait_for_copies<1>();
        __syncthreads();
        turn_queries();
        uint32_t query[kRowBlocks][Shape::kHoldsQuery ? kSteps : 1][4];
        if constexpr (Shape::kHoldsQuery) {
#pragma unroll
            for (int m = 0; m < kRowBlocks; ++m) {
#pragma unroll
                for (int k = 0; k < kSteps; ++k)
                    load_a<kColumns>(query[m][k], memory_.query, warp_row_ + 16 * m, 2 * k);
            }
        }

        OnlineRows rows[kRowBlocks];
#pragma unroll
        for (OnlineRows& each : rows) each = no_scores(0.0f, 0.0f);
        float out[kRowBlocks][kValueBlocks][4];
#pragma unroll
        for (int m = 0; m < kRowBlocks; ++m) {
#pragma unroll
            for (int n = 0; n < kValueBlocks; ++n) {
#pragma unroll
                for (float& sum : out[m][n]) sum = 0;
            }
        }

        // Tiles begin at multiples of their size, whatever the block's rows see, so that a row's
        // bits depend on its sequence alone. A tile of which a row sees nothing changes no bit.
#pragma unroll 1
        for (int tile = begin; tile < memory_.keys[Shape::kWarps].last; tile += kKeys) {
            wait_for_copies<0>();
            __syncthreads();
            const bool active = memory_.keys[warp_].any_of(tile, tile + kKeys);
            load_values(tile);
            commit_copies();
            uint32_t weights[kRowBlocks][kKeys / 16][4];
            if (active) {
                float scores[kRowBlocks][kKeyBlocks][4];
                multiply_keys(scores, query);
                if (Shape::kFull && reshaped) reshape(scores, tile);
                if (!memory_.keys[warp_].all_of(tile, tile + kKeys)) hide(scores, tile);
#pragma unroll
                for (int m = 0; m < kRowBlocks; ++m) {
                    // Read anew for each tile: registers are short.
                    const int upper = warp_row_ + 16 * m + row_of(0);
                    rows[m].scale[0] = memory_.rows[upper].scale;
                    rows[m].scale[1] = memory_.rows[upper + 8].scale;
                    float alpha[2];
                    take_scores<Shape::kFull>(rows[m], scores[m], alpha);
                    if (any_lane(alpha[0] != 1.0f || alpha[1] != 1.0f)) {
#pragma unroll
                        for (int n = 0; n < kValueBlocks; ++n) {
#pragma unroll
                            for (int e = 0; e < 4; ++e) out[m][n][e] *= alpha[e / 2];
                        }
                    }
#pragma unroll
                    for (int k = 0; k < kKeys / 16; ++k)
                        pack_a<T>(weights[m][k], scores[m][2 * k], scores[m][2 * k + 1]);
                }
            }
            wait_for_copies<0>();
            // A weight of 0 would make NaN of what a row does not see.
            if (is_partial(tile) &&
                clear_nonfinite<kKeys, kColumns, Shape::kThreads>(memory_.value, tiles_.value))
                memory_.cleared = 1;
            __syncthreads();
            if (tile + kKeys < memory_.keys[Shape::kWarps].last) load_keys(tile + kKeys);
            commit_copies();
            if (active) multiply_values(out, weights);
        }
        finish(rows, out, reshaped);
    }

private:
    // --- Keys and values ---

    // Keys that no row sees are not read.
    __device__ __forceinline__ void load(T* target, const TileSource& source, const T* first,
                                         int64_t step, int tile) const {
        const SharedKeys& keys = memory_.keys[Shape::kWarps];
        load_rows<kKeys, kColumns, Shape::kThreads>(target, source, first + tile * step, step,
                                                    keys.first - tile, keys.last - tile);
    }
    __device__ __forceinline__ void load_keys(int tile) const {
        load(memory_.key, tiles_.key, memory_.first_key, problem_.key.row, tile);
    }
    __device__ __forceinline__ void load_values(int tile) const {
        load(memory_.value, tiles_.value, memory_.first_value, problem_.value.row, tile);
    }

    // Whether columns from `column` on are known to be zeros: asked twice in the widest shape,
    // where 192 columns, and 128 beside them, are what models have.
    __device__ __forceinline__ static bool ends_at(int column, int columns) {
        return kColumns == 256 && (column == 128 || column == 192) && column >= columns;
    }

    template <int held>
    __device__ __forceinline__ void multiply_keys(
        float (&scores)[kRowBlocks][kKeyBlocks][4],
        const uint32_t (&query)[kRowBlocks][held][4]) const {
#pragma unroll
        for (int m = 0; m < kRowBlocks; ++m) {
#pragma unroll
            for (int n = 0; n < kKeyBlocks; ++n) {
#pragma unroll
                for (float& score : scores[m][n]) score = 0;
            }
        }
#pragma unroll
        for (int k = 0; k < kSteps; ++k) {
            if (ends_at(16 * k, problem_.dim)) break;
            uint32_t a[kRowBlocks][4];
#pragma unroll
            for (int m = 0; m < kRowBlocks; ++m) {
                if constexpr (Shape::kHoldsQuery) {
#pragma unroll
                    for (int i = 0; i < 4; ++i) a[m][i] = query[m][k][i];
                } else {
                    load_a<kColumns>(a[m], memory_.query, warp_row_ + 16 * m, 2 * k);
                }
            }
#pragma unroll
            for (int n = 0; n < kKeyBlocks; n += 2) {
                uint32_t b[4];
                load_b_transposed<kColumns>(b, memory_.key, 8 * n, 2 * k);
#pragma unroll
                for (int m = 0; m < kRowBlocks; ++m) {
                    multiply_add<T>(scores[m][n], a[m], b[0], b[1]);
                    multiply_add<T>(scores[m][n + 1], a[m], b[2], b[3]);
                }
            }
        }
    }

    __device__ __forceinline__ void multiply_values(
        float (&out)[kRowBlocks][kValueBlocks][4],
        const uint32_t (&weights)[kRowBlocks][kKeys / 16][4]) const {
#pragma unroll
        for (int k = 0; k < kKeys / 16; ++k) {
#pragma unroll
            for (int n = 0; n < kValueBlocks; n += 2) {
                if (ends_at(8 * n, problem_.dim_v)) break;
                uint32_t b[4];
                load_b<kColumns>(b, memory_.value, 16 * k, n);
#pragma unroll
                for (int m = 0; m < kRowBlocks; ++m) {
                    multiply_add<T>(out[m][n], weights[m][k], b[0], b[1]);
                    multiply_add<T>(out[m][n + 1], weights[m][k], b[2], b[3]);
                }
            }
        }
    }

    // --- Scores ---

    // The lane's key in the tile, of element e of result b.
    __device__ __forceinline__ int key_of(int b, int e) const {
        return 8 * b + lane_ % 4 * 2 + e % 2;
    }

    // From products to scores where there is more to it than lambda.
    __device__ __forceinline__ void reshape(float (&scores)[kRowBlocks][kKeyBlocks][4],
                                            int tile) const {
        const auto cap = static_cast<float>(problem_.softcap);
        float* const biases =
            reinterpret_cast<float*>(&memory_ + 1) + warp_ * 16 * Shape::kBiasPitch;
#pragma unroll
        for (int m = 0; m < kRowBlocks; ++m) {
            const int first_row = warp_row_ + 16 * m;
            const float factor[2] = {fabsf(memory_.rows[first_row + row_of(0)].factor),
                                     fabsf(memory_.rows[first_row + row_of(2)].factor)};
#pragma unroll
            for (int b = 0; b < kKeyBlocks; ++b) {
#pragma unroll
                for (int e = 0; e < 4; ++e) scores[m][b][e] *= factor[e / 2];
            }
            if (cap != 0) {
                const float inverse = 1.0f / cap;
#pragma unroll
                for (int b = 0; b < kKeyBlocks; ++b) {
#pragma unroll
                    for (float& score : scores[m][b]) score = cap * tanhf(score * inverse);
                }
            }
            if (!problem_.has_mask()) continue;
            read_biases(biases, first_row, tile);
            sync_warp();
#pragma unroll
            for (int b = 0; b < kKeyBlocks; ++b) {
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    const float bias = biases[row_of(e) * Shape::kBiasPitch + key_of(b, e)];
                    scores[m][b][e] = bias == kHidden ? kHidden : scores[m][b][e] + bias;
                }
            }
            sync_warp();
        }
    }

    // Neighbours in a row by neighbouring lanes, which the mask's own layout asks for.
    __device__ __forceinline__ void read_biases(float* biases, int first_row, int tile) const {
#pragma unroll 1
        for (int i = lane_; i < 16 * kKeys; i += kWarp) {
            const ForwardRow& row = memory_.rows[first_row + i / kKeys];
            const int key = tile + i % kKeys;
            float bias = kHidden;
            if (key >= row.first && key < row.last) {
                const auto at = place_of(first_row + i / kKeys);
                bias = bias_of<float>(problem_, work_.sequence, at.head, at.query, key);
            }
            biases[i / kKeys * Shape::kBiasPitch + i % kKeys] = bias;
        }
    }

    __device__ __forceinline__ void hide(float (&scores)[kRowBlocks][kKeyBlocks][4],
                                         int tile) const {
#pragma unroll
        for (int m = 0; m < kRowBlocks; ++m) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const ForwardRow& row = memory_.rows[warp_row_ + 16 * m + row_of(2 * half)];
                const int first = row.first - tile;
                const int last = row.last - tile;
#pragma unroll
                for (int b = 0; b < kKeyBlocks; ++b) {
#pragma unroll
                    for (int e = 2 * half; e < 2 * half + 2; ++e) {
                        const int key = key_of(b, e);
                        if (key < first || key >= last) scores[m][b][e] = kHidden;
                    }
                }
            }
        }
    }

    // --- Results ---

    __device__ __forceinline__ void finish(OnlineRows (&rows)[kRowBlocks],
                                           const float (&out)[kRowBlocks][kValueBlocks][4],
                                           bool reshaped) {
#pragma unroll
        for (int m = 0; m < kRowBlocks; ++m) {
            float inverse[2];
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int r = warp_row_ + 16 * m + row_of(2 * half);
                const float sum = sum_of_row(rows[m].sum[half]);
                // Of a row that sees no key all sums are 0.
                inverse[half] = memory_.rows[r].empty() ? 0.0f
                                : sum == 0              ? std::numeric_limits<float>::quiet_NaN()
                                                        : 1.0f / sum;
                if constexpr (Shape::kFull) {
                    const float moment = sum_of_row(rows[m].moment[half]);
                    if (lane_ % 4 == 0) memory_.sums[r] = {rows[m].maximum[half], sum, moment};
                }
            }
#pragma unroll
            for (int n = 0; n < kValueBlocks; ++n)
                put_result<kColumns>(memory_.query, warp_row_ + 16 * m, n, out[m][n], inverse[0],
                                     inverse[1]);
        }
        sync_warp();
        store_rows<Shape::kWarpRows, kColumns>(
            memory_.query, warp_row_, problem_.dim_v, tiles_.out_aligned, problem_.out.column,
            [&](int r) { return has_row(r) ? place(problem_.out, r) : nullptr; });
        if constexpr (Shape::kFull) {
            if (problem_.has_stats()) write_rows_stats(reshaped);
        }
        __syncthreads();
        if (memory_.cleared != 0) put_nonfinite_back();
    }
};

template <class Shape>
__global__ void __launch_bounds__(Shape::kThreads, 2)
    forward_tiles(const Problem problem, const ForwardTiles tiles) {
    auto& memory = *dynamic_shared<ForwardMemory<Shape>>();
    if (threadIdx.x == 0) {
        const Work work = work_of(problem, Shape::kRows, blockIdx.x);
        memory.work = work;
        const int64_t batch = work.sequence.batch;
        const int64_t token = work.sequence.first_key;
        memory.first_key = problem.key.at<typename Shape::T>(batch, work.kv_head, token);
        memory.first_value = problem.value.at<typename Shape::T>(batch, work.kv_head, token);
    }
    __syncthreads();
    if (memory.work.none) return;
    ForwardBlock<Shape>{problem, tiles, memory}();
}

template <class Shape>
void launch_forward(const Context& context, const Problem& problem) {
    const Problem tiled = prepare_tiles(context, problem, Shape::kRows);
    const ForwardTiles tiles{
        tile_source(problem.query, problem.dim), tile_source(problem.key, problem.dim),
        tile_source(problem.value, problem.dim_v), has_aligned_rows(problem.out, problem.dim_v)};
    const int64_t blocks = tiles_of(tiled, Shape::kRows);
    const size_t bytes = sizeof(ForwardMemory<Shape>) + (tiled.has_mask() ? Shape::kBiasBytes : 0);
    launch(context, problem.function, &forward_tiles<Shape>, dim3(static_cast<unsigned>(blocks)),
           dim3(Shape::kThreads), bytes, tiled, tiles);
}

// The kernel for the larger of the two numbers of columns.
template <class T, bool full>
void launch_forward_columns(const Context& context, const Problem& problem) {
    const int columns = problem.dim > problem.dim_v ? problem.dim : problem.dim_v;
    if (columns <= 64) {
        launch_forward<ForwardShape<T, 64, 2, 64, full>>(context, problem);
    } else if (columns <= 128) {
        launch_forward<ForwardShape<T, 128, 2, 64, full>>(context, problem);
    } else {
        launch_forward<ForwardShape<T, 256, 1, 32, full>>(context, problem);
    }
}

}  // namespace slipstick::cuda::attention
