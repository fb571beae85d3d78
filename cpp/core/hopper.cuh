// The instructions that compute capability 9.0 alone has (sm_90a): products of warpgroups with
// operands in shared memory (wgmma), boxes of tensors that the copy engine brings (TMA), barriers
// that count its bytes (mbarrier), registers moved between warpgroups. Like ptx.cuh a seam: an
// emulation of CUDA replaces this file.
//
// A warpgroup is 128 neighbours, threads 128 g to 128 g + 127.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "core/cuda.cuh"
#include "core/dtype.hpp"
#include "core/hopper_layout.cuh"

#if defined(__CUDA_ARCH__) && !defined(__CUDA_ARCH_FEAT_SM90_ALL)
#error "core/hopper.cuh is for sm_90a alone"
#endif

namespace slipstick::cuda {

inline constexpr int kWarpgroup = 128;

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// --- Barriers in shared memory ---
//
// A phase ends when as many threads have arrived as were said at the start, and as many bytes as
// they announced. Phases count from 0; `parity` is a phase's number modulo 2.

struct Barrier {
    uint64_t state;
};

__device__ __forceinline__ void init_barrier(Barrier* barrier, uint32_t arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)),
                 "r"(arrivals)
                 : "memory");
}
// After the thread's init_barrier, and before a barrier of the block, so that all threads and the
// copy engine find what they say.
__device__ __forceinline__ void publish_barriers() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
__device__ __forceinline__ void arrive(Barrier* barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier))
                 : "memory");
}
// Arrives, and announces bytes that the copy engine will bring in this phase.
__device__ __forceinline__ void arrive_and_expect(Barrier* barrier, uint32_t bytes) {
    asm volatile(
        "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
        "r"(bytes)
        : "memory");
}
// Until the current phase is not of this parity: the one of this parity has ended. Before the first
// has, those of parity 1 count as ended.
__device__ __forceinline__ void wait(Barrier* barrier, uint32_t parity) {
    uint32_t ended = 0;
    while (ended == 0) {
        asm volatile(
            "{\n"
            ".reg .pred p;\n"
            "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
            "selp.u32 %0, 1, 0, p;\n"
            "}"
            : "=r"(ended)
            : "r"(shared_address(barrier)), "r"(parity)
            : "memory");
    }
}

// --- Barriers of some warps ---
//
// Number 1 to 15; of `threads` threads, a multiple of 32, some wait and the others only arrive.

__device__ __forceinline__ void sync_threads(int number, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(number), "r"(threads) : "memory");
}
__device__ __forceinline__ void arrive_threads(int number, int threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(number), "r"(threads) : "memory");
}

// --- Boxes of a tensor ---

// A kernel takes a map as `const __grid_constant__ TensorMap`.
using TensorMap = CUtensorMap;

// The driver's function, found by its name: nothing is linked against the driver, which a machine
// without a device lacks.
inline TensorMap make_tensor_map(const TensorShape& shape, const char* function) {
    void* entry = nullptr;
    cudaDriverEntryPointQueryResult found{};
#if CUDART_VERSION >= 12050
    check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000,
                                           cudaEnableDefault, &found),
          function);
#else
    check(cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &entry, cudaEnableDefault, &found),
          function);
#endif
    if (found != cudaDriverEntryPointSuccess || entry == nullptr)
        throw Error(std::string(function) + ": the driver has no cuTensorMapEncodeTiled");
    cuuint64_t lengths[4];
    cuuint64_t steps[3];
    for (int axis = 0; axis < 4; ++axis)
        lengths[axis] = static_cast<cuuint64_t>(shape.lengths[axis]);
    for (int axis = 0; axis < 3; ++axis) steps[axis] = static_cast<cuuint64_t>(shape.steps[axis]);
    const cuuint32_t box[4] = {kBoxColumns, static_cast<cuuint32_t>(shape.box_rows), 1, 1};
    const cuuint32_t every[4] = {1, 1, 1, 1};
    TensorMap map;
    const CUresult status = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(entry)(
        &map,
        shape.dtype == Dtype::kFloat16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16
                                       : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        4, const_cast<void*>(shape.data), lengths, steps, box, every, CU_TENSOR_MAP_INTERLEAVE_NONE,
        CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (status != CUDA_SUCCESS) {
        throw Error(std::string(function) + ": the driver refuses a tensor map with error " +
                    std::to_string(static_cast<int>(status)));
    }
    return map;
}

// Has the copy engine fetch the map's 128 bytes ahead of its first use.
__device__ __forceinline__ void prefetch_map(const TensorMap& map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}
// Starts to bring the box whose first element has these coordinates; its bytes, those outside of
// the tensor included, are counted by the barrier's phase.
__device__ __forceinline__ void copy_box(void* target, const TensorMap& map, Barrier* barrier,
                                         int column, int row, int third, int fourth) {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, "
        "{%3, %4, %5, %6}], [%2];" ::"r"(shared_address(target)),
        "l"(&map), "r"(shared_address(barrier)), "r"(column), "r"(row), "r"(third), "r"(fourth)
        : "memory");
}

// --- Registers ---
//
// A block starts with the same number for every thread; a warpgroup gives some back, and another
// takes them. Multiples of 8 between 24 and 256; called by all warps of a warpgroup.

template <int count>
__device__ __forceinline__ void release_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(count));
}
// Waits until they are there.
template <int count>
__device__ __forceinline__ void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(count));
}

