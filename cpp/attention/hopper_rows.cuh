// What a warp of forward_hopper.cu does with its 16 rows of scores, beside the products: which keys
// they see, their softmax, their results.
#pragma once

#include "attention/mma_tile.cuh"
#include "attention/online_softmax.cuh"
#include "attention/problem.cuh"

namespace slipstick::cuda::attention {

// The keys that queries `first` to `last` see together: both bounds grow with the query.
__device__ __forceinline__ KeyRange range_of_queries(const Problem& problem,
                                                     const Sequence& sequence, int64_t first,
                                                     int64_t last) {
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

// What a row is to the warp that holds its scores, in shared memory, where it costs no registers.
struct HopperRow {
    int first;  // first <= key < last
    int last;
    float factor;  // lambda
};

// A lane holds what it does of multiply_add's results: of block b of 8 keys or columns, elements
// [b][0] and [b][1] of row lane / 4, [b][2] and [b][3] of row lane / 4 + 8.
template <bool with_stats>
class HopperRows {
public:
    // For queries from `first_query` on, of head work.kv_head. `known` has place for the warp's
    // rows.
    __device__ __forceinline__ HopperRows(const Problem& problem, const Work& work,
                                          HopperRow* known, int first_query)
        : problem_(problem), work_(work), known_(known), first_query_(first_query) {
        // Each lane finds out about one row, lanes 16 to 31 again about those of 0 to 15. Rows
        // behind the last are not stored: they see everything, so that they mask no tile.
        HopperRow row{0, std::numeric_limits<int>::max(), 0.0f};
        if (is_query(lane() % 16)) {
            const int64_t query = first_query + lane() % 16;
            const KeyRange seen = range_of(problem, work.sequence, query);
            row.first = static_cast<int>(seen.first);
            row.last = static_cast<int>(seen.last);
            row.factor = factor_of<float>(problem, work.sequence, work.number, work.kv_head, query);
        }
        if (lane() < 16) known_[lane()] = row;
        common_first_ = row.first;
        common_last_ = row.last;
#pragma unroll
        for (int step = 8; step > 0; step /= 2) {
            const int other_first = shuffle_xor(common_first_, step);
            const int other_last = shuffle_xor(common_last_, step);
            common_first_ = common_first_ > other_first ? common_first_ : other_first;
            common_last_ = common_last_ < other_last ? common_last_ : other_last;
        }
        turns_ = any_lane(row.factor < 0);
        sync_warp();
        rows_ = no_scores(exponent_scale(known_row(0).factor), exponent_scale(known_row(1).factor));
    }

    // Makes weights of the products <q, k> of the tile of keys that begins with `tile`. What was
    // added up with earlier weights counts alpha times.
    template <int blocks>
    __device__ __forceinline__ void weigh(float (&scores)[blocks][4], int tile, float (&alpha)[2]) {
        if (turns_) turn(scores);
        if (tile < common_first_ || tile + 8 * blocks > common_last_) hide(scores, tile);
        take_scores<with_stats>(rows_, scores, alpha);
    }

    // Stores the rows' results, of which the lane has the sums of weighted values, and their
    // statistics. `panels` are places in shared memory for 64 columns each of the block's rows, of
    // which the warp's begin at number `row`.
    template <class T, int blocks, int panel_bytes>
    __device__ __forceinline__ void store(const float (&out)[blocks][4],
                                          unsigned char (*panels)[panel_bytes], int row,
                                          int64_t group) {
        constexpr int kColumns = 64;
        float inverse[2];
        bool wrong[2] = {};
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            rows_.sum[half] = sum_of_row(rows_.sum[half]);
            // 0 where a row that sees keys has no score above -inf.
            inverse[half] = is_empty(half) ? 0.0f : 1.0f / rows_.sum[half];
        }
#pragma unroll
        for (int b = 0; b < blocks; ++b) {
            T* const panel = reinterpret_cast<T*>(panels[b / 8]);
#pragma unroll
            for (int e = 0; e < 4; ++e) wrong[e / 2] |= !(fabsf(out[b][e]) <= kHighest);
            put_result<kColumns>(panel, row, b % 8, out[b], inverse[0], inverse[1]);
        }
        sync_warp();
#pragma unroll
        for (int p = 0; p < blocks / 8; ++p) {
            store_rows<16, kColumns>(
                reinterpret_cast<const T*>(panels[p]), row, problem_.dim_v - kColumns * p, true, 1,
                [&](int r) {
                    return is_query(r - row) ? out_at<T>(r - row) + kColumns * p : nullptr;
                });
        }
        if constexpr (with_stats) store_stats();
        // Where the weights are numbers, values were not, and perhaps those of keys that the row
        // does not see: their weight 0 times infinity is NaN.
#pragma unroll
        for (int half = 0; half < 2; ++half)
            wrong[half] = wrong[half] && rows_.sum[half] <= kHighest;
        if (any_lane(wrong[0] || wrong[1])) store_visible<T, 8 * blocks>(wrong, inverse, group);
    }

private:
    static constexpr float kHighest = std::numeric_limits<float>::max();

    // By number among the warp's rows.
    __device__ __forceinline__ bool is_query(int row) const {
        return first_query_ + row < work_.sequence.queries;
    }
    template <class T>
    __device__ __forceinline__ T* out_at(int row) const {
        return problem_.out.at<T>(work_.sequence.batch, work_.kv_head,
                                  work_.sequence.first_query + first_query_ + row);
    }
    __device__ static int lane() { return static_cast<int>(threadIdx.x) % kWarp; }
    // The lane's rows.
    __device__ __forceinline__ const HopperRow& known_row(int half) const {
        return known_[lane() / 4 + 8 * half];
    }
    __device__ __forceinline__ bool is_empty(int half) const {
        return known_row(half).first == known_row(half).last;
    }

    template <int blocks>
    __device__ __forceinline__ void turn(float (&scores)[blocks][4]) const {
        const float sign[2] = {known_row(0).factor < 0 ? -1.0f : 1.0f,
                               known_row(1).factor < 0 ? -1.0f : 1.0f};
#pragma unroll
        for (int b = 0; b < blocks; ++b) {
#pragma unroll
            for (int e = 0; e < 4; ++e) scores[b][e] *= sign[e / 2];
        }
    }

    template <int blocks>
    __device__ __forceinline__ void hide(float (&scores)[blocks][4], int tile) const {
        const int column = tile + lane() % 4 * 2;
        const int first[2] = {known_row(0).first - column, known_row(1).first - column};
        const int last[2] = {known_row(0).last - column, known_row(1).last - column};
#pragma unroll
        for (int b = 0; b < blocks; ++b) {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const int key = 8 * b + e % 2;
                if (key < first[e / 2] || key >= last[e / 2]) scores[b][e] = kHidden;
            }
        }
    }

