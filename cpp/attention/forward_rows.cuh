// The rows of a block of forward_mma.cuh: what they see, lambda, where they lie in the operands,
// and what is written of them.
#pragma once

#include "attention/mma_tile.cuh"
#include "attention/online_softmax.cuh"
#include "attention/problem.cuh"

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

template <class Shape>
class ForwardRows {
public:
    using T = typename Shape::T;
    static constexpr int kColumns = Shape::kColumns;
    static constexpr int kKeys = Shape::kKeys;
    static constexpr double kLn2 = 0.69314718055994530942;

    __device__ __forceinline__ ForwardRows(const Problem& problem, const ForwardTiles& tiles,
                                           ForwardMemory<Shape>& memory)
        : problem_(problem),
          tiles_(tiles),
          memory_(memory),
          work_(memory.work),
          warp_(static_cast<int>(threadIdx.x) / kWarp),
          lane_(static_cast<int>(threadIdx.x) % kWarp),
          warp_row_(warp_ * Shape::kWarpRows) {}

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
    template <class Data>
    __device__ __forceinline__ auto place(const Steps<Data>& tensor, int row) const {
        const Place at = place_of(row);
        return tensor.template at<T>(work_.sequence.batch, at.head,
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

    // Whether some row of the block may not see some key of the tile.
    __device__ __forceinline__ bool is_partial(int tile) const {
        return (Shape::kFull && problem_.has_mask()) ||
               !memory_.keys[Shape::kWarps].all_of(tile, tile + kKeys);
    }
    __device__ __forceinline__ void write_rows_stats(bool reshaped) const {
#pragma unroll 1
        for (int i = lane_; i < Shape::kWarpRows; i += kWarp) {
            const int r = warp_row_ + i;
            if (!has_row(r)) break;
            const ForwardSums& sums = memory_.sums[r];
            const double factor = reshaped ? 1.0 : fabs(memory_.rows[r].factor);
            const RowStats<double> stats = slipstick::attention::row_stats<double>(
                memory_.rows[r].empty(), factor * sums.maximum, sums.sum, kLn2 * sums.moment);
            const Place at = place_of(r);
            write_stats<float>(problem_, work_.sequence, at.head, at.query,
                               {static_cast<float>(stats.lse),
                                // 2^u is off by 2 ulp, and so may what is left of two terms be.
                                stats.entropy < 0 ? 0.0f : static_cast<float>(stats.entropy),
                                static_cast<float>(stats.max_logit)});
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
            T* const out = place(problem_.out, r) + column * problem_.out.column;
            out->bits = static_cast<uint16_t>(pack<T>(to_float(*out) + sum, 0.0f));
        }
    }

protected:
    // The lane's row among 16, of element e of a result.
    __device__ __forceinline__ int row_of(int e) const { return lane_ / 4 + e / 2 * 8; }

    const Problem& problem_;
    const ForwardTiles& tiles_;
    ForwardMemory<Shape>& memory_;
    const Work& work_;  // in shared memory
    const int warp_;
    const int lane_;
    const int warp_row_;  // the warp's first
};

}  // namespace slipstick::cuda::attention
