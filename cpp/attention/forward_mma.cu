#include "attention/device_kernels.cuh"
#include "attention/forward_mma.cuh"

namespace slipstick::cuda::attention {

void forward_mma(const Context& context, const Problem& problem) {
    const bool full = problem.has_mask() || problem.softcap != 0 || problem.has_stats();
    dispatch<Float16, BFloat16>(problem.dtype, [&]<class T>() {
        if (full) {
            launch_forward_columns<T, true>(context, problem);
        } else {
            launch_forward_columns<T, false>(context, problem);
        }
    });
}

}  // namespace slipstick::cuda::attention
