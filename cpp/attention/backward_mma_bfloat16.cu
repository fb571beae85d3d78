#include "attention/backward_mma_launch.cuh"

namespace slipstick::cuda::attention {

template void run_backward_mma<BFloat16>(const Context&, const BackwardProblem&,
                                         const BackwardRows<float>&);

}  // namespace slipstick::cuda::attention
