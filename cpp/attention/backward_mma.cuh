// Gradients of float16 and bfloat16 attention on tensor cores, in float32 sums.
//
// Two kernels of one build. A block owns a tile of keys, and the rows that see it stream past, one
// head of the group after another (dK, dV); or it owns a tile of rows, and the keys stream past
// (dQ). Either recomputes, with A and B of what it owns and X and Y of what streams past,
//
//   scores = A X^T (q k)    grads = B Y^T (dO v)    p = e^(s - lse)    dR = p (grads - ...) slope
//   first += dR X           second += p Y (dV alone)
//
// A warp has whole rows of what the block owns, so that its accumulators of scores and grads are,
// rounded to 16 bits, the left operands of its next products as they stand: nothing is exchanged,
// and a block meets once a tile. lambda multiplies dR before it is rounded for dK, and Qt in
// float32 for dQ.
//
// That makes 7 products where 5 would do, since scores and grads are computed twice (8 where heads
// are wider than 128: registers hold one of dK and dV). One kernel with 5 has to add its part of dQ
// to float32 sums in global memory in the order of the keys. Blocks that draw their numbers from a
// counter could wait for lower ones without a deadlock, but each pair of tiles would pay for a look
// at a flag, a read, a write and a fence one after another, estimated at 1.3 us, where its products
// take 2 to 4; and dR would go through shared memory. Two kernels need no sums in global memory,
// and no block waits.
//
//   columns   owned         streamed   warps   shared memory, two stages or one
//     64      128           64         4       69 or 53 KiB
//    128      128           64         8       133 or 99 KiB
//    256       64           32         4       131 or 99 KiB
//
// Registers (ptxas of CUDA 13.0, sm_80 and sm_90): 233 to 255, and no spills but in the kernels of
// dK and dV together: 28 to 132 bytes, mostly places of the loop over tiles, read a few times a
// tile of 256 products a warp (sm_100: 96 to 204).
#pragma once

#include "attention/backward_products.cuh"
#include "attention/backward_tiles.cuh"

namespace slipstick::cuda::attention {

template <class T, class Shape, Gradient gradient, bool full>
class BackwardBlock : BackwardTiles<T, Shape, gradient != Gradient::kQuery, full> {
    using Tiles = BackwardTiles<T, Shape, gradient != Gradient::kQuery, full>;
    using Tiles::arguments_;
    using Tiles::begin_;
    using Tiles::bias_of_key;
    using Tiles::end_;
    using Tiles::fetch;
    using Tiles::fetch_streamed;
    using Tiles::find_ranges;
    using Tiles::group_;
    using Tiles::is_hidden_in;
    using Tiles::kOwned;
    using Tiles::kOwnsKeys;
    using Tiles::kRows;
    using Tiles::kStreamed;
    using Tiles::kv_head_;
    using Tiles::kWidth;
    using Tiles::length_;
    using Tiles::load_owned;
    using Tiles::load_streamed;
    using Tiles::number_;
    using Tiles::numbers_;
    using Tiles::options_at;

    using Tiles::own_;
    using Tiles::owned_;
    using Tiles::problem_;
    using Tiles::row_in;
    using Tiles::row_number;
    using Tiles::rows_;
    using Tiles::sees;
    using Tiles::store_numbers;
    using Tiles::store_streamed_numbers;
    using Tiles::streamed;
    using Tiles::thread;
    using typename Tiles::Fetched;
    using typename Tiles::Place;
    static constexpr bool kFirst = gradient != Gradient::kValue;  // dQ or dK
    static constexpr bool kSecond =
        gradient == Gradient::kValue || gradient == Gradient::kKeyAndValue;
    static constexpr int kTall = Shape::kTall;
    static constexpr int kColumns = Shape::kAcross / 8;  // of 8 accumulators

public:
    __device__ __forceinline__ explicit BackwardBlock(const BackwardArguments& arguments)
        : Tiles(arguments), warp_row_(thread() / kWarp * 16 * kTall) {}

