#pragma once

#include <cstdint>
#include <string>

#include "core/cuda.hpp"
#include "cuda_runtime.h"

namespace cuda_emulator {

// Launches the kernel of that name (trials.cu) on addresses of int32.
void run_trial(const std::string& name, int device, intptr_t stream, intptr_t from, intptr_t to,
               int count, dim3 grid, dim3 block, size_t shared_bytes);
// Those of hopper_trials.cu.
void run_hopper_trial(const std::string& name, const slipstick::cuda::Context& context,
                      const void* from, void* to);

}  // namespace cuda_emulator
