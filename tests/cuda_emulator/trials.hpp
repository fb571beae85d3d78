#pragma once

#include <cstdint>
#include <string>

#include "cuda_runtime.h"

namespace cuda_emulator {

// Launches the kernel of that name (trials.cu) on addresses of int32.
void run_trial(const std::string& name, int device, intptr_t stream, intptr_t from, intptr_t to,
               int count, dim3 grid, dim3 block, size_t shared_bytes);

}  // namespace cuda_emulator