    __device__ __forceinline__ void run() {
        __shared__ int poisoned;  // whether what a row does not see may be no number
        if (thread() == 0) poisoned = 0;
        load_owned();
        if constexpr (kOwnsKeys) {
            const slipstick::attention::QueryRange queries =
                slipstick::attention::query_range(problem_.window, problem_.queries, problem_.keys,
                                                  length_, {owned_, int64_t{owned_} + kOwned});
            begin_ = static_cast<int>(queries.first);
            end_ = static_cast<int>(queries.last);
        } else {
            store_numbers(0, owned_ + thread(), owned_ + thread() < rows_,
                          fetch(owned_ + thread(), owned_ + thread() < rows_));
            __syncthreads();
            find_ranges();
        }
        const bool doubled = arguments_.stages == 2;
        int buffer = 0;
        Place place{0, begin_};
        bool more = begin_ < end_;
        if (more) load_streamed(0, place);
        if (kOwnsKeys && more) store_streamed_numbers(0, place, fetch_streamed(place));
        while (more) {
            const bool last = end_ - place.start <= kStreamed;
            const Place next =
                last ? Place{place.head + 1, begin_} : Place{place.head, place.start + kStreamed};
            more = !last || (kOwnsKeys && next.head < static_cast<int>(group_));
            wait_for_copies<0>();
            __syncthreads();
            if (doubled && more) load_streamed(buffer ^ 1, next);
            Fetched fetched{};
            if (kOwnsKeys && more) fetched = fetch_streamed(next);
            const bool hides = is_hidden_in(buffer, place.start);
            if (hides) {
                if (streams_nonfinite(buffer)) poisoned = 1;
                __syncthreads();
            }
            // Two whole runs of products a kernel, as compilation and registers allow: where all
            // tiles may hide, one is for those that are clean, else partial tiles are cleaned
            // anyway.
            if (full ? hides && poisoned != 0 : hides) {
                add_tile<true, true>(buffer, place.start);
            } else {
                add_tile<full, false>(buffer, place.start);
            }
            if (doubled) {
                buffer ^= 1;
            } else {
                __syncthreads();
                if (more) load_streamed(0, next);
            }
            if (kOwnsKeys && more) store_streamed_numbers(buffer, next, fetched);
            place = next;
        }
        wait_for_copies<0>();
        __syncthreads();
        store();
        if (poisoned != 0) put_all_back();
    }

private:
    // Of what is a right operand of a sum over the tile.
    __device__ __forceinline__ bool streams_nonfinite(int buffer) const {
        const auto holds = [&](int which) {
            return holds_nonfinite<kStreamed, kWidth, Shape::kThreads>(streamed(buffer, which));
        };
        return (kFirst && holds(0)) || (kSecond && holds(1));
    }

    struct Pair {
        float p;
        float grad;
    };
    // From q k and dO v of a row and a key to p and dR.
    __device__ __forceinline__ Pair differentiate(float product, float grad,
                                                  const RowNumbers& numbers, float grad_entropy,
                                                  float bias) const {
        // Rounded as lse is: with the product exact, or log2 e in both, p of a row's one large
        // score would be off by the rounding of lse, which is all of p from scores of 2^24 on.
        float score = product * numbers.factor;
        if constexpr (!full) {
            const float p = exp2_fast((score - numbers.lse) * kLog2E);
            return {p, p * (grad - numbers.constant)};
        } else {
            float slope = 1.0f;
            if (problem_.softcap != 0) {
                const float t = tanhf(score * arguments_.inverse_cap);
                slope = fmaf(-t, t, 1.0f);
                score = t * static_cast<float>(problem_.softcap);
            }
            const float u = score + bias - numbers.lse;
            const float p = exp2_fast(u * kLog2E);
            // p is 0 below, and 0 times an infinite u would be NaN.
            constexpr float kLowest = -104.0f;
            const float inner = fmaf(-grad_entropy, fmaxf(u, kLowest), grad - numbers.constant);
            return {p, p * inner * slope};
        }
    }

    // One tile that streams past.
    template <bool hides, bool clears>
    __device__ __forceinline__ void add_tile(int buffer, int start) {
#pragma unroll 1
        for (int across = 0; across < kStreamed; across += Shape::kAcross) {
            float scores[kTall][kColumns][4];
            float grads[kTall][kColumns][4];
            multiply_rows<kWidth>(scores, own_[0], warp_row_, streamed(buffer, 0), across);
            if constexpr (kFirst)
                multiply_rows<kWidth>(grads, own_[1], warp_row_, streamed(buffer, 1), across);
            differentiate_all<hides>(scores, grads, buffer, start, across);
            if constexpr (kSecond) add<clears>(second_, scores, streamed(buffer, 1), across);
            if constexpr (kFirst) add<clears>(first_, grads, streamed(buffer, 0), across);
        }
    }

