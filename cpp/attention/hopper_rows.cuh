// What a thread of forward_hopper.cu knows of its rows of scores, two of its warp's sixteen: which
// keys they see, their lambda, and what the softmax has summed up so far.
//
// Row i of a thread is row lane / 4 + 8 i of the warp; sum i of a product belongs to row i / 2 % 2
// (core/hopper.cuh).
#pragma once

#include "attention/problem.cuh"
#include "core/ptx.cuh"

namespace slipstick::cuda::attention {

// The keys that rows `first` to `last` see together: bounds grow with the row.
__device__ __forceinline__ KeyRange range_of_rows(const Problem& problem, const Sequence& sequence,
                                                  int64_t first, int64_t last) {
    using slipstick::attention::kOpen;
    const Window& window = problem.window;
    const int64_t offset = sequence.keys - sequence.queries;
    KeyRange seen{0, sequence.length};
    if (window.causal && last + offset + 1 < seen.last) seen.last = last + offset + 1;
    if (window.right != kOpen && last + offset + window.right + 1 < seen.last)
        seen.last = last + offset + window.right + 1;
    if (window.left != kOpen && first + offset - window.left > 0)
        seen.first = first + offset - window.left;
    return seen.first < seen.last ? seen : KeyRange{0, 0};
}

template <bool with_stats>
class HopperRows {
public:
    // For the warp that has sixteen rows from `first_row` on.
    __device__ __forceinline__ HopperRows(const Problem& problem, const Work& work,
                                          int64_t first_row)
        : first_row_(first_row), lane_(static_cast<int>(threadIdx.x) % kWarp) {
        constexpr float kLog2e = 1.44269504088896340736f;
        // Each lane finds out about one row, lanes 16 to 31 again about those of 0 to 15. Rows
        // behind the last are not stored: they see everything, so that no tile is masked for them.
        const Sequence& sequence = work.sequence;
        const int64_t query = first_row + lane_ % 16;
        int first = 0;
        int last = 0x7fffffff;
        float lambda = 0;
        if (query < sequence.queries) {
            const KeyRange seen = range_of(problem, sequence, query);
            first = static_cast<int>(seen.first);
            last = static_cast<int>(seen.last);
            lambda = factor_of<float>(problem, sequence, work.number, work.kv_head, query);
        }
        all_see_from_ = first;
        all_see_to_ = last;
#pragma unroll
        for (int lanes = 8; lanes > 0; lanes /= 2) {
            all_see_from_ = max(all_see_from_, shuffle_xor(all_see_from_, lanes));
            all_see_to_ = min(all_see_to_, shuffle_xor(all_see_to_, lanes));
        }
        turns_ = any_lane(lambda < 0);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const int row = lane_ / 4 + 8 * i;
            first_[i] = shuffle(first, row);
            last_[i] = shuffle(last, row);
            const float scale = shuffle(lambda, row) * kLog2e;
            sign_[i] = scale < 0 ? -1.0f : 1.0f;
            // Not 0, so that a score of -inf stays one; and too small to make of a finite score
            // more than 2^-21. A NaN stays.
            scale_[i] = fabsf(scale) < kLeast ? kLeast : fabsf(scale);
            top_[i] = -kInfinity;
            sum_[i] = 0;
            moment_[i] = 0;
            keep_[i] = 0;
        }
    }

    // Turns products <q, k> of the tile that begins at this key into weights, and adds them up.
    // Sums of earlier tiles count keep() times.
    __device__ __forceinline__ void weigh(float (&scores)[64], int first_key) {
        if (turns_) {
#pragma unroll
            for (int i = 0; i < 64; ++i) scores[i] *= sign_[i / 2 % 2];
        }
        if (first_key < all_see_from_ || first_key + 128 > all_see_to_) mask(scores, first_key);
        float largest[2] = {-kInfinity, -kInfinity};
#pragma unroll
        for (int i = 0; i < 64; ++i) largest[i / 2 % 2] = fmaxf(largest[i / 2 % 2], scores[i]);
        float shift[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            largest[i] = fmaxf(largest[i], shuffle_xor(largest[i], 1));
            largest[i] = fmaxf(largest[i], shuffle_xor(largest[i], 2));
            const float top = fmaxf(top_[i], scale_[i] * largest[i]);
            shift[i] = top == -kInfinity ? 0.0f : top;
            const float fall = top_[i] - shift[i];
            keep_[i] = exp2_fast(fall);
            if constexpr (with_stats)
                moment_[i] = keep_[i] == 0 ? 0.0f : keep_[i] * fmaf(fall, sum_[i], moment_[i]);
            sum_[i] *= keep_[i];
            top_[i] = top;
        }
#pragma unroll
        for (int i = 0; i < 64; ++i) {
            const int row = i / 2 % 2;
            const float exponent = fmaf(scale_[row], scores[i], -shift[row]);
            scores[i] = exp2_fast(exponent);
            sum_[row] += scores[i];
            // 0 times -inf would be NaN; below -126 the weight is 0.
            if constexpr (with_stats)
                moment_[row] = fmaf(scores[i], fmaxf(exponent, -127.0f), moment_[row]);
        }
    }

