// How kernels start, and where their dynamic shared memory lies: the one place that knows more of
// CUDA than calls of the runtime, and so the one that an emulation of it replaces.
#pragma once

#include <mutex>
#include <set>
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

// Lets a kernel have all the dynamic shared memory that a block of the device can have, whatever
// this launch needs: threads that start it with different sizes then do not undo each other's. Once
// a device, since the call may wait for copies.
inline void allow_shared_memory(const Context& context, const char* function, const void* entry) {
    static std::mutex mutex;
    static std::set<std::pair<const void*, int>> allowed;
    const std::lock_guard lock(mutex);
    if (allowed.contains({entry, context.device})) return;
    const int most = device_attribute(context, cudaDevAttrMaxSharedMemoryPerBlockOptin, function);
    // What the kernel declares itself comes out of the same room: asking for all of it is an error.
    cudaFuncAttributes kernel{};
    check(cudaFuncGetAttributes(&kernel, entry), function);
    check(cudaFuncSetAttribute(entry, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               most - static_cast<int>(kernel.sharedSizeBytes)),
          function);
    allowed.insert({entry, context.device});
}

// kernel(arguments...) on the context's stream; `shared_bytes` of dynamic shared memory may go up
// to what the device has. The context's device must be current (DeviceGuard).
template <class... Parameters, class... Arguments>
void launch(const Context& context, const char* function, void (*kernel)(Parameters...), dim3 grid,
            dim3 block, size_t shared_bytes, const Arguments&... arguments) {
    const void* const entry = reinterpret_cast<const void*>(kernel);
    // More than 48 KiB has to be asked for, in which counts what the kernel declares itself: up to
    // 16 KiB here.
    constexpr size_t kFreeSharedBytes = 32 * 1024;
    if (shared_bytes > kFreeSharedBytes) allow_shared_memory(context, function, entry);
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
