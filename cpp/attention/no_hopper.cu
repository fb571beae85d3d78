// Takes the place of forward_hopper.cu in a module that has no code for compute capability 9.0.
#include "attention/device_kernels.cuh"

namespace slipstick::cuda::attention {

bool has_hopper_kernel(int, int) { return false; }

bool hopper_serves(const Context&, const Problem&) { return false; }

void forward_hopper(const Context&, const Problem& problem) {
    throw Error(std::string(problem.function) + ": this module has no kernel for sm_90a");
}

}  // namespace slipstick::cuda::attention
