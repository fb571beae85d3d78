// Small arrays of the host on their way to a device.
#pragma once

#include <type_traits>
#include <vector>

#include "core/cuda.cuh"

namespace slipstick::cuda {

// A copy of so many bytes in the context's memory. They travel in the arguments of kernels: a copy
// from memory that is not pinned could not be captured, and might wait.
void* upload_bytes(const Context& context, const char* function, const void* data, int64_t bytes);

template <class T>
const T* upload(const Context& context, const char* function, const std::vector<T>& numbers) {
    static_assert(std::is_trivially_copyable_v<T>);
    return static_cast<const T*>(
        upload_bytes(context, function, numbers.data(),
                     static_cast<int64_t>(numbers.size()) * int64_t{sizeof(T)}));
}

}  // namespace slipstick::cuda
