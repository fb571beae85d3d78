// Backward of float32 and float64, every option, on the multiprocessors' own multiply-adds: a
// kernel each for dQ, dK and dV. A block owns a tile of rows (dQ) or of keys (dK, dV), and goes
// over the keys that they see or the rows that see them: from scores <q, k> and, but for dV, <dO,
// v> come weights, and from these its gradient as a weighted sum of keys, rows or rows of dO. No
// sum is shared, so none depends on who comes first. Of products there are 8, where 7 would do if
// one kernel had the sums of dK and dV; at 128 columns their registers are those of one.
#include "attention/device_kernels.cuh"
#include "attention/simt.cuh"
#include "core/launch.cuh"

namespace slipstick::cuda::attention {
namespace {

enum class Part { kQuery, kKey, kValue };

struct Direct {
    bool query;
    bool key;
    bool value;
    bool grad_out;
};

// The rows of a block: those that it owns, or the tile that it goes over and the next one.
template <class Acc>
struct Shared {
    using T = Tile<Acc>;
    static constexpr int kRows = T::kRows > 2 * T::kKeys ? T::kRows : 2 * T::kKeys;
    typename Pipeline<Acc>::Shared steps;
    alignas(16) Acc weights[T::kWarps][T::kKeys * T::kWeightPitch];
    Acc factor[kRows];
    Acc lse[kRows];
    Acc constant[kRows];
    Acc grad_entropy[kRows];
    int64_t query_starts[kRows];
    int64_t grad_starts[kRows];
    int64_t mask_rows[kRows];
    int first[kRows];  // keys that the row sees, but for the mask
    int last[kRows];
    unsigned some_first;  // keys that some row sees
    unsigned some_last;
};

// `columns`: those of the gradient are at most that.
template <class Acc, int columns, Part part>
__global__ void __launch_bounds__(Tile<Acc>::kThreads, 1)
    backward_tiles(BackwardProblem problem, BackwardRows<Acc> row_numbers, Direct direct) {
    using T = Tile<Acc>;
    constexpr int slice = T::slice(columns);
    constexpr int slices = columns / slice;
    constexpr int groups = slice / T::kGroup;
    constexpr int value_steps = T::kKeys / T::kValueKeys;
    auto& shared = *dynamic_shared<Shared<Acc>>();
    Pipeline<Acc> pipeline(shared.steps);
    const Problem& forward = problem.forward;
    constexpr bool owns_rows = part == Part::kQuery;
    const int thread = static_cast<int>(threadIdx.x);

    // --- What the block owns, and what it goes over ---
    const int64_t head_rows = forward.group * forward.queries;
    const int64_t tiles = ceil_div(owns_rows ? head_rows : forward.keys, T::kRows);
    const int64_t unit = int64_t{blockIdx.x} / tiles;  // a key head of a sequence
    // Those that see, or are seen by, most under causal order come first.
    const int64_t tile_number = int64_t{blockIdx.x} % tiles;
    const int64_t owned = (owns_rows ? tiles - 1 - tile_number : tile_number) * T::kRows;
    const int64_t kv_head = unit % forward.kv_heads;
    const Sequence sequence = sequence_of(forward, unit / forward.kv_heads);
    const auto head_of = [&](int64_t row) { return kv_head * forward.group + row % forward.group; };
    const auto place_of = [&](const auto& operand, int64_t row) {
        return sequence.batch * operand.batch + head_of(row) * operand.head +
               row / forward.group * operand.row;
    };
    // Rows from `row` on, into places from `slot` on.
    const auto fill = [&](int64_t row, int slot, int count) {
        if (thread >= count) return;
        slot += thread;
        row += thread;
        shared.first[slot] = shared.last[slot] = 0;
        if (row >= head_rows) return;
        const int64_t at = unit * head_rows + row;
        shared.factor[slot] = row_numbers.factor[at];
        shared.lse[slot] = row_numbers.lse[at];
        shared.constant[slot] = row_numbers.constant[at];
        if (row_numbers.grad_entropy != nullptr)
            shared.grad_entropy[slot] = row_numbers.grad_entropy[at];
        shared.query_starts[slot] = place_of(forward.query, row);
        shared.grad_starts[slot] = place_of(problem.grad_out, row);
        if (forward.has_mask()) shared.mask_rows[slot] = place_of(forward.mask, row);
        if (shared.lse[slot] == kInfinity<Acc>) return;
        const KeyRange seen = range_of(forward, sequence, row / forward.group);
        shared.first[slot] = static_cast<int>(seen.first);
        shared.last[slot] = static_cast<int>(seen.last);
    };
    int begin = 0;
    int end = 0;
    if (owns_rows) {
        if (thread == 0) {
            shared.some_first = ~0u;
            shared.some_last = 0;
        }
        fill(owned, 0, T::kRows);
        __syncthreads();
        if (thread < T::kRows && shared.last[thread] > 0) {
            atomicMin(&shared.some_first, static_cast<unsigned>(shared.first[thread]));
            atomicMax(&shared.some_last, static_cast<unsigned>(shared.last[thread]));
        }
        __syncthreads();
        begin = static_cast<int>(shared.some_first) / T::kKeys * T::kKeys;
        end = static_cast<int>(shared.some_last);
    } else {
        const QueryRange seeing = queries_of(forward, sequence, {owned, owned + T::kRows});
        begin = static_cast<int>(seeing.first * forward.group) / T::kKeys * T::kKeys;
        end = static_cast<int>(seeing.last * forward.group);
        fill(begin, begin % (2 * T::kKeys), T::kKeys);
        __syncthreads();
    }

    // --- Steps: of one or two products, then of the weighted sum ---
    // Lines of rows or keys from `first` on; `second`: those of the second product.
    const auto lines_of = [&](bool of_rows, bool second, int64_t first) {
        if (of_rows) {
            const int slot = owns_rows ? 0 : static_cast<int>(first) % (2 * T::kKeys);
            const Operand& operand = second ? problem.grad_out : forward.query;
            return Lines<Acc>{static_cast<const Acc*>(operand.data),
                              second ? direct.grad_out : direct.query,
                              second ? forward.dim_v : forward.dim,
                              static_cast<int>(head_rows - first),
                              operand.column,
                              (second ? shared.grad_starts : shared.query_starts) + slot,
                              0,
                              0};
        }
        const Operand& operand = second ? forward.value : forward.key;
        return Lines<Acc>{
            static_cast<const Acc*>(operand.data),
            second ? direct.value : direct.key,
            second ? forward.dim_v : forward.dim,
            static_cast<int>(sequence.length - first),
            operand.column,
            nullptr,
            sequence.batch * operand.batch + kv_head * operand.head + first * operand.row,
            operand.row};
    };
    const int dim_steps = (forward.dim + T::kDepth - 1) / T::kDepth;
    const int dim_v_steps = part == Part::kValue ? 0 : (forward.dim_v + T::kDepth - 1) / T::kDepth;
    const int steps = dim_steps + dim_v_steps + slices * value_steps;  // of a tile
    int copied_tile = begin;
    int copied_step = 0;
    const auto copy_step = [&](Acc* stage) {
        if (copied_tile >= end) return;
        int step = copied_step;
        if (step < dim_steps + dim_v_steps) {
            const bool second = step >= dim_steps;
            if (second) step -= dim_steps;
            copy_lines<Acc, T::kRows, 4>(lines_of(owns_rows, second, owned), 0, step * T::kDepth,
                                         stage, T::kPitch);
            copy_lines<Acc, T::kKeys, 4>(lines_of(!owns_rows, second, copied_tile), 0,
                                         step * T::kDepth, stage + T::kRows * T::kPitch, T::kPitch);
        } else {
            step -= dim_steps + dim_v_steps;
            copy_lines<Acc, T::kValueKeys, slice / T::kVector>(
                lines_of(!owns_rows, part == Part::kValue, copied_tile),
                step % value_steps * T::kValueKeys, step / value_steps * slice, stage, slice);
        }
        if (++copied_step == steps) {
            copied_step = 0;
            copied_tile += T::kKeys;
        }
    };
    pipeline.start(copy_step);

    Acc* const weights = shared.weights[T::warp()];
    const int own = T::warp() * T::kWarpRows;
    const auto softcap = static_cast<Acc>(forward.softcap);
    Acc gradient[T::kThreadRows][slices * groups][T::kVector] = {};
    for (int tile = begin; tile < end; tile += T::kKeys) {
        const int slot = owns_rows ? own : tile % (2 * T::kKeys);  // of the first row
        if (!owns_rows && tile + T::kKeys < end)
            fill(tile + T::kKeys, (tile + T::kKeys) % (2 * T::kKeys), T::kKeys);
        typename T::Scores scores = {};
        typename T::Scores grads = {};
        for (int step = 0; step < dim_steps; ++step)
            multiply_lines<Acc>(pipeline.template next<0>(copy_step), scores);
        sync_warp();                  // nobody reads the weights of the tile before
        put_scores(scores, weights);  // which saves their registers during the second product
        for (int step = 0; step < dim_v_steps; ++step)
            multiply_lines<Acc>(pipeline.template next<0>(copy_step), grads);
        take_scores(weights, scores);

        // --- From products to weights; row and key of a score by what the block owns ---
        const auto row_at = [&](int i, int j) {
            return slot + (owns_rows ? T::row(i) : T::column() + 16 * j);
        };
        const auto key_at = [&](int i, int j) {
            return owns_rows ? tile + T::column() + 16 * j
                             : static_cast<int>(owned) + own + T::row(i);
        };
#pragma unroll
        for (int i = 0; i < T::kThreadRows; ++i) {
#pragma unroll
            for (int j = 0; j < T::kThreadKeys; ++j) scores[i][j] *= shared.factor[row_at(i, j)];
        }
        if (softcap != 0) bend_scores(scores, softcap, weights);
        if (forward.has_mask()) {
            put_bias(weights, [&](int i, int j) {
                const int row = row_at(i, j);
                const int key = key_at(i, j);
                return key >= shared.first[row] && key < shared.last[row]
                           ? bias_at<Acc>(forward,
                                          shared.mask_rows[row] + key * forward.mask.column)
                           : Acc{0};
            });
        }
#pragma unroll
        for (int i = 0; i < T::kThreadRows; ++i) {
#pragma unroll
            for (int j = 0; j < T::kThreadKeys; ++j) {
                const int row = row_at(i, j);
                const int key = key_at(i, j);
                bool seen = key >= shared.first[row] && key < shared.last[row];
                Acc score = scores[i][j];
                Acc slope = 1;
                if (softcap != 0) {
                    slope -= score * score;
                    score *= softcap;
                }
                if (forward.has_mask()) {
                    const Acc bias = weights[slot_of<Acc>(i, j)];
                    score += bias;
                    seen = seen && bias != -kInfinity<Acc>;
                }
                const Acc u = score - shared.lse[row];
                Acc weight = exponential(u);
                if constexpr (part != Part::kValue) {
                    Acc inner = grads[i][j] - shared.constant[row];
                    // e^u is 0 below the lowest exponent, and 0 times an infinite u would be NaN.
                    if (row_numbers.grad_entropy != nullptr) {
                        inner = fused(-shared.grad_entropy[row], larger(u, kLowestExponent<Acc>),
                                      inner);
                    }
                    weight *= inner;
                    if (softcap != 0) weight *= slope;
                    if (part == Part::kKey) weight *= shared.factor[row];
                }
                // The sum makes 0 of -0, which would say hidden.
                scores[i][j] = seen ? weight + Acc{0} : kHidden<Acc>;
            }
        }
        put_scores(scores, weights);
        sync_warp();

        // --- The weighted sum: a chain for each tile, added to what was there ---
#pragma unroll
        for (int s = 0; s < slices; ++s) {
            Acc more[T::kThreadRows][groups][T::kVector] = {};
#pragma unroll 1
            for (int step = 0; step < value_steps; ++step) {
                const Acc* const stage = pipeline.template next<slice>(copy_step);
                const Acc* const some = weights + step * T::kValueKeys * T::kWeightPitch;
                if (pipeline.is_poisoned()) {
                    multiply_weights<Acc, groups, true>(some, stage, more);
                } else {
                    multiply_weights<Acc, groups, false>(some, stage, more);
                }
            }
#pragma unroll
            for (int i = 0; i < T::kThreadRows; ++i) {
#pragma unroll
                for (int g = 0; g < groups; ++g) {
#pragma unroll
                    for (int e = 0; e < T::kVector; ++e)
                        gradient[i][s * groups + g][e] += more[i][g][e];
                }
            }
        }
    }

    // --- Results ---
    const Target& target = owns_rows            ? problem.grad_query
                           : part == Part::kKey ? problem.grad_key
                                                : problem.grad_value;
    const int width = part == Part::kValue ? forward.dim_v : forward.dim;
    const int64_t left = (owns_rows ? head_rows : forward.keys) - owned - own;  // for this warp
    // Of <q, sum of dR k> each of these lanes has a share of a row's columns.
    constexpr int sharing = kWarp / T::kWarpRows;
    double product = 0;
    for (int g = 0; g < slices * groups; ++g) {
        sync_warp();
#pragma unroll
        for (int n = 0; n < slices * groups; ++n) {
            if (n != g) continue;
#pragma unroll
            for (int i = 0; i < T::kThreadRows; ++i) {
                typename T::Vector some;
#pragma unroll
                for (int e = 0; e < T::kVector; ++e) some.element[e] = gradient[i][n][e];
                *reinterpret_cast<typename T::Vector*>(weights + T::row(i) * T::kGroup +
                                                       T::column() * T::kVector) = some;
            }
        }
        sync_warp();
        for (int at = T::lane(); at < T::kWarpRows * T::kGroup; at += kWarp) {
            const int line = at / T::kGroup;
            const int column = g * T::kGroup + at % T::kGroup;
            if (line >= left || column >= width) continue;
            Acc value = weights[at];
            int64_t place;
            if (owns_rows) {
                value *= shared.factor[own + line];
                place = place_of(target, owned + own + line);
            } else {
                place = sequence.batch * target.batch + kv_head * target.head +
                        (owned + own + line) * target.row;
            }
            static_cast<Acc*>(target.data)[place + column * target.column] = value;
        }
        if constexpr (owns_rows) {
            const auto* const query = static_cast<const Acc*>(forward.query.data);
            const int line = T::lane() / sharing;
            for (int k = T::lane() % sharing; line < left && k < T::kGroup; k += sharing) {
                const int column = g * T::kGroup + k;
                if (column >= width) break;
                product +=
                    static_cast<double>(weights[line * T::kGroup + k]) *
                    static_cast<double>(
                        query[shared.query_starts[own + line] + column * forward.query.column]);
            }
        }
    }
    if constexpr (owns_rows) {
        for (int mask = 1; mask < sharing; mask *= 2) product += shuffle_xor(product, mask);
        const int line = T::lane() / sharing;
        if (T::lane() % sharing == 0 && line < left) {
            row_numbers.grad_factor[unit * head_rows + owned + own + line] =
                shared.lse[own + line] == kInfinity<Acc> ? 0 : product;
        }
    }
}

template <class Acc, int columns, Part part>
void run(const Context& context, const BackwardProblem& problem, const BackwardRows<Acc>& rows) {
    const Problem& forward = problem.forward;
    const Direct direct{is_direct<Acc>(forward.query, forward.dim),
                        is_direct<Acc>(forward.key, forward.dim),
                        is_direct<Acc>(forward.value, forward.dim_v),
                        is_direct<Acc>(problem.grad_out, forward.dim_v)};
    const int64_t lines = part == Part::kQuery ? forward.group * forward.queries : forward.keys;
    const int64_t blocks = ceil_div(lines, Tile<Acc>::kRows) * forward.kv_heads * forward.sequences;
    launch(context, forward.function, &backward_tiles<Acc, columns, part>,
           dim3(static_cast<unsigned>(blocks)), dim3(Tile<Acc>::kThreads), sizeof(Shared<Acc>),
           problem, rows, direct);
}

template <class Acc, Part part>
void run(const Context& context, const BackwardProblem& problem, const BackwardRows<Acc>& rows) {
    const int width = part == Part::kValue ? problem.forward.dim_v : problem.forward.dim;
    // Of float64 there is one kernel less to compile: its 64 columns take the time of 128.
    if constexpr (sizeof(Acc) == 4) {
        if (width <= 64) return run<Acc, 64, part>(context, problem, rows);
    }
    if (width <= 128) return run<Acc, 128, part>(context, problem, rows);
    run<Acc, 256, part>(context, problem, rows);
}

template <class Acc>
void run(const Context& context, const BackwardProblem& problem, const BackwardRows<Acc>& rows) {
    run<Acc, Part::kQuery>(context, problem, rows);
    run<Acc, Part::kKey>(context, problem, rows);
    run<Acc, Part::kValue>(context, problem, rows);
}

}  // namespace

void backward_simt(const Context& context, const BackwardProblem& problem,
                   const BackwardRows<float>& rows) {
    run(context, problem, rows);
}
void backward_simt(const Context& context, const BackwardProblem& problem,
                   const BackwardRows<double>& rows) {
    run(context, problem, rows);
}

}  // namespace slipstick::cuda::attention