    // Brings sums of weighted values of earlier tiles to this tile's reference.
    template <int count>
    __device__ __forceinline__ void rescale(float (&out)[count]) const {
#pragma unroll
        for (int i = 0; i < count; ++i) out[i] *= keep_[i / 2 % 2];
    }

    // Divides by the sums of weights, and stores results and statistics.
    template <class T, int dim>
    __device__ __forceinline__ void finish(float (&out)[dim / 2], const Problem& problem,
                                           const Work& work, int64_t group) {
        bool again[2];
        float inverse[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            sum_[i] += shuffle_xor(sum_[i], 1);
            sum_[i] += shuffle_xor(sum_[i], 2);
            inverse[i] = first_[i] == last_[i] ? 0.0f : 1 / sum_[i];
            again[i] = false;
        }
#pragma unroll
        for (int i = 0; i < dim / 2; ++i) {
            again[i / 2 % 2] |= !(fabsf(out[i]) < kInfinity);
            out[i] *= inverse[i / 2 % 2];
        }
        if constexpr (with_stats) store_stats(problem, work);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const int64_t query = first_row_ + lane_ / 4 + 8 * i;
            const bool inside = query < work.sequence.queries;
            store_row<T, dim>(out, i, problem, work, query, inside);
            // Where the weights are numbers, the values were not, and perhaps those of keys that
            // the row does not see: 0 times them is NaN.
            again[i] = again[i] && inside && sum_[i] < kInfinity;
        }
        if (any_lane(again[0] || again[1])) {
            sync_warp();
            sum_visible<T, dim>(again, inverse, problem, work, group);
        }
    }

