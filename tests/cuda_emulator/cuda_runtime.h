// The words of CUDA C++ that slipstick's kernels use, for a host compiler. One OS thread at a time
// runs the threads of one block, so that what a block shares is static.
#pragma once

#include <math.h>  // whose functions are global there, too

#include "cuda_runtime_api.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __shared__ static

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned width = 1, unsigned height = 1, unsigned depth = 1)
        : x(width), y(height), z(depth) {}
};

// Of the thread that runs.
extern dim3 threadIdx;
extern dim3 blockIdx;
extern dim3 blockDim;
extern dim3 gridDim;

namespace cuda_emulator {
void wait_for_block(const char* file, int line);
}

// Which of them a thread waits at matters: all threads of a block have to wait at the same.
#define __syncthreads() ::cuda_emulator::wait_for_block(__FILE__, __LINE__)

// Threads run one after another, so that every access is atomic.
template <class T>
T atomicAdd(T* address, T value) {
    const T before = *address;
    *address = static_cast<T>(before + value);
    return before;
}
template <class T>
T atomicOr(T* address, T value) {
    const T before = *address;
    *address = before | value;
    return before;
}
template <class T>
T atomicMin(T* address, T value) {
    const T before = *address;
    if (value < before) *address = value;
    return before;
}
template <class T>
T atomicMax(T* address, T value) {
    const T before = *address;
    if (before < value) *address = value;
    return before;
}

template <class T>
T __ldg(const T* address) {
    return *address;
}
