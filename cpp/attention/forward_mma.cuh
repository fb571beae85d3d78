// Attention of 16-bit operands on tensor cores by mma.sync, for every device from 8.0 on: the
// kernel behind forward_mma.cu.
//
// A block is four warps. Each holds the sums of its 16 or 32 rows in registers, and of one tile of
// keys the scores, which become weights and then the left operand of the second product without
// leaving them. Two barriers a tile: the tile's values are on their way while scores and weights
// are made, the next tile's keys while the weights meet the values.
//
//   columns   rows a block   keys a tile   shared memory   blocks on a multiprocessor
//     64          128             64           34 KiB         2 (registers)
//    128          128             64           66 KiB         2
//    256           64             32           65 KiB         2
//
// With 32 rows a fragment of keys or values is read once for two products of 16 x 8 x 16; with 16
// rows shared memory, not the tensor cores, would be the limit. At 128 columns a warp does 256 such
// products a tile (at least 2048 cycles of an A100's tensor core, 1024 of an H100's) and 80 loads
// of 512 bytes (1280 cycles of shared memory for four warps); a score costs its thread a maximum, a
// multiply-add, an exponential (16 a cycle: 512 cycles for the block's 8192 scores), an addition
// and half a conversion: 64 scores a thread, about 290 instructions. Entropy adds two a score.
#pragma once

#include "attention/mma_tile.cuh"
#include "attention/online_softmax.cuh"
#include "attention/prepare.cuh"
#include "attention/problem.cuh"
#include "core/launch.cuh"

namespace slipstick::cuda::attention {

// What the host knows about the operands' rows.
struct ForwardTiles {
    TileSource query;
    TileSource key;
    TileSource value;
    bool out_aligned;
};

// What a row is to the threads that hold its scores. Keys are counted within the sequence.
struct ForwardRow {
    int first;  // first <= key < last; 0, 0 where the row sees no key
    int last;
    float factor;  // lambda; 0 where the row sees no key
    float scale;   // of OnlineRows
    __device__ __forceinline__ bool empty() const { return last == 0; }
};

// What a row's statistics are made of.
struct ForwardSums {
    float maximum;
    float sum;
    float moment;
};

// Keys that some of several rows see, and keys that all of them see.
struct SharedKeys {
    int first = std::numeric_limits<int>::max();
    int last = 0;
    int common_first = 0;
    int common_last = std::numeric_limits<int>::max();

    __device__ __forceinline__ void add(const SharedKeys& other) {
        first = first < other.first ? first : other.first;
        last = last > other.last ? last : other.last;
        common_first = common_first > other.common_first ? common_first : other.common_first;
        common_last = common_last < other.common_last ? common_last : other.common_last;
    }
    __device__ __forceinline__ bool any_of(int begin, int end) const {
        return first < end && last > begin;
    }
    __device__ __forceinline__ bool all_of(int begin, int end) const {
        return common_first <= begin && common_last >= end;
    }
};

template <class Element, int columns, int row_blocks, int keys, bool full>
struct ForwardShape {
    using T = Element;
    static constexpr int kColumns = columns;
    static constexpr int kRowBlocks = row_blocks;  // of 16 rows, a warp
    static constexpr int kKeys = keys;             // a tile
    static constexpr bool kFull = full;            // mask, soft cap, statistics
    static constexpr int kWarps = 4;
    static constexpr int kThreads = kWarps * kWarp;
    static constexpr int kWarpRows = 16 * kRowBlocks;
    static constexpr int kRows = kWarps * kWarpRows;
    // A pitch at which pairs of eight rows lie in different banks.
    static constexpr int kBiasPitch = kKeys + 8;
    // Without a mask there are none.
    static constexpr int kBiasBytes = kWarps * 16 * kBiasPitch * static_cast<int>(sizeof(float));
    // A query's fragments stay in registers where there is room for them.
    static constexpr bool kHoldsQuery = kColumns == 64;
};

template <class Shape>
struct ForwardMemory {
    using T = typename Shape::T;
    alignas(16) T query[Shape::kRows * Shape::kColumns];  // later the results
    alignas(16) T key[Shape::kKeys * Shape::kColumns];
    alignas(16) T value[Shape::kKeys * Shape::kColumns];
    ForwardRow rows[Shape::kRows];
    ForwardSums sums[Shape::kFull ? Shape::kRows : 1];
    SharedKeys keys[Shape::kWarps + 1];  // of each warp's rows; of all
    Work work;
    const T* first_key;
    const T* first_value;
    int cleared;  // whether values that are not finite were taken out of a tile
};

// What one block does.
template <class Shape>
class ForwardBlock {
public:
    using T = typename Shape::T;
    static constexpr int kColumns = Shape::kColumns;
    static constexpr int kRowBlocks = Shape::kRowBlocks;
    static constexpr int kKeys = Shape::kKeys;
    static constexpr int kKeyBlocks = kKeys / 8;
    static constexpr int kValueBlocks = kColumns / 8;
    static constexpr int kSteps = kColumns / 16;

