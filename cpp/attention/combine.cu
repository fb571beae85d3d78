// What the parts of the keys gave for a row, put together:
//   m = max m_p     f_p = e^(m_p - m)     l = sum f_p l_p     a = sum f_p (a_p + (m_p - m) l_p)
//   out = sum f_p out_p / l
#include "attention/few_rows_parts.cuh"
#include "core/ptx.cuh"

namespace slipstick::cuda::attention {
namespace {

constexpr int kThreads = kMostParts;  // one a part
constexpr int kWarps = kThreads / kWarp;

// Sums are trees: across the lanes, then over the warps.
template <class Acc>
struct CombineShared {
    Acc weight[kThreads];
    RowState<Acc> warp[kWarps];
    Acc divisor;
};

// `value` of all lanes, put together by `join`.
template <class T, class Join>
__device__ __forceinline__ T across_lanes(T value, Join join) {
#pragma unroll
    for (int distance = 1; distance < kWarp; distance *= 2)
        value = join(value, shuffle_xor(value, distance));
    return value;
}

// A block a row.
template <class T, class Acc>
__global__ void __launch_bounds__(kThreads) combine_parts(Problem problem, Parts<Acc> parts) {
    __shared__ CombineShared<Acc> shared;
    const Work work = few_rows_work(problem, blockIdx.x / parts.rows);
    const int64_t row = blockIdx.x % parts.rows;
    const int count = static_cast<int>(parts_of(work.sequence.length).count);
    if (work.none || row >= problem.group * work.sequence.queries || count == 1) return;
    const int64_t at = parts.at(problem, work, 0) + row;
    const int thread = static_cast<int>(threadIdx.x);
    const int warp = thread / kWarp;
    const auto plus = [](Acc a, Acc b) { return a + b; };

    RowState<Acc> own{-kInfinity<Acc>, 0, 0};
    if (thread < count) own = parts.state[at + thread * parts.step(problem)];
    RowState<Acc> total{across_lanes(own.maximum, [](Acc a, Acc b) { return larger(a, b); }), 0, 0};
    if (thread % kWarp == 0) shared.warp[warp].maximum = total.maximum;
    __syncthreads();
    for (int i = 0; i < kWarps; ++i) total.maximum = larger(total.maximum, shared.warp[i].maximum);
    shared.weight[thread] = add_state(own, total);
    total.sum = across_lanes(total.sum, plus);
    total.moment = across_lanes(total.moment, plus);
    if (thread % kWarp == 0) {
        shared.warp[warp].sum = total.sum;
        shared.warp[warp].moment = total.moment;
    }
    __syncthreads();
    if (thread == 0) {
        for (int i = 1; i < kWarps; ++i) {
            total.sum += shared.warp[i].sum;
            total.moment += shared.warp[i].moment;
        }
        shared.divisor = finish_state(problem, work, row, total);
    }
    __syncthreads();

    T* const out = out_of<T>(problem, work, row);
    for (int column = thread; column < problem.dim_v; column += kThreads) {
        const Acc* source = parts.out + at * problem.dim_v + column;
        const int64_t step = parts.step(problem) * problem.dim_v;
        Acc sum = 0;
#pragma unroll 8
        for (int part = 0; part < count; ++part, source += step) {
            const Acc weight = shared.weight[part];
            if (!(weight < 0)) sum += weight * *source;
        }
        out[column * problem.out.column] = rounded<T>(sum / shared.divisor);
    }
}

template <class T, class Acc>
void run(const Context& context, const Problem& problem, const Parts<Acc>& parts) {
    const int64_t blocks = problem.sequences * problem.kv_heads * parts.rows;
    launch(context, problem.function, &combine_parts<T, Acc>, dim3(static_cast<unsigned>(blocks)),
           dim3(kThreads), 0, problem, parts);
}

}  // namespace

int64_t key_parts(const Problem& problem) {
    const int64_t parts = ceil_div(problem.keys, kPartKeys);
    return std::clamp<int64_t>(parts, 1, kMostParts);
}

void combine(const Context& context, const Problem& problem, const Parts<float>& parts) {
    dispatch<float, Float16, BFloat16>(problem.dtype,
                                       [&]<class T>() { run<T, float>(context, problem, parts); });
}
void combine(const Context& context, const Problem& problem, const Parts<double>& parts) {
    run<double, double>(context, problem, parts);
}

}  // namespace slipstick::cuda::attention