// --- Products of a warpgroup ---
//
// d += A B for A of 64 x 16, B of 16 x n, 16-bit elements, float32 sums; all four warps start each
// product together, and it runs while they go on. Warp w has rows 16 w to 16 w + 15 of A and d, and
// its lanes have of them what they have in m16n8k16 (ptx.cuh), d[j] for columns 8 j to 8 j + 7.
//
// Keeps what computes with registers on its side of the instruction: the compiler does not know
// that products use them while other instructions run.
template <class T, int count>
__device__ __forceinline__ void hold(T (&registers)[count]) {
#pragma unroll
    for (int i = 0; i < count; ++i) {
        if constexpr (std::is_same_v<T, float>) {
            asm volatile("" : "+f"(registers[i])::"memory");
        } else {
            asm volatile("" : "+r"(registers[i])::"memory");
        }
    }
}
template <class T, int rows, int count>
__device__ __forceinline__ void hold(T (&registers)[rows][count]) {
#pragma unroll
    for (int i = 0; i < rows; ++i) hold(registers[i]);
}

// Before the first product that uses these registers after other instructions did.
template <class... Registers>
__device__ __forceinline__ void begin_products(Registers&... registers) {
    (hold(registers), ...);
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
// Ends a group of products.
__device__ __forceinline__ void commit_products() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Until at most `pending` groups run; `registers` are those whose groups have ended.
template <int pending, class... Registers>
__device__ __forceinline__ void wait_for_products(Registers&... registers) {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
    (hold(registers), ...);
}

// clang-format off
#define SLIPSTICK_SUMS_8(d, j) "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3]), \
    "+f"(d[j + 1][0]), "+f"(d[j + 1][1]), "+f"(d[j + 1][2]), "+f"(d[j + 1][3])
#define SLIPSTICK_SUMS_32(d, j) SLIPSTICK_SUMS_8(d, j), SLIPSTICK_SUMS_8(d, j + 2), \
    SLIPSTICK_SUMS_8(d, j + 4), SLIPSTICK_SUMS_8(d, j + 6)
#define SLIPSTICK_PLACES_0_31 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define SLIPSTICK_PLACES_32_63 \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

// A and B along the depth, in shared memory; n = 128.
#define SLIPSTICK_PRODUCT_128(type)                                                              \
    asm volatile("{\n"                                                                           \
                 ".reg .pred p;\n"                                                               \
                 "setp.ne.b32 p, %66, 0;\n"                                                      \
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " {"               \
                 SLIPSTICK_PLACES_0_31 ", " SLIPSTICK_PLACES_32_63 "}, %64, %65, p, 1, 1, 0, 0;\n" \
                 "}"                                                                             \
                 : SLIPSTICK_SUMS_32(d, 0), SLIPSTICK_SUMS_32(d, 8)                             \
                 : "l"(a), "l"(b), "r"(static_cast<int>(add)))
// A in registers, B across the depth in shared memory; n = 128 and n = 64.
#define SLIPSTICK_WEIGHTED_128(type)                                                             \
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " {"               \
                 SLIPSTICK_PLACES_0_31 ", " SLIPSTICK_PLACES_32_63                               \
                 "}, {%64, %65, %66, %67}, %68, 1, 1, 1, 1;"                                     \
                 : SLIPSTICK_SUMS_32(d, 0), SLIPSTICK_SUMS_32(d, 8)                             \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))
#define SLIPSTICK_WEIGHTED_64(type)                                                              \
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " {"                \
                 SLIPSTICK_PLACES_0_31 "}, {%32, %33, %34, %35}, %36, 1, 1, 1, 1;"               \
                 : SLIPSTICK_SUMS_32(d, 0)                                                       \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))
// clang-format on

// d = A B, or d += A B where `add`; both operands along the depth, n = 128. T is Float16 or
// BFloat16.
template <class T>
__device__ __forceinline__ void multiply_matrices(float (&d)[16][4], Matrix a, Matrix b, bool add) {
    if constexpr (std::is_same_v<T, Float16>) {
        SLIPSTICK_PRODUCT_128("f16");
    } else {
        static_assert(std::is_same_v<T, BFloat16>);
        SLIPSTICK_PRODUCT_128("bf16");
    }
}
// d += A B; A in registers, as in m16n8k16, B across the depth, n = 128 or 64.
template <class T, int blocks>
__device__ __forceinline__ void multiply_add_matrix(float (&d)[blocks][4], const uint32_t (&a)[4],
                                                    Matrix b) {
    static_assert(blocks == 16 || blocks == 8);
    static_assert(std::is_same_v<T, Float16> || std::is_same_v<T, BFloat16>);
    if constexpr (blocks == 16 && std::is_same_v<T, Float16>) {
        SLIPSTICK_WEIGHTED_128("f16");
    } else if constexpr (blocks == 16) {
        SLIPSTICK_WEIGHTED_128("bf16");
    } else if constexpr (std::is_same_v<T, Float16>) {
        SLIPSTICK_WEIGHTED_64("f16");
    } else {
        SLIPSTICK_WEIGHTED_64("bf16");
    }
}

#undef SLIPSTICK_WEIGHTED_64
#undef SLIPSTICK_WEIGHTED_128
#undef SLIPSTICK_PRODUCT_128
#undef SLIPSTICK_PLACES_32_63
#undef SLIPSTICK_PLACES_0_31
#undef SLIPSTICK_SUMS_32
#undef SLIPSTICK_SUMS_8

}  // namespace slipstick::cuda
