#include "attention/backward_mma.cuh"

#include <cmath>

namespace slipstick::cuda::attention {

void backward_mma(const Context& context, const BackwardProblem& problem,
                  const BackwardRows<float>& rows) {
    if (problem.forward.dtype == Dtype::kFloat16) {
        run_backward_mma<Float16>(context, problem, rows);
    } else {
        run_backward_mma<BFloat16>(context, problem, rows);
    }
}

}  // namespace slipstick::cuda::attention
