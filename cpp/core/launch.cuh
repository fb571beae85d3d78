// How kernels start, and where their dynamic shared memory lies: the one place that knows more of
// CUDA than calls of the runtime, and so the one that an emulation of it replaces.
#pragma once

#include <tuple>
#include <utility>

#include "core/cuda.cuh"

namespace slipstick::cuda {

// The block's dynamic shared memory, aligned to 16 bytes.
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
    extern __shared__ __align__(16) unsigned char slipstick_dynamic_shared[];
    return reinterpret_cast<T*>(slipstick_dynamic_shared);
}

// kernel(arguments...) on the context's stream; `shared_bytes` of dynamic shared memory may go up
// to what the device has. The context's device must be current (DeviceGuard).
template <class... Parameters, class... Arguments>
void launch(const Context& context, const char* function, void (*kernel)(Parameters...), dim3 grid,
            dim3 block, size_t shared_bytes, const Arguments&... arguments) {
    const void* const entry = reinterpret_cast<const void*>(kernel);
    // More than this has to be asked for.
    constexpr size_t kFreeSharedBytes = 48 * 1024;
    if (shared_bytes > kFreeSharedBytes) {
        check(cudaFuncSetAttribute(entry, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   static_cast<int>(shared_bytes)),
              function);
    }
    std::tuple<Parameters...> values(arguments...);
    std::apply(
        [&](Parameters&... value) {
            void* pointers[] = {&value...};
            check(cudaLaunchKernel(entry, grid, block, pointers, shared_bytes, stream_of(context)),
                  function);
        },
        values);
}

}  // namespace slipstick::cuda
