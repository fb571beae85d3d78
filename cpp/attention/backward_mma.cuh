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
#include <climits>

#include "attention/backward_tiles.cuh"
#include "attention/device_kernels.cuh"

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
    Operand grad_out;
    Target grad_query;
    Target grad_key;
    Target grad_value;
    BackwardRows<float> rows;
    float inverse_cap;  // 1 / softcap
    // A power of two near the inverse of the usual lambda: dR times lambda alone would lie lower
    // than dR, where float16 has fewer digits.
    float key_unit;
    int stages;  // tiles that stream past and have room at once, 1 or 2
    bool query_vectors;
    bool key_vectors;
    bool value_vectors;
    bool grad_out_vectors;
    bool grad_query_vectors;
    bool grad_key_vectors;
    bool grad_value_vectors;
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
        __shared__ int poisoned[2];
        load_owned();
        int begin = 0;
        int end = 0;
        if constexpr (kOwnsKeys) {
            const slipstick::attention::QueryRange queries =
                slipstick::attention::query_range(problem_.window, problem_.queries, problem_.keys,
                                                  length_, {owned_, int64_t{owned_} + kOwned});
            begin = static_cast<int>(queries.first * problem_.group);
            end = static_cast<int>(queries.last * problem_.group);
            if (begin < end) store_numbers(0, begin, fetch(begin));
        } else {
            store_numbers(0, owned_, fetch(owned_));
            __syncthreads();
            find_ranges();
            begin = some_first_;
            end = some_last_;
        }
        if (begin < end) load_streamed(0, begin, end);
        int buffer = 0;
        int turn = 0;
        if (threadIdx.x == 0) poisoned[turn] = 0;
        // The difference, since the next start may lie beyond an int.
        for (int start = begin; start < end; turn ^= 1) {
            const bool last = end - start <= kStreamed;
            const int next = last ? end : start + kStreamed;
            wait_for_copies<0>();
            __syncthreads();
            if (threadIdx.x == 0) poisoned[turn ^ 1] = 0;
            const bool doubled = arguments_.stages == 2;
            if (doubled && !last) load_streamed(buffer ^ 1, next, end);
            Fetched fetched{};
            if (kOwnsKeys && !last) fetched = fetch(next);
            const bool hides = is_hidden_in(buffer, start);
            if (hides) {
                if (streams_no_number(buffer)) poisoned[turn] = 1;
                __syncthreads();
            }
            if (hides || full) {
                add_tile<true>(buffer, start, hides && poisoned[turn] != 0);
            } else {
                add_tile<false>(buffer, start, false);
            }
            if (doubled) {
                buffer ^= 1;
            } else {
                __syncthreads();
                if (!last) load_streamed(0, next, end);
            }
            if (kOwnsKeys && !last) store_numbers(buffer, next, fetched);
            start = next;
        }
        wait_for_copies<0>();
        __syncthreads();
        store();
    }

