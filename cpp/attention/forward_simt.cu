// Forward of float32 and float64, every option, on the multiprocessors' own multiply-adds. A block
// takes a tile of rows and goes over the keys that some of them see; scores stay in registers,
// weights pass from the threads of a row to each other through shared memory.
#include "attention/device_kernels.cuh"
#include "attention/prepare.cuh"
#include "attention/simt.cuh"
#include "core/launch.cuh"

namespace slipstick::cuda::attention {
namespace {

struct Direct {
    bool query;
    bool key;
    bool value;
};

template <class Acc>
struct Shared {
    using T = Tile<Acc>;
    typename Pipeline<Acc>::Shared steps;
    alignas(16) Acc weights[T::kWarps][T::kKeys * T::kWeightPitch];
    alignas(16) Acc factor[T::kRows];
    alignas(16) Acc maximum[T::kRows];
    alignas(16) Acc sum[T::kRows];
    alignas(16) Acc moment[T::kRows];
    alignas(16) Acc alpha[T::kRows];
    int64_t starts[T::kRows];  // of the rows of query
    int64_t mask_rows[T::kRows];
    int first[T::kRows];  // keys that the row sees, but for the mask
    int last[T::kRows];
    unsigned some_first;  // keys that some row sees
    unsigned some_last;
    unsigned all_first;  // keys that all rows see
    unsigned all_last;
};

// `columns`: dim_v is at most that.
template <class Acc, int columns>
__global__ void __launch_bounds__(Tile<Acc>::kThreads, 1)
    forward_tiles(Problem problem, Direct direct) {
    using T = Tile<Acc>;
    constexpr int slice = T::slice(columns);
    constexpr int slices = columns / slice;
    constexpr int groups = slice / T::kGroup;
    constexpr int value_steps = T::kKeys / T::kValueKeys;
    auto& shared = *dynamic_shared<Shared<Acc>>();
    Pipeline<Acc> pipeline(shared.steps);

    const Work work = work_of(problem, T::kRows, blockIdx.x);
    if (work.none) return;
    const Sequence& sequence = work.sequence;
    const int64_t rows = sequence.queries * problem.group;
    const auto head_of = [&](int row) {
        return work.kv_head * problem.group + (work.first_row + row) % problem.group;
    };
    const auto query_of = [&](int row) { return (work.first_row + row) / problem.group; };
    const int thread = static_cast<int>(threadIdx.x);

    if (thread == 0) {
        shared.some_first = ~0u;
        shared.some_last = 0;
        shared.all_first = 0;
        shared.all_last = ~0u;
    }
    __syncthreads();
    if (thread < T::kRows) {
        shared.maximum[thread] = -kInfinity<Acc>;
        shared.sum[thread] = 0;
        shared.moment[thread] = 0;
        shared.factor[thread] = 0;
        shared.first[thread] = shared.last[thread] = 0;
        if (work.first_row + thread < rows) {
            const int64_t head = head_of(thread);
            const int64_t query = query_of(thread);
            const KeyRange seen = range_of(problem, sequence, query);
            shared.first[thread] = static_cast<int>(seen.first);
            shared.last[thread] = static_cast<int>(seen.last);
            shared.factor[thread] = factor_of<Acc>(problem, sequence, work.number, head, query);
            shared.starts[thread] = sequence.batch * problem.query.batch +
                                    head * problem.query.head +
                                    (sequence.first_query + query) * problem.query.row;
            if (problem.has_mask())
                shared.mask_rows[thread] = sequence.batch * problem.mask.batch +
                                           head * problem.mask.head + query * problem.mask.row;
            if (seen.last > 0) atomicMin(&shared.some_first, static_cast<unsigned>(seen.first));
            atomicMax(&shared.some_last, static_cast<unsigned>(seen.last));
            atomicMax(&shared.all_first, static_cast<unsigned>(seen.first));
            atomicMin(&shared.all_last, static_cast<unsigned>(seen.last));
        }
    }
    __syncthreads();
    const int begin = static_cast<int>(shared.some_first) / T::kKeys * T::kKeys;
    const int end = static_cast<int>(shared.some_last);
    const int all_first = static_cast<int>(shared.all_first);
    const int all_last = static_cast<int>(shared.all_last);

    // --- Steps, of scores and then of weighted sums ---
    const int64_t left = rows - work.first_row;
    const Lines<Acc> query{static_cast<const Acc*>(problem.query.data),
                           direct.query,
                           problem.dim,
                           static_cast<int>(left < T::kRows ? left : T::kRows),
                           problem.query.column,
                           shared.starts,
                           0,
                           0};
    const auto lines_of = [&](const Operand& operand, bool is_direct, int width) {
        return Lines<Acc>{static_cast<const Acc*>(operand.data),
                          is_direct,
                          width,
                          end,
                          operand.column,
                          nullptr,
                          sequence.batch * operand.batch + work.kv_head * operand.head +
                              sequence.first_key * operand.row,
                          operand.row};
    };
    const Lines<Acc> key = lines_of(problem.key, direct.key, problem.dim);
    const Lines<Acc> value = lines_of(problem.value, direct.value, problem.dim_v);
    const int score_steps = (problem.dim + T::kDepth - 1) / T::kDepth;
    const int steps = score_steps + slices * value_steps;  // of a tile
    int copied_tile = begin;
    int copied_step = 0;
    const auto copy_step = [&](Acc* stage) {
        if (copied_tile < end) {
            if (copied_step < score_steps) {
                const int column = copied_step * T::kDepth;
                copy_lines<Acc, T::kRows, 4>(query, 0, column, stage, T::kPitch);
                copy_lines<Acc, T::kKeys, 4>(key, copied_tile, column, stage + T::kRows * T::kPitch,
                                             T::kPitch);
            } else {
                const int step = copied_step - score_steps;
                copy_lines<Acc, T::kValueKeys, slice / T::kVector>(
                    value, copied_tile + step % value_steps * T::kValueKeys,
                    step / value_steps * slice, stage, slice);
            }
            if (++copied_step == steps) {
                copied_step = 0;
                copied_tile += T::kKeys;
            }
        }
    };
    pipeline.start(copy_step);

    Acc* const weights = shared.weights[T::warp()];
    const int own_row = T::warp() * T::kWarpRows;
    Acc out[T::kThreadRows][slices * groups][T::kVector] = {};
    for (int tile = begin; tile < end; tile += T::kKeys) {
        typename T::Scores scores = {};
        for (int step = 0; step < score_steps; ++step)
            multiply_lines<Acc>(pipeline.template next<0>(copy_step), scores);

        // --- Scores, and whether each is seen ---
        sync_warp();  // nobody reads the weights of the tile before
#pragma unroll
        for (int i = 0; i < T::kThreadRows; ++i) {
#pragma unroll
            for (int j = 0; j < T::kThreadKeys; ++j)
                scores[i][j] *= shared.factor[own_row + T::row(i)];
        }
        if (problem.softcap != 0) {
            const auto softcap = static_cast<Acc>(problem.softcap);
            bend_scores(scores, softcap, weights);
#pragma unroll
            for (int i = 0; i < T::kThreadRows; ++i) {
#pragma unroll
                for (int j = 0; j < T::kThreadKeys; ++j) scores[i][j] *= softcap;
            }
        }
        unsigned seen = ~0u;
        if (problem.has_mask() || all_first > tile || all_last < tile + T::kKeys) {
            if (problem.has_mask()) {
                put_bias(weights, [&](int i, int j) {
                    const int row = own_row + T::row(i);
                    const int k = tile + T::column() + 16 * j;
                    const bool valid = k >= shared.first[row] && k < shared.last[row];
                    return valid ? bias_at<Acc>(problem,
                                                shared.mask_rows[row] + k * problem.mask.column)
                                 : Acc{0};
                });
            }
            seen = 0;
#pragma unroll
            for (int i = 0; i < T::kThreadRows; ++i) {
                const int row = own_row + T::row(i);
                const int first = shared.first[row] - tile - T::column();
                const int last = shared.last[row] - tile - T::column();
#pragma unroll
                for (int j = 0; j < T::kThreadKeys; ++j) {
                    bool is_seen = 16 * j >= first && 16 * j < last;
                    if (problem.has_mask()) {
                        const Acc bias = weights[slot_of<Acc>(i, j)];
                        scores[i][j] += bias;
                        is_seen = is_seen && bias != -kInfinity<Acc>;
                    }
                    if (is_seen) seen |= 1u << (i * T::kThreadKeys + j);
                    scores[i][j] = is_seen ? scores[i][j] : -kInfinity<Acc>;
                }
            }
        }

        // --- Weights ---
        Acc sum[T::kThreadRows];
        Acc moment[T::kThreadRows];
        Acc maximum[T::kThreadRows];
#pragma unroll
        for (int i = 0; i < T::kThreadRows; ++i) {
            maximum[i] = shared.maximum[own_row + T::row(i)];
            Acc largest = scores[i][0];
#pragma unroll
            for (int j = 1; j < T::kThreadKeys; ++j) largest = larger(largest, scores[i][j]);
            maximum[i] = larger(maximum[i], largest_of_row(largest));
            // Nothing seen yet: any finite reference gives the weight 0 to a score of -inf.
            const Acc reference = maximum[i] == -kInfinity<Acc> ? Acc{0} : maximum[i];
            sum[i] = moment[i] = 0;
#pragma unroll
            for (int j = 0; j < T::kThreadKeys; ++j) {
                const Acc t = scores[i][j] - reference;
                const Acc weight = exponential(t);
                sum[i] += weight;
                moment[i] = fused(weight, larger(t, kLowestExponent<Acc>), moment[i]);
                scores[i][j] = seen >> (i * T::kThreadKeys + j) & 1u ? weight : kHidden<Acc>;
            }
            sum[i] = sum_of_row(sum[i]);
            if (problem.has_stats()) moment[i] = sum_of_row(moment[i]);
        }
        put_scores(scores, weights);
        if (T::column() == 0) {
#pragma unroll
            for (int i = 0; i < T::kThreadRows; ++i) {
                const int row = own_row + T::row(i);
                const Acc before = shared.maximum[row];
                const bool unseen = before == -kInfinity<Acc>;
                // Equal ones need no moving, infinite ones included.
                const Acc delta = unseen || before == maximum[i] ? Acc{0} : before - maximum[i];
                const Acc alpha = unseen ? Acc{0} : exponential(delta);
                shared.moment[row] = fused(
                    alpha,
                    fused(larger(delta, kLowestExponent<Acc>), shared.sum[row], shared.moment[row]),
                    moment[i]);
                shared.sum[row] = fused(alpha, shared.sum[row], sum[i]);
                shared.maximum[row] = maximum[i];
                shared.alpha[row] = alpha;
            }
        }
        sync_warp();

        // --- Weighted sums: a chain for each tile, added to what was there ---
#pragma unroll
        for (int s = 0; s < slices; ++s) {
            Acc more[T::kThreadRows][groups][T::kVector] = {};
#pragma unroll 1
            for (int step = 0; step < value_steps; ++step) {
                const Acc* const stage = pipeline.template next<slice>(copy_step);
                const Acc* const own = weights + step * T::kValueKeys * T::kWeightPitch;
                if (pipeline.is_poisoned()) {
                    multiply_weights<Acc, groups, true>(own, stage, more);
                } else {
                    multiply_weights<Acc, groups, false>(own, stage, more);
                }
            }
#pragma unroll
            for (int i = 0; i < T::kThreadRows; ++i) {
                const Acc alpha = shared.alpha[own_row + T::row(i)];
#pragma unroll
                for (int g = 0; g < groups; ++g) {
#pragma unroll
                    for (int e = 0; e < T::kVector; ++e) {
                        Acc& target = out[i][s * groups + g][e];
                        target = fused(target, alpha, more[i][g][e]);
                    }
                }
            }
        }
    }

    // --- Results ---
    sync_warp();
    const int64_t first_left = left - own_row;  // rows of this warp and behind it
    if (T::lane() < T::kWarpRows && T::lane() < first_left) {
        const int row = own_row + T::lane();
        const int64_t head = head_of(row);
        const int64_t at = query_of(row);
        const bool empty = visible_of(problem, sequence, head, at) == 0;
        const Acc sum = shared.sum[row];
        if (problem.has_stats()) {
            write_stats(problem, sequence, head, at,
                        slipstick::attention::row_stats(empty, shared.maximum[row], sum,
                                                        shared.moment[row]));
        }
        shared.alpha[row] = empty ? Acc{1} : Acc{1} / sum;  // an empty row's output is 0 already
        shared.starts[row] = sequence.batch * problem.out.batch + head * problem.out.head +
                             (sequence.first_query + at) * problem.out.row;
    }
    auto* const target = static_cast<Acc*>(problem.out.data);
#pragma unroll
    for (int g = 0; g < slices * groups; ++g) {
        sync_warp();
#pragma unroll
        for (int i = 0; i < T::kThreadRows; ++i) {
            typename T::Vector some;
#pragma unroll
            for (int e = 0; e < T::kVector; ++e) some.element[e] = out[i][g][e];
            *reinterpret_cast<typename T::Vector*>(weights + T::row(i) * T::kGroup +
                                                   T::column() * T::kVector) = some;
        }
        sync_warp();
        for (int at = T::lane(); at < T::kWarpRows * T::kGroup; at += kWarp) {
            const int row = at / T::kGroup;
            const int column = g * T::kGroup + at % T::kGroup;
            if (row >= first_left || column >= problem.dim_v) continue;
            target[shared.starts[own_row + row] + column * problem.out.column] =
                weights[at] * shared.alpha[own_row + row];
        }
    }
}

template <class Acc, int columns>
void run(const Context& context, const Problem& given) {
    const Problem problem = prepare_tiles(context, given, Tile<Acc>::kRows);
    const Direct direct{is_direct<Acc>(problem.query, problem.dim),
                        is_direct<Acc>(problem.key, problem.dim),
                        is_direct<Acc>(problem.value, problem.dim_v)};
    launch(context, problem.function, &forward_tiles<Acc, columns>,
           dim3(static_cast<unsigned>(tiles_of(problem, Tile<Acc>::kRows))),
           dim3(Tile<Acc>::kThreads), sizeof(Shared<Acc>), problem, direct);
}

template <class Acc>
void run(const Context& context, const Problem& problem) {
    if (problem.dim_v <= 64) return run<Acc, 64>(context, problem);
    if (problem.dim_v <= 128) return run<Acc, 128>(context, problem);
    run<Acc, 256>(context, problem);
}

}  // namespace

void forward_simt(const Context& context, const Problem& problem) {
    problem.dtype == Dtype::kFloat64 ? run<double>(context, problem) : run<float>(context, problem);
}

}  // namespace slipstick::cuda::attention
