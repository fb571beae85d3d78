// What a call of the attention family is for its kernels, and what a row needs of it. Everything
// lies on the device; prepare.cu makes it of the caller's options.
//
// Rows are counted within a key head, in the order of their queries with the heads of the group
// side by side, as on the CPU: row r is query r / group of head kv_head * group + r % group.
// Neighbours then see nearly the same keys, and few queries still fill a tile.
#pragma once

#include "attention/rules.hpp"
#include "core/cuda.cuh"
#include "core/dtype.hpp"

namespace slipstick::cuda::attention {

using slipstick::attention::KeyRange;
using slipstick::attention::Law;
using slipstick::attention::QueryRange;
using slipstick::attention::RowStats;
using slipstick::attention::Window;

// A tensor of (batch, heads, rows, columns); steps count elements. Axes that it lacks, and axes of
// length 1, have step 0.
template <class Data>
struct Steps {
    Data* data;
    int64_t batch;
    int64_t head;
    int64_t row;
    int64_t column;

    template <class T>
    __device__ __forceinline__ auto at(int64_t b, int64_t h, int64_t r, int64_t c = 0) const {
        if constexpr (std::is_const_v<Data>) {
            return static_cast<const T*>(data) + (b * batch + h * head + r * row + c * column);
        } else {
            return static_cast<T*>(data) + (b * batch + h * head + r * row + c * column);
        }
    }
};
using Operand = Steps<const void>;
using Target = Steps<void>;

// Where the tokens of a sequence lie in the operands: at an index of the batch axis, one after
// another.
struct Sequence {
    int64_t batch;
    int64_t first_query;
    int64_t first_key;
    int64_t queries;
    int64_t keys;
    int64_t length;  // the keys that are valid
    bool valid;      // else lambda is NaN: what lies on a device cannot be refused without waiting
};

inline constexpr int64_t kFewRows = 16;  // a key head

// On whose behalf, for messages: a number, since an address of the host's memory means nothing to a
// kernel.
enum class Caller : int { kAttention, kAttentionVarlen, kAttentionBackward };
struct Function {
    Caller caller;
    operator const char*() const {
        if (caller == Caller::kAttention) return "attention";
        return caller == Caller::kAttentionVarlen ? "attention_varlen" : "attention_backward";
    }
};

struct Problem {
    Function function;
    Dtype dtype;  // of query, key, value and out
    int64_t sequences;
    int64_t heads;
    int64_t kv_heads;
    int64_t group;    // heads / kv_heads
    int64_t queries;  // of each sequence; packed: of all
    int64_t keys;     // likewise
    int dim;
    int dim_v;

    Operand query;
    Operand key;
    Operand value;
    Target out;
    // (batch, heads, tokens), of the accumulator's type; data is null where they are not wanted.
    Target lse;
    Target entropy;
    Target max_logit;

    Window window;
    double softcap;           // 0: none
    const int64_t* lengths;   // one a sequence, -1 where it is not valid; or null
    const int64_t* n_keys;    // or null
    int64_t n_keys_sequence;  // steps: number (sequence, token)
    int64_t n_keys_token;

    // Of packed sequences, else null: sequences + 1 each. The first of the queries' is -1 where
    // they are not valid: all tokens then make one sequence, which is not valid.
    const int64_t* bounds_q;
    const int64_t* bounds_k;
    // The number of row tiles before each sequence: prepare_tiles fills it, for tiles of one size.
    const int64_t* tile_starts;
    // Tiles skip packed sequences of up to so many queries, which few_rows_* computes: so a
    // sequence has the bits that it has by itself.
    int64_t few_queries;

    Operand mask;  // data is null where there is none
    Dtype mask_dtype;
    const int* mask_counts;  // steps below: keys that a row sees under the mask
    int64_t mask_counts_batch;
    int64_t mask_counts_head;

    Law law;
    const double* parameters;  // of laws but kGiven; null where all heads have the same
    int64_t parameters_head;   // step
    Operand given;             // of kGiven, one a row; data is null where all rows have the same
    Dtype given_dtype;
    double numbers[4];  // what all heads or rows have: a launch less than bringing it to memory

