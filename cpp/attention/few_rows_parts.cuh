// Parts of the keys of a sequence with few rows: how many there are, what they leave in scratch
// memory, and how it is put together.
#pragma once

#include <algorithm>
#include <cmath>

#include "attention/device_kernels.cuh"
#include "attention/elements.cuh"
#include "core/launch.cuh"

namespace slipstick::cuda::attention {

// --- Parts of the keys ---

// At 128 columns of 16 bits 512 keys are 256 KB: 64 blocks of that keep a device busy, and the
// part's state is at most 3 % of it. No more than 128, so that combine's own reading stays short.
inline constexpr int64_t kPartKeys = 512;
inline constexpr int64_t kMostParts = 128;

struct KeyParts {
    int64_t count;
    int64_t keys;  // of each but the last
};
__host__ __device__ inline KeyParts parts_of(int64_t keys) {
    int64_t size = kPartKeys;
    while (size * kMostParts < keys) size *= 2;
    return {keys > 0 ? ceil_div(keys, size) : 1, size};
}

// All rows of key head `unit % kv_heads` of sequence `unit / kv_heads`; none where there are too
// many of them, which is so for packed sequences only.
__device__ __forceinline__ Work few_rows_work(const Problem& problem, int64_t unit) {
    Work work{};
    work.number = unit / problem.kv_heads;
    work.kv_head = unit % problem.kv_heads;
    work.sequence = sequence_of(problem, work.number);
    work.none = (problem.is_packed() && problem.bounds_q[0] < 0) ||
                work.sequence.queries * problem.group > kFewRows;
    return work;
}

// --- States of rows ---

template <class Acc>
struct RowState {
    Acc maximum;
    Acc sum;
    Acc moment;
};

// What the parts leave, a state and `out`, the sum of e^(s - m) v, for each row.
template <class Acc>
struct Parts {
    int64_t most;  // parts that a sequence can have
    int64_t rows;  // of a key head at most
    RowState<Acc>* state;
    Acc* out;  // dim_v to a row; not written where l is 0

    // Of a packed batch a sequence's parts lie behind those of its predecessors, of which sequence
    // s with k keys before it has k / kPartKeys + s at most.
    __host__ __device__ int64_t slots(const Problem& problem) const {
        return problem.is_packed() ? problem.keys / kPartKeys + problem.sequences
                                   : problem.sequences * most;
    }
    // Where the first row lies.
    __device__ int64_t at(const Problem& problem, const Work& work, int64_t part) const {
        const int64_t slot = problem.is_packed() ? work.sequence.first_key / kPartKeys + work.number
                                                 : work.number * most;
        return ((slot + part) * problem.kv_heads + work.kv_head) * rows;
    }
    // From a part to the next.
    __device__ int64_t step(const Problem& problem) const { return problem.kv_heads * rows; }
};

template <class Acc>
Parts<Acc> allocate_parts(const Context& context, const Problem& problem) {
    Parts<Acc> parts{};
    parts.most = key_parts(problem);
    parts.rows = std::min(problem.group * problem.queries, kFewRows);
    if (parts.most == 1) return parts;
    const int64_t states = parts.slots(problem) * problem.kv_heads * parts.rows;
    parts.state = context.memory->template allocate_array<RowState<Acc>>(states);
    parts.out = context.memory->template allocate_array<Acc>(states * problem.dim_v);
    return parts;
}

// Writes out and statistics of all sequences that have several parts.
void combine(const Context& context, const Problem& problem, const Parts<float>& parts);
void combine(const Context& context, const Problem& problem, const Parts<double>& parts);

template <class Acc>
inline constexpr Acc kInfinity = std::numeric_limits<Acc>::infinity();

// The distance to a reference as a factor of a moment: 0 times -inf would be NaN. e^kLowest is
// 2^-126 (2^-1022).
template <class Acc>
inline constexpr Acc kLowest =
    static_cast<Acc>(sizeof(Acc) == 8 ? -708.3964185322641 : -87.33654475055310);

// The larger one, `a` where b is NaN.
template <class Acc>
__device__ __forceinline__ Acc larger(Acc a, Acc b) {
    return b > a ? b : a;
}

// Adds a state to `total`, whose maximum is the largest of all that come. Returns the factor of the
// state's `out`, negative where that is nothing.
template <class Acc>
__device__ __forceinline__ Acc add_state(const RowState<Acc>& state, RowState<Acc>& total) {
    if (state.sum == 0) return Acc{-1};
    const Acc delta = state.maximum == total.maximum ? Acc{0} : state.maximum - total.maximum;
    const Acc factor = std::exp(delta);
    total.sum += factor * state.sum;
    total.moment += factor * (state.moment + larger(kLowest<Acc>, delta) * state.sum);
    return factor;
}

// Writes the row's statistics, and returns what its `out` is to be divided by.
template <class Acc>
__device__ __forceinline__ Acc finish_state(const Problem& problem, const Work& work, int64_t row,
                                            const RowState<Acc>& state) {
    const int64_t head = work.kv_head * problem.group + row % problem.group;
    const int64_t query = row / problem.group;
    const bool empty = visible_of(problem, work.sequence, head, query) == 0;
    if (problem.has_stats()) {
        write_stats(problem, work.sequence, head, query,
                    slipstick::attention::row_stats(empty, state.maximum, state.sum, state.moment));
    }
    return empty ? Acc{1} : state.sum;
}

template <class T>
__device__ __forceinline__ T* out_of(const Problem& problem, const Work& work, int64_t row) {
    return problem.out.at<T>(work.sequence.batch,
                             work.kv_head * problem.group + row % problem.group,
                             work.sequence.first_query + row / problem.group);
}

}  // namespace slipstick::cuda::attention