    // scores become p, grads become dR, for dK times lambda; 0 by selection where the key is
    // hidden.
    template <bool hides>
    __device__ __forceinline__ void differentiate_all(float (&scores)[kTall][kColumns][4],
                                                      float (&grads)[kTall][kColumns][4],
                                                      int buffer, int start, int across) {
        const int lane = thread() % kWarp;
        // Element k of accumulator (i, n) is this row of what the block owns, and this one of what
        // streams past.
        const auto owned_row = [&](int i, int k) {
            return warp_row_ + 16 * i + lane / 4 + k / 2 * 8;
        };
        const auto streamed_row = [&](int n, int k) {
            return across + 8 * n + lane % 4 * 2 + k % 2;
        };
        const auto visit = [&](int i, int n, int k, const RowNumbers& numbers,
                               const RowOptions& options) {
            float bias = 0.0f;
            bool sees = true;
            if constexpr (hides) {
                // Differences, since numbers of keys that are not there may lie beyond an int.
                const int base = kOwnsKeys ? owned_ : start;
                const int place_in = kOwnsKeys ? owned_row(i, k) : streamed_row(n, k);
                sees = place_in >= options.first - base && place_in < options.last - base;
                if (full && sees && problem_.has_mask()) {
                    bias = bias_of_key(options.mask, base + place_in);
                    sees = bias != -std::numeric_limits<float>::infinity();
                }
            }
            const Pair pair = differentiate(scores[i][n][k], kFirst ? grads[i][n][k] : 0.0f,
                                            numbers, options.grad_entropy, bias);
            scores[i][n][k] = sees ? pair.p : 0.0f;
            const float grad = kOwnsKeys ? pair.grad * numbers.grad_factor : pair.grad;
            if constexpr (kFirst) grads[i][n][k] = sees ? grad : 0.0f;
        };
        const int set = kOwnsKeys ? buffer * kRows : 0;
        constexpr bool kWantsOptions = hides || full;
#pragma unroll
        for (int outer = 0; outer < (kOwnsKeys ? kColumns : kTall); ++outer) {
#pragma unroll
            for (int side = 0; side < 2; ++side) {
                const int place =
                    set + (kOwnsKeys ? streamed_row(outer, side) : owned_row(outer, 2 * side));
                const RowNumbers numbers = numbers_[place];
                const RowOptions options = kWantsOptions ? options_at(place) : RowOptions{};
#pragma unroll
                for (int inner = 0; inner < (kOwnsKeys ? kTall : kColumns); ++inner) {
#pragma unroll
                    for (int k = 0; k < 2; ++k) {
                        if constexpr (kOwnsKeys) {
                            visit(inner, outer, 2 * k + side, numbers, options);
                        } else {
                            visit(outer, inner, 2 * side + k, numbers, options);
                        }
                    }
                }
            }
        }
    }

    // sums += weights times the rows of a tile, the weights rounded.
    template <bool clears>
    __device__ __forceinline__ void add(float (&sums)[kTall][kWidth / 8][4],
                                        const float (&weights)[kTall][kColumns][4], const T* tile,
                                        int across) {
#pragma unroll
        for (int n = 0; n < kColumns; n += 2) {
            uint32_t left[kTall][4];
#pragma unroll
            for (int i = 0; i < kTall; ++i) pack_a<T>(left[i], weights[i][n], weights[i][n + 1]);
            add_rows<kWidth, clears>(sums, left, tile, across + 8 * n);
        }
    }

    __device__ __forceinline__ void store() {
        if constexpr (kOwnsKeys) {
            if constexpr (kFirst) {
                const float scale = 1.0f / arguments_.key_unit;
                store_keys(first_, arguments_.grad_key, problem_.dim, arguments_.grad_key_aligned,
                           scale);
            }
            if constexpr (kSecond) {
                store_keys(second_, arguments_.grad_value, problem_.dim_v,
                           arguments_.grad_value_aligned, 1.0f);
            }
        } else {
            store_grad_factor();
            store_queries();
        }
    }

    // By way of the warp's own rows of a tile.
    __device__ __forceinline__ void store_keys(const float (&sums)[kTall][kWidth / 8][4],
                                               const Target& target, int columns, bool aligned,
                                               float scale) {
        sync_warp();
#pragma unroll
        for (int i = 0; i < kTall; ++i) {
#pragma unroll
            for (int n = 0; n < kWidth / 8; ++n)
                put_result<kWidth>(own_[0], warp_row_ + 16 * i, n, sums[i][n], scale, scale);
        }
        sync_warp();
        const int count = static_cast<int>(problem_.keys) - owned_;
        store_rows<16 * kTall, kWidth>(
            own_[0], warp_row_, columns, aligned, target.column, [&](int r) {
                return r < count ? target.template at<T>(number_, kv_head_, owned_ + r) : nullptr;
            });
    }