    __host__ __device__ bool is_packed() const { return bounds_q != nullptr; }
    __host__ __device__ bool has_mask() const { return mask.data != nullptr; }
    __host__ __device__ bool has_stats() const { return lse.data != nullptr; }
};

__device__ __forceinline__ double float_at(const void* data, Dtype dtype, int64_t index) {
    switch (dtype) {
        case Dtype::kFloat32:
            return static_cast<const float*>(data)[index];
        case Dtype::kFloat64:
            return static_cast<const double*>(data)[index];
        case Dtype::kFloat16:
            return to_float(static_cast<const Float16*>(data)[index]);
        default:
            return to_float(static_cast<const BFloat16*>(data)[index]);
    }
}

__device__ __forceinline__ Sequence sequence_of(const Problem& problem, int64_t number) {
    if (!problem.is_packed()) {
        const int64_t length = problem.lengths == nullptr ? problem.keys : problem.lengths[number];
        return {number,     0, 0, problem.queries, problem.keys, length < 0 ? problem.keys : length,
                length >= 0};
    }
    if (problem.bounds_q[0] < 0)
        return {0, 0, 0, problem.queries, problem.keys, problem.keys, false};
    const int64_t first_query = problem.bounds_q[number];
    const int64_t first_key = problem.bounds_k[number];
    const int64_t keys = problem.bounds_k[number + 1] - first_key;
    return {0,    first_query, first_key, problem.bounds_q[number + 1] - first_query,
            keys, keys,        true};
}

// What a block computes: rows from `first_row` on of a key head of a sequence.
struct Work {
    Sequence sequence;
    int64_t number;  // of the sequence
    int64_t kv_head;
    int64_t first_row;
    bool none;
};

// How many blocks the tiles of so many rows take (host), some of which may have no work when
// sequences are packed.
inline int64_t tiles_of(const Problem& problem, int64_t tile_rows) {
    const int64_t tiles = ceil_div(problem.group * problem.queries, tile_rows);
    const int64_t all = problem.is_packed() ? tiles + problem.sequences : tiles * problem.sequences;
    return all * problem.kv_heads;
}

// The work of a block of tiles_of. The last tiles come first: under causal order they see most.
__device__ __forceinline__ Work work_of(const Problem& problem, int64_t tile_rows, int64_t block) {
    const int64_t tiles = ceil_div(problem.group * problem.queries, tile_rows);
    Work work{};
    if (!problem.is_packed()) {
        work.first_row = (tiles - 1 - block % tiles) * tile_rows;
        work.kv_head = block / tiles % problem.kv_heads;
        work.number = block / tiles / problem.kv_heads;
        work.sequence = sequence_of(problem, work.number);
        return work;
    }
    const int64_t slots = tiles + problem.sequences;
    const int64_t slot = slots - 1 - block % slots;
    work.kv_head = block / slots;
    if (problem.bounds_q[0] < 0) {
        work.first_row = slot * tile_rows;
    } else {
        // The last sequence whose tiles begin at or before the slot.
        int64_t low = 0;
        int64_t high = problem.sequences;
        while (high - low > 1) {
            const int64_t middle = (low + high) / 2;
            (problem.tile_starts[middle] <= slot ? low : high) = middle;
        }
        work.number = low;
        work.first_row = (slot - problem.tile_starts[low]) * tile_rows;
    }
    work.sequence = sequence_of(problem, work.number);
    const bool apart = work.sequence.valid && work.sequence.queries <= problem.few_queries;
    work.none = apart || work.first_row >= work.sequence.queries * problem.group;
    return work;
}

// Below, `sequence` is number `number`, and `query` counts from its first one.

// What length, causal order and window leave of the keys. A row of a sequence that is not valid
// sees them all, so that its lambda makes it NaN.
__device__ __forceinline__ KeyRange range_of(const Problem& problem, const Sequence& sequence,
                                             int64_t query) {
    if (!sequence.valid) return {0, sequence.keys};
    return slipstick::attention::key_range(problem.window, sequence.queries, sequence.keys,
                                           sequence.length, query);
}

// The queries to which that leaves some of the keys.
__device__ __forceinline__ QueryRange queries_of(const Problem& problem, const Sequence& sequence,
                                                 const KeyRange& keys) {
    if (!sequence.valid) return {0, sequence.queries};
    return slipstick::attention::query_range(problem.window, sequence.queries, sequence.keys,
                                             sequence.length, keys);
}

// The keys that the row sees, mask included.
__device__ __forceinline__ int64_t visible_of(const Problem& problem, const Sequence& sequence,
                                              int64_t head, int64_t query) {
    if (problem.has_mask()) {
        return problem.mask_counts[sequence.batch * problem.mask_counts_batch +
                                   head * problem.mask_counts_head + query];
    }
    const KeyRange seen = range_of(problem, sequence, query);
    return seen.last - seen.first;
}

// The number that the scale uses: n_keys where it was given.
__device__ __forceinline__ int64_t count_of(const Problem& problem, const Sequence& sequence,
                                            int64_t number, int64_t head, int64_t query) {
    if (problem.n_keys == nullptr) return visible_of(problem, sequence, head, query);
    return problem.n_keys[number * problem.n_keys_sequence +
                          (sequence.first_query + query) * problem.n_keys_token];
}

// lambda, rounded once to the type of the scores.
template <class Acc>
__device__ __forceinline__ Acc factor_of(const Problem& problem, const Sequence& sequence,
                                         int64_t number, int64_t head, int64_t query) {
    const int64_t token = sequence.first_query + query;
    double factor = std::numeric_limits<double>::quiet_NaN();
    if (problem.law == Law::kGiven) {
        factor = problem.numbers[0];
        if (problem.given.data != nullptr) {
            factor = float_at(problem.given.data, problem.given_dtype,
                              sequence.batch * problem.given.batch + head * problem.given.head +
                                  token * problem.given.row);
        }
    } else {
        const int64_t n = count_of(problem, sequence, number, head, query);
        // Only a number that a device was given can be negative.
        if (n >= 0) {
            double p[4];
            const int count = problem.law == Law::kTemperature ? 4 : 2;
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                p[i] = problem.numbers[i];
                if (problem.parameters != nullptr && i < count)
                    p[i] = problem.parameters[head * problem.parameters_head + i];
            }
            factor = slipstick::attention::factor(problem.law, p, n);
        }
    }
    return sequence.valid ? static_cast<Acc>(factor) : std::numeric_limits<Acc>::quiet_NaN();
}