private:
    static constexpr float kInfinity = std::numeric_limits<float>::infinity();
    static constexpr float kLeast = std::numeric_limits<float>::denorm_min();

    __device__ __forceinline__ void mask(float (&scores)[64], int first_key) const {
        const int column = first_key + 2 * (lane_ % 4);
#pragma unroll
        for (int i = 0; i < 64; ++i) {
            const int key = column + 8 * (i / 4) + i % 2;
            const int row = i / 2 % 2;
            if (key < first_[row] || key >= last_[row]) scores[i] = -kInfinity;
        }
    }

    __device__ __forceinline__ void store_stats(const Problem& problem, const Work& work) {
        constexpr double kLn2 = 0.69314718055994530942;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            moment_[i] += shuffle_xor(moment_[i], 1);
            moment_[i] += shuffle_xor(moment_[i], 2);
            const int64_t query = first_row_ + lane_ / 4 + 8 * i;
            if (lane_ % 4 != 0 || query >= work.sequence.queries) continue;
            // Sums are relative to top_ as it was rounded: in float64 nothing is lost.
            const RowStats<double> stats = slipstick::attention::row_stats<double>(
                first_[i] == last_[i], top_[i] * kLn2, sum_[i], moment_[i] * kLn2);
            write_stats<float>(problem, work.sequence, work.kv_head, query,
                               {static_cast<float>(stats.lse), static_cast<float>(stats.entropy),
                                static_cast<float>(stats.max_logit)});
        }
    }

    // Row i of the thread. The four lanes that share a row exchange what they have of 32 columns,
    // so that each stores 8 neighbours.
    template <class T, int dim>
    __device__ __forceinline__ void store_row(const float (&out)[dim / 2], int i,
                                              const Problem& problem, const Work& work,
                                              int64_t query, bool inside) const {
        struct alignas(16) Piece {
            uint32_t pairs[4];
        };
        const int lane = lane_ % 4;
        T* const row = problem.out.at<T>(work.sequence.batch, work.kv_head,
                                         work.sequence.first_query + (inside ? query : 0));
#pragma unroll
        for (int columns = 0; columns < dim; columns += 32) {
            Piece piece;
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const int at = columns / 2 + 4 * j + 2 * i;
                piece.pairs[j] = pack<T>(out[at], out[at + 1]);
            }
#pragma unroll
            for (int bit = 1; bit < 4; bit *= 2) {
                const bool upper = (lane & bit) != 0;
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    if ((j & bit) != 0) continue;
                    uint32_t& low = piece.pairs[j];
                    uint32_t& high = piece.pairs[j | bit];
                    const uint32_t other = shuffle_xor(upper ? low : high, bit);
                    (upper ? low : high) = other;
                }
            }
            const int column = columns + 8 * lane;
            if (inside && column < problem.dim_v) *reinterpret_cast<Piece*>(row + column) = piece;
        }
    }

    // Sums the values of the keys that a row sees and of no others, for those of the warp's rows
    // that ask for it: a way for infinities and NaNs among the values, a key after another.
    template <class T, int dim>
    __device__ __forceinline__ void sum_visible(const bool (&again)[2], const float (&inverse)[2],
                                                const Problem& problem, const Work& work,
                                                int64_t group) const {
        constexpr int kOwn = dim / kWarp;  // columns of a lane
        const Sequence& sequence = work.sequence;
        const int64_t kv_head = work.kv_head / group;
        for (int number = 0; number < 16; ++number) {
            const int i = number / 8;
            const int source = number % 8 * 4;
            // The four lanes of a row look at different columns.
            bool wanted = false;
            for (int lane = 0; lane < 4; ++lane)
                wanted |= shuffle(i == 0 ? again[0] : again[1], source + lane);
            if (!wanted) continue;
            const auto of_row = [&](auto one, auto other) {
                return shuffle(i == 0 ? one : other, source);
            };
            const float scale = of_row(sign_[0] * scale_[0], sign_[1] * scale_[1]);
            const float top = of_row(top_[0], top_[1]);
            const float factor = of_row(inverse[0], inverse[1]);
            const int first = of_row(first_[0], first_[1]);
            const int last = of_row(last_[0], last_[1]);
            const int64_t query = sequence.first_query + first_row_ + number;
            const auto load = [&](const Operand& operand, int64_t head, int64_t row, int columns,
                                  int own) {
                const int column = lane_ * kOwn + own;
                if (column >= columns) return 0.0f;
                return to_float(*operand.at<T>(sequence.batch, head, row, column));
            };
            float out[kOwn] = {};
            for (int key = first; key < last; ++key) {
                float product = 0;
                for (int own = 0; own < kOwn; ++own) {
                    product =
                        fmaf(load(problem.query, work.kv_head, query, problem.dim, own),
                             load(problem.key, kv_head, sequence.first_key + key, problem.dim, own),
                             product);
                }
                for (int lanes = kWarp / 2; lanes > 0; lanes /= 2)
                    product += shuffle_xor(product, lanes);
                const float weight = exp2_fast(fmaf(scale, product, -top));
                for (int own = 0; own < kOwn; ++own) {
                    out[own] = fmaf(
                        weight,
                        load(problem.value, kv_head, sequence.first_key + key, problem.dim_v, own),
                        out[own]);
                }
            }
            for (int own = 0; own < kOwn; ++own) {
                const int column = lane_ * kOwn + own;
                if (column >= problem.dim_v) continue;
                store_one(problem.out.at<T>(sequence.batch, work.kv_head, query, column),
                          out[own] * factor);
            }
        }
    }

    __device__ static void store_one(Float16* target, float value) { *target = to_float16(value); }
    __device__ static void store_one(BFloat16* target, float value) {
        *target = to_bfloat16(value);
    }

    int64_t first_row_;
    int lane_;
    int all_see_from_;  // the keys that all rows of the warp see
    int all_see_to_;
    bool turns_;  // whether a row of the warp has a negative lambda
    int first_[2];
    int last_[2];
    float sign_[2];    // of lambda
    float scale_[2];   // |lambda| log2 e
    float top_[2];     // the largest score so far, times log2 e
    float sum_[2];     // of 2^(score - top), over this thread's keys
    float moment_[2];  // of 2^(score - top) (score - top), likewise
    float keep_[2];
};

}  // namespace slipstick::cuda::attention
