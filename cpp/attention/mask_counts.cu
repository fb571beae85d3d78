#include "attention/mask_counts.cuh"

#include "core/launch.cuh"
#include "core/ptx.cuh"

namespace slipstick::cuda::attention {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kKeysPerThread = 16;

// What is counted: the heads of each sequence that differ, and all queries.
struct Counts {
    int64_t batches;
    int64_t heads;
    int64_t queries;

    int64_t rows() const { return batches * heads * queries; }
};

__device__ __forceinline__ bool is_shown(const Problem& problem, const Sequence& sequence,
                                         int64_t head, int64_t query, int64_t key) {
    return bias_of<float>(problem, sequence, head, query, key) !=
           -std::numeric_limits<float>::infinity();
}

// A warp counts a row.
__global__ void __launch_bounds__(kThreads) count_rows(Problem problem, Counts counts, int* out) {
    const int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
    if (row >= counts.batches * counts.heads * counts.queries) return;
    const auto lane = static_cast<int>(threadIdx.x % kWarp);
    const int64_t query = row % counts.queries;
    const int64_t head = row / counts.queries % counts.heads;
    const Sequence sequence = sequence_of(problem, row / counts.queries / counts.heads);
    const KeyRange seen = range_of(problem, sequence, query);
    int count = 0;
    for (int64_t key = seen.first + lane; key < seen.last; key += kWarp)
        count += is_shown(problem, sequence, head, query, key) ? 1 : 0;
#pragma unroll
    for (int mask = kWarp / 2; mask > 0; mask /= 2) count += shuffle_xor(count, mask);
    if (lane == 0) out[row] = count;
}

// One row of the mask for all queries of a head: how many of its first keys are shown, `keys` + 1
// numbers. A block takes a head.
__global__ void __launch_bounds__(kThreads) sum_row(Problem problem, int64_t heads, int* before) {
    __shared__ int sums[2][kThreads];
    const auto thread = static_cast<int>(threadIdx.x);
    const int64_t head = blockIdx.x % heads;
    const Sequence sequence = sequence_of(problem, blockIdx.x / heads);
    int* const out = before + blockIdx.x * (problem.keys + 1);
    int total = 0;
    for (int64_t first = 0; first < problem.keys; first += kThreads * kKeysPerThread) {
        const int64_t own = first + int64_t{thread} * kKeysPerThread;
        int shown[kKeysPerThread];
        int count = 0;
#pragma unroll
        for (int k = 0; k < kKeysPerThread; ++k) {
            shown[k] = count;
            if (own + k < problem.keys && is_shown(problem, sequence, head, 0, own + k)) ++count;
        }
        int at = 0;
        sums[at][thread] = count;
        __syncthreads();
        for (int step = 1; step < kThreads; step *= 2, at ^= 1) {
            sums[at ^ 1][thread] =
                sums[at][thread] + (thread >= step ? sums[at][thread - step] : 0);
            __syncthreads();
        }
        const int start = total + sums[at][thread] - count;
#pragma unroll
        for (int k = 0; k < kKeysPerThread; ++k)
            if (own + k < problem.keys) out[own + k] = start + shown[k];
        total += sums[at][kThreads - 1];
        __syncthreads();
    }
    if (thread == 0) out[problem.keys] = total;
}

__global__ void __launch_bounds__(kThreads)
    count_ranges(Problem problem, Counts counts, const int* before, int* out) {
    const int64_t row = int64_t{blockIdx.x} * kThreads + threadIdx.x;
    if (row >= counts.batches * counts.heads * counts.queries) return;
    const int64_t unit = row / counts.queries;
    const KeyRange seen =
        range_of(problem, sequence_of(problem, unit / counts.heads), row % counts.queries);
    const int* const own = before + unit * (problem.keys + 1);
    out[row] = own[seen.last] - own[seen.first];
}

}  // namespace

void count_mask(const Context& context, Problem& problem) {
    const bool by_batch = problem.mask.batch != 0 || problem.lengths != nullptr;
    const bool by_head = problem.mask.head != 0;
    const Counts counts{by_batch ? problem.sequences : 1, by_head ? problem.heads : 1,
                        problem.queries};
    auto* const out = context.memory->allocate_array<int>(counts.rows());
    const auto blocks = [](int64_t rows, int64_t per_block) {
        return static_cast<unsigned>(ceil_div(rows, per_block));
    };
    if (problem.mask.row == 0 && problem.queries > 1) {
        const int64_t units = counts.batches * counts.heads;
        auto* const before = context.memory->allocate_array<int>(units * (problem.keys + 1));
        launch(context, problem.function, sum_row, blocks(units, 1), kThreads, 0, problem,
               counts.heads, before);
        launch(context, problem.function, count_ranges, blocks(counts.rows(), kThreads), kThreads,
               0, problem, counts, before, out);
    } else {
        launch(context, problem.function, count_rows, blocks(counts.rows(), kWarps), kThreads, 0,
               problem, counts, out);
    }
    problem.mask_counts = out;
    problem.mask_counts_head = by_head ? problem.queries : 0;
    problem.mask_counts_batch = by_batch ? counts.heads * problem.queries : 0;
}

}  // namespace slipstick::cuda::attention