    __device__ __forceinline__ void store_stats() const {
        constexpr double kPreciseLn2 = 0.69314718055994530942;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const float moment = sum_of_row(rows_.moment[half]);
            const int row = lane() / 4 + 8 * half;
            if (lane() % 4 != 0 || !is_query(row)) continue;
            const double largest = fabs(double{known_row(half).factor}) * rows_.maximum[half];
            const RowStats<double> stats = slipstick::attention::row_stats<double>(
                is_empty(half), largest, rows_.sum[half], kPreciseLn2 * moment);
            write_stats<float>(problem_, work_.sequence, work_.kv_head, first_query_ + row,
                               {static_cast<float>(stats.lse), static_cast<float>(stats.entropy),
                                static_cast<float>(stats.max_logit)});
        }
    }

    // Sums up the values of the keys that a row sees and of no others, for those of the warp's rows
    // whose sums are wrong. Infinities and NaNs among values are an accident, so this goes the
    // plainest way, key by key.
    template <class T, int columns>
    __device__ __forceinline__ void store_visible(const bool (&wrong)[2], const float (&inverse)[2],
                                                  int64_t group) const {
        constexpr int kOwn = columns / kWarp;  // columns of a lane
        const Sequence& sequence = work_.sequence;
        const int column = lane() * kOwn;
        const auto element = [&](const Operand& operand, int64_t head, int64_t row, int i,
                                 int count) {
            return column + i < count
                       ? to_float(*operand.at<T>(sequence.batch, head, row, column + i))
                       : 0.0f;
        };
        sync_warp();
#pragma unroll 1
        for (int row = 0; row < 16; ++row) {
            const bool lower = row >= 8;
            const int source = row % 8 * 4;
            // The four lanes of a row have different columns.
            const bool is_mine = lane() / 4 == row % 8 && (lower ? wrong[1] : wrong[0]);
            if (!any_lane(is_mine) || !is_query(row)) continue;
            const auto of_row = [&](auto upper_value, auto lower_value) {
                return shuffle(lower ? lower_value : upper_value, source);
            };
            const float scale = of_row(rows_.scale[0], rows_.scale[1]);
            const float maximum = of_row(rows_.maximum[0], rows_.maximum[1]);
            const float sign = known_[row].factor < 0 ? -1.0f : 1.0f;
            const float factor = of_row(inverse[0], inverse[1]);
            const int64_t first = sequence.first_key + known_[row].first;
            const int64_t last = sequence.first_key + known_[row].last;
            const int64_t kv_head = work_.kv_head / group;
            float out[kOwn] = {};
#pragma unroll 1
            for (int64_t key = first; key < last; ++key) {
                float product = 0;
#pragma unroll
                for (int i = 0; i < kOwn; ++i) {
                    product =
                        fmaf(element(problem_.query, work_.kv_head,
                                     sequence.first_query + first_query_ + row, i, problem_.dim),
                             element(problem_.key, kv_head, key, i, problem_.dim), product);
                }
#pragma unroll
                for (int step = kWarp / 2; step > 0; step /= 2)
                    product += shuffle_xor(product, step);
                const float weight = exp2_fast(scale * (sign * product - maximum));
#pragma unroll
                for (int i = 0; i < kOwn; ++i) {
                    out[i] = fmaf(weight, element(problem_.value, kv_head, key, i, problem_.dim_v),
                                  out[i]);
                }
            }
#pragma unroll
            for (int i = 0; i < kOwn; ++i) {
                const uint32_t rounded = pack<T>(out[i] * factor, 0.0f);
                if (column + i < problem_.dim_v)
                    out_at<T>(row)[column + i] = T{static_cast<uint16_t>(rounded)};
            }
        }
    }

    const Problem& problem_;
    const Work& work_;
    HopperRow* const known_;  // of the warp
    const int first_query_;
    int common_first_;  // the keys that all of the warp's rows see
    int common_last_;
    bool turns_;       // whether a row of the warp has a negative lambda
    OnlineRows rows_;  // the lane's two
};

}  // namespace slipstick::cuda::attention
