// What each row of the gradients needs beyond its operands, by a warp a row.
#include "attention/device_kernels.cuh"
#include "core/launch.cuh"
#include "core/ptx.cuh"

namespace slipstick::cuda::attention {
namespace {

constexpr int kWarps = 8;

template <class Acc>
__global__ void fill_rows(BackwardProblem problem, BackwardRows<Acc> rows) {
    const Problem& forward = problem.forward;
    const int64_t head_rows = forward.group * forward.queries;
    const int64_t at = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
    if (at >= head_rows * forward.kv_heads * forward.sequences) return;
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const int64_t number = at / head_rows / forward.kv_heads;
    const int64_t row = at % head_rows;
    const int64_t head = at / head_rows % forward.kv_heads * forward.group + row % forward.group;
    const int64_t query = row / forward.group;
    const Sequence sequence = sequence_of(forward, number);

    // <dO, o> in float64, as on the CPU: what it is off by becomes an error of the whole row.
    double sum = 0;
    const int64_t grad = sequence.batch * problem.grad_out.batch + head * problem.grad_out.head +
                         query * problem.grad_out.row;
    const int64_t out =
        sequence.batch * problem.out.batch + head * problem.out.head + query * problem.out.row;
    for (int64_t k = lane; k < forward.dim_v; k += kWarp) {
        sum += float_at(problem.grad_out.data, forward.dtype, grad + k * problem.grad_out.column) *
               float_at(problem.out.data, forward.dtype, out + k * problem.out.column);
    }
    for (int mask = 1; mask < kWarp; mask *= 2) sum += shuffle_xor(sum, mask);
    if (lane != 0) return;

    const Acc lse = *problem.lse.at<Acc>(sequence.batch, head, query);
    // A row without a key, in this call or in all calls that its statistics come from.
    const bool empty = visible_of(forward, sequence, head, query) == 0 ||
                       lse == -std::numeric_limits<Acc>::infinity();
    Acc grad_entropy = 0;
    if (problem.grad_lse.data != nullptr)
        sum -= static_cast<double>(*problem.grad_lse.at<Acc>(sequence.batch, head, query));
    if (problem.grad_entropy.data != nullptr) {
        grad_entropy = *problem.grad_entropy.at<Acc>(sequence.batch, head, query);
        sum += static_cast<double>(grad_entropy) *
               static_cast<double>(*problem.entropy.at<Acc>(sequence.batch, head, query));
    }
    rows.factor[at] = empty ? Acc{0} : factor_of<Acc>(forward, sequence, number, head, query);
    rows.lse[at] = empty ? std::numeric_limits<Acc>::infinity() : lse;
    rows.constant[at] = empty ? Acc{0} : static_cast<Acc>(sum);
    if (rows.grad_entropy != nullptr) rows.grad_entropy[at] = empty ? Acc{0} : grad_entropy;
}

template <class Acc>
void run(const Context& context, const BackwardProblem& problem, const BackwardRows<Acc>& rows) {
    const Problem& forward = problem.forward;
    const int64_t count = forward.group * forward.queries * forward.kv_heads * forward.sequences;
    launch(context, forward.function, &fill_rows<Acc>,
           dim3(static_cast<unsigned>(ceil_div(count, kWarps))), dim3(kWarps * kWarp), 0, problem,
           rows);
}

}  // namespace

void backward_rows(const Context& context, const BackwardProblem& problem,
                   const BackwardRows<float>& rows) {
    run(context, problem, rows);
}
void backward_rows(const Context& context, const BackwardProblem& problem,
                   const BackwardRows<double>& rows) {
    run(context, problem, rows);
}

}  // namespace slipstick::cuda::attention