    __device__ __forceinline__ ForwardBlock(const Problem& problem, const ForwardTiles& tiles,
                                            ForwardMemory<Shape>& memory)
        : problem_(problem),
          tiles_(tiles),
          memory_(memory),
          work_(memory.work),
          warp_(static_cast<int>(threadIdx.x) / kWarp),
          lane_(static_cast<int>(threadIdx.x) % kWarp),
          warp_row_(warp_ * Shape::kWarpRows) {}

    __device__ __forceinline__ void operator()() {
        const bool reshaped = Shape::kFull && (problem_.has_mask() || problem_.softcap != 0);
        load_tile<Shape::kRows, kColumns, Shape::kThreads>(memory_.query, tiles_.query, [&](int r) {
            return has_row(r) ? place<T>(problem_.query, r) : nullptr;
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
    // --- Rows ---

    __device__ __forceinline__ bool has_row(int row) const {
        return work_.first_row + row < work_.sequence.queries * problem_.group;
    }
    struct Place {
        int64_t head;
        int64_t query;
    };
    __device__ __forceinline__ Place place_of(int row) const {
        const auto group = static_cast<unsigned>(problem_.group);
        const auto number = static_cast<unsigned>(work_.first_row) + static_cast<unsigned>(row);
        return {work_.kv_head * problem_.group + number % group, number / group};
    }
    template <class Row, class Data>
    __device__ __forceinline__ auto place(const Steps<Data>& tensor, int row) const {
        const Place at = place_of(row);
        return tensor.template at<Row>(work_.sequence.batch, at.head,
                                       work_.sequence.first_query + at.query);
    }

    // What the rows see and their lambda, by the warp that holds them.
    __device__ __forceinline__ void find_keys(bool reshaped) {
        SharedKeys keys;
#pragma unroll 1
        for (int i = lane_; i < Shape::kWarpRows; i += kWarp) {
            const int r = warp_row_ + i;
            ForwardRow row{0, 0, 0.0f, 0.0f};
            if (has_row(r)) {
                const Place at = place_of(r);
                if (visible_of(problem_, work_.sequence, at.head, at.query) > 0) {
                    const KeyRange seen = range_of(problem_, work_.sequence, at.query);
                    row.first = static_cast<int>(seen.first);
                    row.last = static_cast<int>(seen.last);
                    row.factor =
                        factor_of<float>(problem_, work_.sequence, work_.number, at.head, at.query);
                    keys.first = row.first;
                    keys.last = row.last;
                }
                keys.common_first = row.first;
                keys.common_last = row.last;
            }
            row.scale = reshaped ? kLog2E : exponent_scale(row.factor);
            memory_.rows[r] = row;
        }
#pragma unroll
        for (int step = kWarp / 2; step > 0; step /= 2) {
            keys.add({shuffle_xor(keys.first, step), shuffle_xor(keys.last, step),
                      shuffle_xor(keys.common_first, step), shuffle_xor(keys.common_last, step)});
        }
        if (lane_ == 0) memory_.keys[warp_] = keys;
        __syncthreads();
        if (threadIdx.x == 0) {
            SharedKeys all;
            for (int w = 0; w < Shape::kWarps; ++w) all.add(memory_.keys[w]);
            memory_.keys[Shape::kWarps] = all;
            memory_.cleared = 0;
        }
        __syncthreads();
    }

    // The sign of lambda goes into the query, where it changes nothing but signs.
    __device__ __forceinline__ void turn_queries() {
        bool negative = false;
#pragma unroll 1
        for (int i = 0; i < Shape::kWarpRows; ++i) {
            const int r = warp_row_ + i;
            if (!(memory_.rows[r].factor < 0)) continue;
            negative = true;
            auto* const words = reinterpret_cast<uint32_t*>(memory_.query + r * kColumns);
            for (int w = lane_; w < kColumns / 2; w += kWarp) words[w] ^= 0x80008000u;
        }
        if (negative) sync_warp();
    }

    // --- Keys and values ---

    // Whether some row of the block may not see some key of the tile.
    __device__ __forceinline__ bool is_partial(int tile) const {
        return (Shape::kFull && problem_.has_mask()) ||
               !memory_.keys[Shape::kWarps].all_of(tile, tile + kKeys);
    }
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

    // Of element e of result b, the lane's row among 16 and key in the tile.
    __device__ __forceinline__ int row_of(int e) const { return lane_ / 4 + e / 2 * 8; }
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
                const Place at = place_of(first_row + i / kKeys);
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
                    const float factor = reshaped ? 1.0f : fabsf(memory_.rows[r].factor);
                    if (lane_ % 4 == 0)
                        memory_.sums[r] = {factor * rows[m].maximum[half], sum, kLn2 * moment};
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
            [&](int r) { return has_row(r) ? place<T>(problem_.out, r) : nullptr; });
        if constexpr (Shape::kFull) {
            if (problem_.has_stats()) write_rows_stats();
        }
        __syncthreads();
        if (memory_.cleared != 0) put_nonfinite_back();
    }

    __device__ __forceinline__ void write_rows_stats() const {
#pragma unroll 1
        for (int i = lane_; i < Shape::kWarpRows; i += kWarp) {
            const int r = warp_row_ + i;
            if (!has_row(r)) break;
            const ForwardSums& sums = memory_.sums[r];
            const Place at = place_of(r);
            write_stats(problem_, work_.sequence, at.head, at.query,
                        slipstick::attention::row_stats(memory_.rows[r].empty(), sums.maximum,
                                                        sums.sum, sums.moment));
        }
    }

    // Adds to the results what clear_nonfinite took out of partial tiles, for rows that see it:
    // whatever the weight, what comes of an infinity or NaN does not depend on finite terms. Such
    // values are an accident, so this takes the plainest way.
    __device__ __forceinline__ void put_nonfinite_back() const {
#pragma unroll 1
        for (int i = static_cast<int>(threadIdx.x); i < Shape::kRows * problem_.dim_v;
             i += Shape::kThreads) {
            const int r = i / problem_.dim_v;
            if (!has_row(r)) break;
            const int column = i % problem_.dim_v;
            const Place at = place_of(r);
            const ForwardRow& row = memory_.rows[r];
            const T* const values = problem_.value.at<T>(work_.sequence.batch, work_.kv_head,
                                                         work_.sequence.first_key, column);
            float sum = 0;
            for (int key = row.first; key < row.last; ++key) {
                if (!is_partial(key / kKeys * kKeys)) continue;
                const T value = values[key * problem_.value.row];
                if ((value.bits & kExponent<T>) != kExponent<T>) continue;
                if (problem_.has_mask() &&
                    bias_of<float>(problem_, work_.sequence, at.head, at.query, key) == kHidden)
                    continue;
                sum += to_float(value);
            }
            if (sum == 0) continue;
            T* const out = place<T>(problem_.out, r) + column * problem_.out.column;
            out->bits = static_cast<uint16_t>(pack<T>(to_float(*out) + sum, 0.0f));
        }
    }

    const Problem& problem_;
    const ForwardTiles& tiles_;
    ForwardMemory<Shape>& memory_;
    const Work& work_;  // in shared memory
    const int warp_;
    const int lane_;
    const int warp_row_;  // the warp's first
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
