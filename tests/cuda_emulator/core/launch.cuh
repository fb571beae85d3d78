// Stands in for cpp/core/launch.cuh: kernels run here and now, on the host.
#pragma once

#include <tuple>
#include <type_traits>
#include <typeinfo>
#include <utility>

#include "core/cuda.cuh"
#include "emulator.hpp"

namespace slipstick::cuda {

template <class T>
T* dynamic_shared() {
    return reinterpret_cast<T*>(cuda_emulator::shared_memory());
}

// What lies between members says nothing, and looks like anything.
template <class T>
void check_argument(const cuda_emulator::Launch& launch, int index, T value) {
#if __has_builtin(__builtin_clear_padding)
    __builtin_clear_padding(&value);
#else
    if (!std::is_pointer_v<T>) return;
#endif
    cuda_emulator::check_argument(launch, index, &value, sizeof(value));
}

template <class... Parameters, class... Arguments>
void launch(const Context& context, const char* function, void (*kernel)(Parameters...), dim3 grid,
            dim3 block, size_t shared_bytes, const Arguments&... arguments) {
    static_assert((std::is_trivially_copyable_v<Parameters> && ...));
    static_assert((sizeof(Parameters) + ... + 0) <= 4096, "more than a kernel may have");
    const void* const entry = reinterpret_cast<const void*>(kernel);
    constexpr size_t kFreeSharedBytes = 48 * 1024;
    if (shared_bytes > kFreeSharedBytes) {
        check(cudaFuncSetAttribute(entry, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   static_cast<int>(shared_bytes)),
              function);
    }
    const cuda_emulator::Launch description{
        function, typeid(kernel).name(), entry,          grid,
        block,    shared_bytes,          context.device, stream_of(context)};
    std::tuple<Parameters...> values(arguments...);
    std::apply(
        [&](const Parameters&... value) {
            int index = 0;
            (check_argument(description, index++, value), ...);
        },
        values);
    check(cuda_emulator::launch(description, [kernel, values] { std::apply(kernel, values); }),
          function);
}

}  // namespace slipstick::cuda
