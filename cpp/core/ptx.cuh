// The instructions of a warp that CUDA C++ has no word for, or a slower one: asynchronous copies to
// shared memory, matrix fragments, products on tensor cores, shuffles. For sm_80 and later. Like
// launch.cuh a seam: an emulation of CUDA replaces this file.
//
// A lane is threadIdx.x % 32, so blocks have one axis. Every function here but those of copies is
// called by all lanes of a warp together.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "core/dtype.hpp"

namespace slipstick::cuda {

inline constexpr int kWarp = 32;

// --- Shuffles ---

template <class T>
__device__ __forceinline__ T shuffle_xor(T value, int mask) {
    return __shfl_xor_sync(0xffffffffu, value, mask);
}
// The value of another lane.
template <class T>
__device__ __forceinline__ T shuffle(T value, int lane) {
    return __shfl_sync(0xffffffffu, value, lane);
}
// Whether the predicate holds in any lane.
__device__ __forceinline__ bool any_lane(bool predicate) {
    return __any_sync(0xffffffffu, predicate) != 0;
}
// Orders the lanes' accesses to memory.
__device__ __forceinline__ void sync_warp() { __syncwarp(); }

// --- Asynchronous copies from global to shared memory, by each thread for itself ---

// 16 bytes, both addresses multiples of 16; zeros where not `valid`, and `source` is not read then,
// but is an address of the device all the same.
__device__ __forceinline__ void copy_async(void* target, const void* source, bool valid = true) {
    const auto shared = static_cast<uint32_t>(__cvta_generic_to_shared(target));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(source),
                 "r"(valid ? 16 : 0)
                 : "memory");
}
// Ends a group of copies of this thread; a group may be empty.
__device__ __forceinline__ void commit_copies() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
// Until at most `pending` of this thread's groups are on their way. Other threads see what arrived
// after a barrier.
template <int pending>
__device__ __forceinline__ void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

// --- Matrix fragments ---
//
// m16n8k16 of the PTX manual, for 16-bit elements. With group = lane / 4 and pair = lane % 4, two
// neighbours of a row (A, D) or a column (B) to a register, the lower one in the lower half:
//   A, 16 x 16   a[0]: row group, columns 2 pair, 2 pair + 1      a[1]: row group + 8
//                a[2]: row group, columns 2 pair + 8, + 9         a[3]: row group + 8, likewise
//   B, 16 x 8    b[0]: rows 2 pair, 2 pair + 1, column group      b[1]: rows 2 pair + 8, + 9
//   C, D, 16 x 8 d[0], d[1]: row group, columns 2 pair, 2 pair + 1    d[2], d[3]: row group + 8

// Loads four 8 x 8 matrices of 16-bit elements. Lane 8 i + r gives the address of row r of matrix
// i, 16 bytes at a multiple of 16; lane l receives of matrix i in fragment[i] the elements 2 (l %
// 4) and the next of row l / 4.
__device__ __forceinline__ void load_matrices(uint32_t (&fragment)[4], const void* row) {
    const auto shared = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
                 : "r"(shared)
                 : "memory");
}
// The same, each matrix transposed: lane l receives rows 2 (l % 4) and the next of column l / 4.
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&fragment)[4], const void* row) {
    const auto shared = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
                 : "r"(shared)
                 : "memory");
}

// d += A B with float32 sums; T is Float16 or BFloat16.
template <class T>
__device__ __forceinline__ void multiply_add(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                             uint32_t b1) {
    if constexpr (std::is_same_v<T, Float16>) {
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
            "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    } else {
        static_assert(std::is_same_v<T, BFloat16>);
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
            "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    }
}

// Two numbers rounded to nearest even, `low` in the lower half.
template <class T>
__device__ __forceinline__ uint32_t pack(float low, float high) {
    uint32_t packed;
    if constexpr (std::is_same_v<T, Float16>) {
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    } else {
        static_assert(std::is_same_v<T, BFloat16>);
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    }
    return packed;
}

// 2^x to 2 ulp in one instruction; results below 2^-126 become 0.
__device__ __forceinline__ float exp2_fast(float x) {
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
}

}  // namespace slipstick::cuda