// What the mask adds to a score, -inf where it hides the key: only -inf does, so a finite number
// beyond the type's range stays finite. `at` counts elements of the mask.
template <class Acc>
__device__ __forceinline__ Acc bias_at(const Problem& problem, int64_t at) {
    if (problem.mask_dtype == Dtype::kBool) {
        return static_cast<const Bool*>(problem.mask.data)[at]
                   ? Acc{0}
                   : -std::numeric_limits<Acc>::infinity();
    }
    const double bias = float_at(problem.mask.data, problem.mask_dtype, at);
    constexpr double highest = std::numeric_limits<Acc>::max();
    constexpr double infinity = std::numeric_limits<double>::infinity();
    if (bias > highest && bias < infinity) return std::numeric_limits<Acc>::max();
    if (bias < -highest && bias > -infinity) return -std::numeric_limits<Acc>::max();
    return static_cast<Acc>(bias);
}

template <class Acc>
__device__ __forceinline__ Acc bias_of(const Problem& problem, const Sequence& sequence,
                                       int64_t head, int64_t query, int64_t key) {
    return bias_at<Acc>(problem, sequence.batch * problem.mask.batch + head * problem.mask.head +
                                     query * problem.mask.row + key * problem.mask.column);
}

template <class Acc>
__device__ __forceinline__ void write_stats(const Problem& problem, const Sequence& sequence,
                                            int64_t head, int64_t query,
                                            const RowStats<Acc>& stats) {
    const int64_t token = sequence.first_query + query;
    *problem.lse.at<Acc>(sequence.batch, head, token) = stats.lse;
    *problem.entropy.at<Acc>(sequence.batch, head, token) = stats.entropy;
    *problem.max_logit.at<Acc>(sequence.batch, head, token) = stats.max_logit;
}

}  // namespace slipstick::cuda::attention