private:
    struct Fetched {
        float factor;
        float lse;
        float constant;
        float grad_entropy;
    };

    __device__ __forceinline__ auto query_lines() const {
        return lines_of<T>(problem_.query, number_, kv_head_, problem_.group, problem_.dim,
                           arguments_.query_vectors);
    }
    __device__ __forceinline__ auto grad_out_lines() const {
        return lines_of<T>(arguments_.grad_out, number_, kv_head_, problem_.group, problem_.dim_v,
                           arguments_.grad_out_vectors);
    }
    __device__ __forceinline__ auto key_lines() const {
        return lines_of<T>(problem_.key, number_, kv_head_, 1, problem_.dim,
                           arguments_.key_vectors);
    }
    __device__ __forceinline__ auto value_lines() const {
        return lines_of<T>(problem_.value, number_, kv_head_, 1, problem_.dim_v,
                           arguments_.value_vectors);
    }
    __device__ __forceinline__ T* streamed(int buffer, int which) const {
        return streamed_at_ + (2 * buffer + which) * kStreamed * kWidth;
    }

    __device__ __forceinline__ void load_owned() {
        const auto load = [&](int which, const auto& lines, int all) {
            load_lines<T, kWidth, kOwned, Shape::kThreads>(own_[which], lines, owned_,
                                                           all - owned_);
        };
        if constexpr (kOwnsKeys) {
            load(0, key_lines(), length_);
            if (kFirst) load(1, value_lines(), length_);
        } else {
            load(0, query_lines(), rows_);
            load(1, grad_out_lines(), rows_);
        }
    }
    __device__ __forceinline__ void load_streamed(int buffer, int first, int end) {
        const auto load = [&](int which, const auto& lines) {
            load_lines<T, kWidth, kStreamed, Shape::kThreads>(streamed(buffer, which), lines, first,
                                                              end - first);
        };
        if constexpr (kOwnsKeys) {
            load(0, query_lines());
            load(1, grad_out_lines());
        } else {
            load(0, key_lines());
            load(1, value_lines());
        }
        commit_copies();
    }

    // This thread's row of a set of numbers, read long before it is stored.
    __device__ __forceinline__ Fetched fetch(int first) const {
        const int thread = static_cast<int>(threadIdx.x);
        Fetched fetched{};
        if (thread >= kRows || thread >= rows_ - first) return fetched;
        const int64_t row = row_number(first + thread);
        fetched.factor = arguments_.rows.factor[row];
        fetched.lse = arguments_.rows.lse[row];
        fetched.constant = arguments_.rows.constant[row];
        if (full && arguments_.rows.grad_entropy != nullptr)
            fetched.grad_entropy = arguments_.rows.grad_entropy[row];
        return fetched;
    }
    __device__ __forceinline__ int64_t row_number(int row) const {
        return (number_ * problem_.kv_heads + kv_head_) * rows_ + row;
    }
    // A row that is not there has zeros for operands.
    __device__ __forceinline__ void store_numbers(int buffer, int first, const Fetched& fetched) {
        const int thread = static_cast<int>(threadIdx.x);
        if (thread >= kRows) return;
        const int place = buffer * kRows + thread;
        const float log2_e = full ? 1.0f : kLog2E;
        numbers_[place] = {fetched.factor * log2_e, fetched.lse * log2_e, fetched.constant,
                           kOwnsKeys ? fetched.factor * arguments_.key_unit : fetched.factor};
        RowOptions options{0, 0, fetched.grad_entropy};
        if (thread < rows_ - first) {
            const auto row = static_cast<unsigned>(first + thread);
            const int64_t query = row / group_;
            const KeyRange seen = slipstick::attention::key_range(problem_.window, problem_.queries,
                                                                  problem_.keys, length_, query);
            const bool none = fetched.lse == std::numeric_limits<float>::infinity();
            options.first = none ? 0 : static_cast<int>(seen.first);
            options.last = none ? 0 : static_cast<int>(seen.last);
            if (full) {
                const int64_t head = kv_head_ * problem_.group + row % group_;
                mask_rows_[place] = number_ * problem_.mask.batch + head * problem_.mask.head +
                                    query * problem_.mask.row;
            }
        }
        options_[place] = options;
    }

    // Keys that some and that all of the rows see which the block owns.
    __device__ __forceinline__ void find_ranges() {
        int some_first = INT_MAX;
        int some_last = 0;
        int all_first = 0;
        int all_last = INT_MAX;
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
        some_first_ = some_first;
        some_last_ = some_last;
        all_first_ = all_first;
        all_last_ = all_last;
    }

    // Whether a key of the tile is hidden from a row of it, as every warp finds.
    __device__ __forceinline__ bool is_hidden_in(int buffer, int start) const {
        if (full && problem_.has_mask()) return true;
        if constexpr (kOwnsKeys) {
            bool hides = false;
            const int count = std::min(rows_ - start, int{kRows});
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
    __device__ __forceinline__ bool streams_no_number(int buffer) const {
        const auto holds = [&](int which) {
            return holds_no_number<T, kWidth, kStreamed, Shape::kThreads>(streamed(buffer, which));
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
            uint32_t seen[kTall] = {};
            multiply_lines<T, kWidth>(scores, own_[0], warp_row_, streamed(buffer, 0), across);
            if constexpr (kFirst)
                multiply_lines<T, kWidth>(grads, own_[1], warp_row_, streamed(buffer, 1), across);
            differentiate_all<hides>(scores, grads, seen, buffer, start, across);
            if constexpr (kSecond)
                add(second_, scores, seen, streamed(buffer, 1), across, poisoned);
            if constexpr (kFirst) add(first_, grads, seen, streamed(buffer, 0), across, poisoned);
        }
    }

    // scores become p, grads become dR, for dK times lambda; 0 by selection where the key is
    // hidden.
    template <bool hides>
    __device__ __forceinline__ void differentiate_all(float (&scores)[kTall][kColumns][4],
                                                      float (&grads)[kTall][kColumns][4],
                                                      uint32_t (&seen)[kTall], int buffer,
                                                      int start, int across) {
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
                    bias = bias_at<float>(problem_, mask_rows_[place] + int64_t{base + place_in} *
                                                                            problem_.mask.column);
                    sees = bias != -std::numeric_limits<float>::infinity();
                }
                seen[i] |= static_cast<uint32_t>(sees) << (4 * n + k);
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
                                        const float (&weights)[kTall][kColumns][4],
                                        const uint32_t (&seen)[kTall], const T* tile, int across,
                                        bool poisoned) {
#pragma unroll
        for (int n = 0; n < kColumns; n += 2) {
            uint32_t left[kTall][4];
            uint32_t sees[kTall];
#pragma unroll
            for (int i = 0; i < kTall; ++i) {
                sees[i] = seen[i] >> (4 * n);
#pragma unroll
                for (int k = 0; k < 4; ++k) {
                    const float (&pair)[4] = weights[i][n + k / 2];
                    left[i][k] = pack<T>(pair[k % 2 * 2], pair[k % 2 * 2 + 1]);
                }
            }
            if (poisoned) {
                add_seen_lines<T, kWidth>(sums, left, sees, tile, across + 8 * n);
            } else {
                add_lines<T, kWidth>(sums, left, tile, across + 8 * n);
            }
        }
    }

    __device__ __forceinline__ void store() {
        const int first = owned_ + warp_row_;
        T* const room = own_[0] + warp_row_ * kWidth;
        if constexpr (kOwnsKeys) {
            const int64_t count = problem_.keys - first;
            if constexpr (kFirst) {
                const float scale = 1.0f / arguments_.key_unit;
                store_lines<T, kWidth>(first_, room,
                                       lines_of<T>(arguments_.grad_key, number_, kv_head_, 1,
                                                   problem_.dim, arguments_.grad_key_vectors),
                                       first, count, [&](int, float sum) { return sum * scale; });
            }
            if constexpr (kSecond) {
                store_lines<T, kWidth>(second_, room,
                                       lines_of<T>(arguments_.grad_value, number_, kv_head_, 1,
                                                   problem_.dim_v, arguments_.grad_value_vectors),
                                       first, count, [](int, float sum) { return sum; });
            }
        } else {
            store_grad_factor(first);
            store_lines<T, kWidth>(
                first_, room,
                lines_of<T>(arguments_.grad_query, number_, kv_head_, problem_.group, problem_.dim,
                            arguments_.grad_query_vectors),
                first, rows_ - int64_t{first}, [&](int row, float sum) {
                    const RowNumbers& numbers = numbers_[warp_row_ + row];
                    const bool none = numbers.lse == std::numeric_limits<float>::infinity();
                    return none ? 0.0f : numbers.grad_factor * sum;
                });
        }
    }

    // <q, Qt> of each row.
    __device__ __forceinline__ void store_grad_factor(int first) {
        const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
        for (int i = 0; i < kTall; ++i) {
#pragma unroll
            for (int side = 0; side < 2; ++side) {
                const int row = 16 * i + lane / 4 + 8 * side;
                double sum = 0;
#pragma unroll
                for (int n = 0; n < kWidth / 8; ++n) {
                    const T* const query =
                        chunk_of<T, kWidth>(own_[0], warp_row_ + row, n) + lane % 4 * 2;
                    for (int k = 0; k < 2; ++k) {
                        sum = fma(static_cast<double>(to_float(query[k])),
                                  static_cast<double>(first_[i][n][2 * side + k]), sum);
                    }
                }
                sum += shuffle_xor(sum, 1);
                sum += shuffle_xor(sum, 2);
                const bool none =
                    numbers_[warp_row_ + row].lse == std::numeric_limits<float>::infinity();
                if (lane % 4 == 0 && row < rows_ - first)
                    arguments_.rows.grad_factor[row_number(first + row)] = none ? 0 : sum;
            }
        }
    }

    const BackwardArguments& arguments_;
    const Problem& problem_;
    unsigned group_;
    int number_;  // of the sequence
    int kv_head_;
    int length_;    // the keys that are valid
    int rows_;      // of the key head
    int owned_;     // the first key or row that the block owns
    int warp_row_;  // the first one of the warp's, counted from there
    // Of the rows that the block owns: keys that some of them see, and that all see.
    int some_first_;
    int some_last_;
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