    // dQ = lambda Qt, and 0 where a row has no gradient, whatever its lambda is.
    __device__ __forceinline__ void store_queries() {
        const int lane = thread() % kWarp;
        const auto factor_of_row = [&](int row) {
            return has_gradient(row) ? arguments_.rows.factor[row_number(owned_ + row)] : 0.0f;
        };
        sync_warp();
#pragma unroll
        for (int i = 0; i < kTall; ++i) {
            const int row = warp_row_ + 16 * i;
            const float upper = factor_of_row(row + lane / 4);
            const float lower = factor_of_row(row + lane / 4 + 8);
#pragma unroll
            for (int n = 0; n < kWidth / 8; ++n)
                put_result<kWidth>(own_[0], row, n, first_[i][n], upper, lower);
        }
        sync_warp();
        const Target& target = arguments_.grad_query;
        const int count = rows_ - owned_;
        store_rows<16 * kTall, kWidth>(
            own_[0], warp_row_, problem_.dim, arguments_.grad_query_aligned, target.column,
            [&](int r) { return r < count ? row_in(target, owned_ + r) : nullptr; });
    }
    __device__ __forceinline__ bool has_gradient(int row) const {
        return row < rows_ - owned_ && numbers_[row].lse != std::numeric_limits<float>::infinity();
    }

    // <q, Qt> of each row.
    __device__ __forceinline__ void store_grad_factor() {
        const int lane = thread() % kWarp;
#pragma unroll
        for (int i = 0; i < kTall; ++i) {
#pragma unroll
            for (int side = 0; side < 2; ++side) {
                const int row = warp_row_ + 16 * i + lane / 4 + 8 * side;
                double sum = 0;
#pragma unroll
                for (int n = 0; n < kWidth / 8; ++n) {
                    const T* const query = own_[0] + chunk_at<kWidth>(row, n) + lane % 4 * 2;
                    for (int k = 0; k < 2; ++k) {
                        sum = fma(static_cast<double>(to_float(query[k])),
                                  static_cast<double>(first_[i][n][2 * side + k]), sum);
                    }
                }
                sum += shuffle_xor(sum, 1);
                sum += shuffle_xor(sum, 2);
                if (lane % 4 == 0 && row < rows_ - owned_) {
                    arguments_.rows.grad_factor[row_number(owned_ + row)] =
                        has_gradient(row) ? sum : 0;
                }
            }
        }
    }

    // --- What is no number ---
    //
    // 0 times an infinity is NaN, so tiles of which a row does not see all count those as 0 in the
    // sums over what streams past, and they come back here where they are seen. A row or key with
    // one has NaN for its scores or grads, which took their way through the weights. Such values
    // are an accident, so this takes the plainest way.

    __device__ __forceinline__ void put_all_back() {
        __syncthreads();
        if constexpr (kOwnsKeys) {
            if (kFirst) put_back(problem_.query, arguments_.grad_key, problem_.dim, false);
            if (kSecond)
                put_back(arguments_.grad_out_rows, arguments_.grad_value, problem_.dim_v, true);
        } else {
            put_back(problem_.key, arguments_.grad_query, problem_.dim, false);
        }
    }
    // The weights of dV are not negative; others are NaN or 0 where the source is no number.
    __device__ __forceinline__ void put_back(const Operand& source, const Target& target,
                                             int columns, bool positive) {
        const int lines =
            std::min((kOwnsKeys ? static_cast<int>(problem_.keys) : rows_) - owned_, int{kOwned});
        const int streams = kOwnsKeys ? static_cast<int>(group_) : 1;
#pragma unroll 1
        for (int i = thread(); i < lines * columns; i += Shape::kThreads) {
            const int own = owned_ + i / columns;
            const int column = i % columns;
            float sum = 0;
#pragma unroll 1
            for (int other = begin_ * streams; other < end_ * streams; ++other) {
                const T* const line =
                    kOwnsKeys ? row_in(source, other) : source.at<T>(number_, kv_head_, other);
                const T element = line[column * source.column];
                if ((element.bits & kExponent<T>) != kExponent<T>) continue;
                if (!sees(kOwnsKeys ? other : own, kOwnsKeys ? own : other)) continue;
                sum += positive ? to_float(element) : std::numeric_limits<float>::quiet_NaN();
            }
            if (sum == 0) continue;
            T* const result =
                (kOwnsKeys ? target.at<T>(number_, kv_head_, own) : row_in(target, own)) +
                column * target.column;
            result->bits = static_cast<uint16_t>(pack<T>(to_float(*result) + sum, 0.0f));
        }
    }

    int warp_row_;  // the first row of the warp's among those that the block owns
    float first_[kTall][kFirst ? kWidth / 8 : 1][4] = {};
    float second_[kTall][kSecond ? kWidth / 8 : 1][4] = {};
};

template <class T, class Shape, Gradient gradient, bool full>
__global__ __launch_bounds__(Shape::kThreads) void backward_kernel(
    const BackwardArguments arguments) {
    BackwardBlock<T, Shape, gradient, full>(arguments).run();
}

// Compiled in a file for each T.
template <class T>
void run_backward_mma(const Context& context, const BackwardProblem& problem,
                      const BackwardRows<float>& rows);

}  // namespace slipstick::cuda::attention
