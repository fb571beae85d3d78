// Gradients of float16 and bfloat16 attention on tensor cores, in float32 sums.
//
// Two kernels of one build. A block owns a tile of keys, and the rows that see it stream past (dK,
// dV); or it owns a tile of rows, and the keys stream past (dQ). Either recomputes, with A and B of
// what it owns and X and Y of what streams past,
//
//   scores = A X^T (q k)    grads = B Y^T (dO v)    p = e^(s - lse)    dR = p (grads - ...) slope
//   first += dR X           second += p Y (dV alone)
//
// A warp has whole rows of what the block owns, so that its accumulators of scores and grads are,
// rounded to 16 bits, the left operands of its next products as they stand: nothing is exchanged,
// and a block meets once a tile. That makes 7 products where 5 would do, since scores and grads are
// computed twice. One kernel with 5 has to add its part of dQ to float32 sums in global memory in
// the order of the keys: blocks then wait for each other, and each pair of tiles pays for a look at
// a counter, a read, a write and a fence one after another, of about 1.3 us together, where the
// products of 128 keys by 64 rows take 2 to 4 us; and dR goes through shared memory. Two kernels
// need no workspace at all, and no block waits.
#pragma once

#include <algorithm>

#include "attention/backward_products.cuh"
#include "attention/device_kernels.cuh"
#include "core/launch.cuh"

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
};
using NarrowShape = BackwardShape<64, 4, 2, 64, 32>;
using MiddleShape = BackwardShape<128, 8, 1, 64, 64>;
using WideShape = BackwardShape<256, 4, 1, 32, 32>;

// What the scores of a row need.
struct alignas(16) RowNumbers {
    float factor;       // lambda; times log2 e where nothing else becomes of a score
    float lse;          // likewise
    float constant;     // D - dL + dH H
    float grad_factor;  // lambda; where keys are owned, times BackwardArguments::key_unit
};
struct alignas(16) RowOptions {
    int first;  // first <= key < last is seen
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
// then the numbers of the rows, owned or for each stage.
template <class Shape>
size_t backward_shared_bytes(int stages, bool owns_keys) {
    const int lines = 2 * Shape::kOwned + 2 * stages * Shape::kStreamed;
    const int rows = owns_keys ? stages * Shape::kStreamed : Shape::kOwned;
    constexpr size_t kNumbers = sizeof(RowNumbers) + sizeof(RowOptions) + sizeof(int64_t);
    return static_cast<size_t>(lines) * Shape::kWidth * 2 + static_cast<size_t>(rows) * kNumbers;
}

inline constexpr float kLog2E = 1.4426950408889634f;

template <class T, class Shape, Gradient gradient, bool full>
class BackwardBlock {
    static constexpr bool kOwnsKeys = gradient != Gradient::kQuery;
    static constexpr bool kFirst = gradient != Gradient::kValue;  // dQ or dK
    static constexpr bool kSecond =
        gradient == Gradient::kValue || gradient == Gradient::kKeyAndValue;
    static constexpr int kWidth = Shape::kWidth;
    static constexpr int kTall = Shape::kTall;
    static constexpr int kOwned = Shape::kOwned;
    static constexpr int kStreamed = Shape::kStreamed;
    static constexpr int kColumns = Shape::kAcross / 8;           // of 8 accumulators
    static constexpr int kRows = kOwnsKeys ? kStreamed : kOwned;  // of a set of numbers

public:
    __device__ __forceinline__ BackwardBlock(const BackwardArguments& arguments)
        : arguments_(arguments), problem_(arguments.problem) {
        group_ = static_cast<unsigned>(problem_.group);
        rows_ = static_cast<int>(problem_.group * problem_.queries);
        const auto lines = static_cast<unsigned>(kOwnsKeys ? problem_.keys : rows_);
        const unsigned tiles = (lines + kOwned - 1) / kOwned;
        const auto heads = static_cast<unsigned>(problem_.kv_heads);
        kv_head_ = static_cast<int>(blockIdx.x / tiles % heads);
        number_ = static_cast<int>(blockIdx.x / tiles / heads);
        length_ = static_cast<int>(sequence_of(problem_, number_).length);
        // Under causal order the first keys and the last rows have most to do: they come first.
        const unsigned tile = blockIdx.x % tiles;
        owned_ = static_cast<int>((kOwnsKeys ? tile : tiles - 1 - tile) * kOwned);
        warp_row_ = static_cast<int>(threadIdx.x) / kWarp * 16 * kTall;

        T* const tiles_at = dynamic_shared<T>();
        own_[0] = tiles_at;
        own_[1] = own_[0] + kOwned * kWidth;
        streamed_at_ = own_[1] + kOwned * kWidth;
        const int sets = kOwnsKeys ? arguments.stages : 1;
        numbers_ =
            reinterpret_cast<RowNumbers*>(streamed_at_ + 2 * arguments.stages * kStreamed * kWidth);
        options_ = reinterpret_cast<RowOptions*>(numbers_ + sets * kRows);
        mask_rows_ = reinterpret_cast<int64_t*>(options_ + sets * kRows);
    }

