// Macros for code that the host, every instruction-set level and the GPU share.
#pragma once

// Always inlined: an inline function that the compiler keeps out of line becomes a weak symbol, and
// the linker would then let one level's copy serve all levels.
#if defined(__CUDACC__)
#define SLIPSTICK_HD __host__ __device__ __forceinline__
#else
#define SLIPSTICK_HD inline __attribute__((always_inline))
#endif

// Before a loop of few, known turns, which nvcc leaves rolled where gcc does not.
#if defined(__CUDA_ARCH__)
#define SLIPSTICK_UNROLL _Pragma("unroll")
#else
#define SLIPSTICK_UNROLL
#endif
