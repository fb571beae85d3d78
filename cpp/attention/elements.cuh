// Elements of any float type and the numbers that kernels compute with.
#pragma once

#include <cuda_runtime.h>

#include <type_traits>

#include "core/dtype.hpp"

namespace slipstick::cuda::attention {

// What T is accumulated in.
template <class T>
using AccOf = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <class T>
__device__ __forceinline__ AccOf<T> widened(T value) {
    if constexpr (sizeof(T) == 2) {
        return to_float(value);
    } else {
        return value;
    }
}

// Rounded once, to the nearest.
template <class T>
__device__ __forceinline__ T rounded(AccOf<T> value) {
    if constexpr (std::is_same_v<T, Float16>) {
        return to_float16(value);
    } else if constexpr (std::is_same_v<T, BFloat16>) {
        return to_bfloat16(value);
    } else {
        return value;
    }
}

}  // namespace slipstick::cuda::attention