    __device__ __forceinline__ void run() {
        __shared__ int poisoned;  // whether what a row does not see may be no number
        if (threadIdx.x == 0) poisoned = 0;
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
            if (hides || full) {
                add_tile<true>(buffer, place.start, hides && poisoned != 0);
            } else {
                add_tile<false>(buffer, place.start, false);
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
    // A tile that streams past: rows of a head of the group, from a query on, or keys.
    struct Place {
        int head;
        int start;
    };
    struct Fetched {
        float factor;
        float lse;
        float constant;
        float grad_entropy;
    };

    __device__ __forceinline__ T* streamed(int buffer, int which) const {
        return streamed_at_ + (2 * buffer + which) * kStreamed * kWidth;
    }

    // Where row `row` of the key head lies in query, dO, dQ.
    template <class Data>
    __device__ __forceinline__ auto row_in(const Steps<Data>& tensor, int row) const {
        const auto number = static_cast<unsigned>(row);
        return tensor.template at<T>(number_, kv_head_ * problem_.group + number % group_,
                                     number / group_);
    }

    // Rows first, first + 1, ... of a head's tensor, up to `end`, as far as the tile goes.
    template <int kLines>
    __device__ __forceinline__ void load_head(T* tile, const TileSource& source,
                                              const Operand& operand, int head, int first,
                                              int end) {
        load_rows<kLines, kWidth, Shape::kThreads>(tile, source,
                                                   operand.template at<T>(number_, head, first),
                                                   operand.row, 0, end - first);
    }
    // Of all heads of the group.
    __device__ __forceinline__ void load_group(T* tile, const TileSource& source,
                                               const Operand& operand) {
        load_tile<kOwned, kWidth, Shape::kThreads>(tile, source, [&](int r) {
            return r < rows_ - owned_ ? row_in(operand, owned_ + r) : nullptr;
        });
    }

    __device__ __forceinline__ void load_owned() {
        const BackwardArguments& a = arguments_;
        if constexpr (kOwnsKeys) {
            load_head<kOwned>(own_[0], a.key, problem_.key, kv_head_, owned_, length_);
            if (kFirst)
                load_head<kOwned>(own_[1], a.value, problem_.value, kv_head_, owned_, length_);
        } else {
            load_group(own_[0], a.query, problem_.query);
            load_group(own_[1], a.grad_out, a.grad_out_rows);
        }
    }
    __device__ __forceinline__ void load_streamed(int buffer, const Place& place) {
        const BackwardArguments& a = arguments_;
        T* const one = streamed(buffer, 0);
        T* const two = streamed(buffer, 1);
        if constexpr (kOwnsKeys) {
            const int head = kv_head_ * static_cast<int>(group_) + place.head;
            load_head<kStreamed>(one, a.query, problem_.query, head, place.start, end_);
            load_head<kStreamed>(two, a.grad_out, a.grad_out_rows, head, place.start, end_);
        } else {
            load_head<kStreamed>(one, a.key, problem_.key, kv_head_, place.start, end_);
            load_head<kStreamed>(two, a.value, problem_.value, kv_head_, place.start, end_);
        }
        commit_copies();
    }

    // The numbers of a row, which is this thread's, read long before they are stored.
    __device__ __forceinline__ Fetched fetch(int row, bool there) const {
        Fetched fetched{};
        if (!there) return fetched;
        const int64_t at = row_number(row);
        fetched.factor = arguments_.rows.factor[at];
        fetched.lse = arguments_.rows.lse[at];
        fetched.constant = arguments_.rows.constant[at];
        if (full && arguments_.rows.grad_entropy != nullptr)
            fetched.grad_entropy = arguments_.rows.grad_entropy[at];
        return fetched;
    }
    __device__ __forceinline__ int64_t row_number(int row) const {
        return (number_ * problem_.kv_heads + kv_head_) * rows_ + row;
    }
    // A row that is not there sees nothing, and has zeros for operands.
    __device__ __forceinline__ void store_numbers(int buffer, int row, bool there,
                                                  const Fetched& fetched) {
        if (thread() >= kRows) return;
        const int place = buffer * kRows + thread();
        const float log2_e = full ? 1.0f : kLog2E;
        numbers_[place] = {fetched.factor * log2_e, fetched.lse * log2_e, fetched.constant,
                           kOwnsKeys ? fetched.factor * arguments_.key_unit : fetched.factor};
        RowOptions options{0, 0, fetched.grad_entropy};
        if (there) {
            const KeyRange seen = range_of_row(row, fetched.lse);
            options.first = static_cast<int>(seen.first);
            options.last = static_cast<int>(seen.last);
            if (full) mask_rows_[place] = mask_row(row);
        }
        options_[place] = options;
    }
    __device__ __forceinline__ Fetched fetch_streamed(const Place& place) const {
        return fetch(streamed_row_number(place), is_streamed_row(place));
    }
    __device__ __forceinline__ void store_streamed_numbers(int buffer, const Place& place,
                                                           const Fetched& fetched) {
        store_numbers(buffer, streamed_row_number(place), is_streamed_row(place), fetched);
    }
    __device__ __forceinline__ int streamed_row_number(const Place& place) const {
        return (place.start + thread()) * static_cast<int>(group_) + place.head;
    }
    __device__ __forceinline__ bool is_streamed_row(const Place& place) const {
        return thread() < kRows && thread() < end_ - place.start;
    }

    __device__ __forceinline__ KeyRange range_of_row(int row, float lse) const {
        if (lse == std::numeric_limits<float>::infinity()) return {0, 0};
        return slipstick::attention::key_range(problem_.window, problem_.queries, problem_.keys,
                                               length_, static_cast<unsigned>(row) / group_);
    }
    // Where the row's mask begins.
    __device__ __forceinline__ int64_t mask_row(int row) const {
        const int64_t query = static_cast<unsigned>(row) / group_;
        const int64_t head = kv_head_ * problem_.group + static_cast<unsigned>(row) % group_;
        return number_ * problem_.mask.batch + head * problem_.mask.head +
               query * problem_.mask.row;
    }
    __device__ __forceinline__ float bias_of_key(int64_t mask_row, int key) const {
        return bias_at<float>(problem_, mask_row + key * problem_.mask.column);
    }

    // Keys that some and that all of the rows see which the block owns.
    __device__ __forceinline__ void find_ranges() {
        int some_first = std::numeric_limits<int>::max();
        int some_last = 0;
        int all_first = 0;
        int all_last = std::numeric_limits<int>::max();
        const int count = std::min(rows_ - owned_, int{kOwned});
        for (int row = static_cast<int>(threadIdx.x) % kWarp; row < count; row += kWarp) {
            const RowOptions options = options_[row];
            if (options.last > 0) {
                some_first = std::min(some_first, options.first);
                some_last = std::max(some_last, options.last);
            }
            all_first = std::max(all_first, options.first);
            all_last = std::min(all_last, options.last);
        }
        for (int step = kWarp / 2; step > 0; step /= 2) {
            some_first = std::min(some_first, shuffle_xor(some_first, step));
            some_last = std::max(some_last, shuffle_xor(some_last, step));
            all_first = std::max(all_first, shuffle_xor(all_first, step));
            all_last = std::min(all_last, shuffle_xor(all_last, step));
        }
        begin_ = some_first;
        end_ = some_last;
        all_first_ = all_first;
        all_last_ = all_last;
    }

    // Whether a key of the tile is hidden from a row of it, as every warp finds.
    __device__ __forceinline__ bool is_hidden_in(int buffer, int start) const {
        if (full && problem_.has_mask()) return true;
        if constexpr (kOwnsKeys) {
            bool hides = false;
            const int count = std::min(end_ - start, int{kRows});
            const int keys = std::min(static_cast<int>(problem_.keys) - owned_, int{kOwned});
            for (int row = static_cast<int>(threadIdx.x) % kWarp; row < count; row += kWarp) {
                const RowOptions options = options_[buffer * kRows + row];
                hides |= options.first > owned_ || options.last - owned_ < keys;
            }
            return any_lane(hides);
        } else {
            return all_first_ > start || all_last_ - start < kStreamed;
        }
    }

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
        if constexpr (!full) {
            const float p = exp2_fast(fmaf(product, numbers.factor, -numbers.lse));
            return {p, p * (grad - numbers.constant)};
        } else {
            float score = product * numbers.factor;
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
    template <bool hides>
    __device__ __forceinline__ void add_tile(int buffer, int start, bool poisoned) {
#pragma unroll 1
        for (int across = 0; across < kStreamed; across += Shape::kAcross) {
            float scores[kTall][kColumns][4];
            float grads[kTall][kColumns][4];

            multiply_rows<kWidth>(scores, own_[0], warp_row_, streamed(buffer, 0), across);
            if constexpr (kFirst)
                multiply_rows<kWidth>(grads, own_[1], warp_row_, streamed(buffer, 1), across);
            differentiate_all<hides>(scores, grads, buffer, start, across);
            if constexpr (kSecond) add(second_, scores, streamed(buffer, 1), across, poisoned);
            if constexpr (kFirst) add(first_, grads, streamed(buffer, 0), across, poisoned);
        }
    }

    // scores become p, grads become dR, for dK times lambda; 0 by selection where the key is
    // hidden.
    template <bool hides>
    __device__ __forceinline__ void differentiate_all(float (&scores)[kTall][kColumns][4],
                                                      float (&grads)[kTall][kColumns][4],
                                                      int buffer, int start, int across) {
        const int lane = static_cast<int>(threadIdx.x) % kWarp;
        // Element k of accumulator (i, n) is this row of what the block owns, and this one of what
        // streams past.
        const auto owned_row = [&](int i, int k) {
            return warp_row_ + 16 * i + lane / 4 + k / 2 * 8;
        };
        const auto streamed_row = [&](int n, int k) {
            return across + 8 * n + lane % 4 * 2 + k % 2;
        };
        const auto visit = [&](int i, int n, int k, int place, const RowNumbers& numbers,
                               const RowOptions& options) {
            float bias = 0.0f;
            bool sees = true;
            if constexpr (hides) {
                // Differences, since numbers of keys that are not there may lie beyond an int.
                const int base = kOwnsKeys ? owned_ : start;
                const int place_in = kOwnsKeys ? owned_row(i, k) : streamed_row(n, k);
                sees = place_in >= options.first - base && place_in < options.last - base;
                if (full && sees && problem_.has_mask()) {
                    bias = bias_of_key(mask_rows_[place], base + place_in);
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
                const RowOptions options = kWantsOptions ? options_[place] : RowOptions{};
#pragma unroll
                for (int inner = 0; inner < (kOwnsKeys ? kTall : kColumns); ++inner) {
#pragma unroll
                    for (int k = 0; k < 2; ++k) {
                        if constexpr (kOwnsKeys) {
                            visit(inner, outer, 2 * k + side, place, numbers, options);
                        } else {
                            visit(outer, inner, 2 * side + k, place, numbers, options);
                        }
                    }
                }
            }
        }
    }

    // sums += weights times the rows of a tile, the weights rounded.
    __device__ __forceinline__ void add(float (&sums)[kTall][kWidth / 8][4],
                                        const float (&weights)[kTall][kColumns][4], const T* tile,
                                        int across, bool clears) {
#pragma unroll
        for (int n = 0; n < kColumns; n += 2) {
            uint32_t left[kTall][4];
#pragma unroll
            for (int i = 0; i < kTall; ++i) pack_a<T>(left[i], weights[i][n], weights[i][n + 1]);
            add_rows<kWidth>(sums, left, tile, across + 8 * n, clears);
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
        const int lane = static_cast<int>(threadIdx.x) % kWarp;
        const auto factor_of_row = [&](int row) {
            return has_gradient(row) ? numbers_[row].grad_factor : 0.0f;
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
        return numbers_[row].lse != std::numeric_limits<float>::infinity();
    }

    // <q, Qt> of each row.
    __device__ __forceinline__ void store_grad_factor() {
        const int lane = static_cast<int>(threadIdx.x) % kWarp;
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
    __device__ __forceinline__ bool sees(int row, int key) const {
        const KeyRange seen = range_of_row(row, arguments_.rows.lse[row_number(row)]);
        if (key < seen.first || key >= seen.last) return false;
        return !full || !problem_.has_mask() ||
               bias_of_key(mask_row(row), key) != -std::numeric_limits<float>::infinity();
    }

    __device__ __forceinline__ static int thread() { return static_cast<int>(threadIdx.x); }

    const BackwardArguments& arguments_;
    const Problem& problem_;
    unsigned group_;
    int number_;  // of the sequence
    int kv_head_;
    int length_;    // the keys that are valid
    int rows_;      // of the key head
    int owned_;     // the first key or row that the block owns
    int warp_row_;  // the first one of the warp's, counted from there
    // What streams past: the keys that some row sees, or the queries that see some key.
    int begin_;
    int end_;
    // Keys that all rows see which the block owns.
    int all_first_;
    int all_last_;
    T* own_[2];  // key and value, or query and dO
    T* streamed_at_;
    RowNumbers* numbers_;
    RowOptions* options_;
    int64_t* mask_rows_;
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
