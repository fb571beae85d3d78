// Kernels, right and wrong ones, on which tests try the emulator.
#include "trials.hpp"

#include "core/launch.cuh"
#include "core/ptx.cuh"

namespace cuda_emulator {
namespace {

using slipstick::cuda::Context;
using slipstick::cuda::dynamic_shared;
using slipstick::cuda::launch;
namespace ptx = slipstick::cuda;

struct Operands {
    const int* from;
    int* to;
    int count;
};

// to[i] = the sum of `from` over the block of i, by way of shared memory.
__global__ void block_sums(Operands operands) {
    int* const shared = dynamic_shared<int>();
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    shared[threadIdx.x] = operands.from[i];
    __syncthreads();
    for (unsigned step = blockDim.x / 2; step > 0; step /= 2) {
        const int other = threadIdx.x < step ? shared[threadIdx.x + step] : 0;
        __syncthreads();
        shared[threadIdx.x] += other;
        __syncthreads();
    }
    operands.to[i] = shared[0];
}

// Reverses each block, without the barrier between writing and reading.
__global__ void race(Operands operands) {
    int* const shared = dynamic_shared<int>();
    const unsigned first = blockIdx.x * blockDim.x;
    shared[threadIdx.x] = operands.from[first + threadIdx.x];
    operands.to[first + threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
}

__global__ void some_threads_end(Operands) {
    if (threadIdx.x % 2 == 1) return;
    __syncthreads();
}

__global__ void two_barriers(Operands) {
    if (threadIdx.x < 3) {
        __syncthreads();
    } else {
        __syncthreads();
    }
}

__global__ void overrun_of_shared_memory(Operands operands) {
    dynamic_shared<int>()[threadIdx.x + 1] = operands.from[threadIdx.x];
}

__global__ void uninitialised_shared_memory(Operands operands) {
    operands.to[threadIdx.x] = dynamic_shared<int>()[threadIdx.x];
}

__global__ void copy(Operands operands) {
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    operands.to[i] = operands.from[i];
}

__global__ void overrun(Operands operands) { operands.to[operands.count] = 1; }

__global__ void misaligned(Operands operands) {
    *reinterpret_cast<int64_t*>(operands.to) = *reinterpret_cast<const int64_t*>(operands.from + 1);
}

// A number that is an address: it was not to be seen when the kernel was launched.
__global__ void host_address(uintptr_t half) { *reinterpret_cast<volatile int*>(2 * half); }

__global__ void endless_recursion(Operands operands) {
    volatile int frame[1024];
    frame[threadIdx.x] = operands.count;
    if (operands.count >= 0)
        endless_recursion({operands.from, operands.to, frame[threadIdx.x] % 2 + 1});
}

// Each lane's sum over its warp.
__global__ void warp_sums(Operands operands) {
    int sum = operands.from[threadIdx.x];
    for (int mask = 1; mask < 32; mask *= 2) sum += ptx::shuffle_xor(sum, mask);
    operands.to[threadIdx.x] = sum;
}

__global__ void some_lanes_meet(Operands operands) {
    if (threadIdx.x % 32 < 7) return;
    operands.to[threadIdx.x] = ptx::shuffle(operands.from[threadIdx.x], 7);
}

// The product of A, 16 x 16, and B, 16 x 8, both bfloat16 and row by row, one after the other in
// `from`: 128 floats.
__global__ void tensor_product(Operands operands) {
    int* const shared = dynamic_shared<int>();
    const unsigned lane = threadIdx.x;
    for (int i = 0; i < 2; ++i)
        ptx::copy_async(shared + 4 * (32 * i + lane), operands.from + 4 * (32 * i + lane),
                        32 * i + lane < 48);
    ptx::commit_copies();
    ptx::wait_for_copies<0>();
    __syncthreads();
    uint32_t a[4];
    uint32_t b[4];
    ptx::load_matrices(a, shared + (lane % 16 * 16 + lane / 16 * 8) / 2);
    ptx::load_matrices_transposed(b, shared + 128 + lane % 16 * 8 / 2);
    float d[4] = {0, 0, 0, 0};
    ptx::multiply_add<slipstick::BFloat16>(d, a, b[0], b[1]);
    auto* const to = reinterpret_cast<float*>(operands.to);
    for (unsigned i = 0; i < 4; ++i) to[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = d[i];
}

// Reads what was copied, and then what was copied and waited for.
__global__ void copies(Operands operands) {
    int* const shared = dynamic_shared<int>() + 4 * threadIdx.x;
    ptx::copy_async(shared, operands.from + 4 * threadIdx.x);
    ptx::commit_copies();
    operands.to[2 * threadIdx.x] = shared[0];
    ptx::wait_for_copies<0>();
    operands.to[2 * threadIdx.x + 1] = shared[0];
}

// No group holds the copy, so no wait counts it.
__global__ void forgotten_copy(Operands operands) {
    ptx::copy_async(dynamic_shared<int>(), operands.from);
    ptx::wait_for_copies<0>();
}

__global__ void misaligned_row(Operands) {
    uint32_t fragment[4];
    ptx::load_matrices(fragment, dynamic_shared<int>() + 1);
}

__global__ void throws(Operands) { throw std::out_of_range("from a kernel"); }

}  // namespace

void run_trial(const std::string& name, int device, intptr_t stream, intptr_t from, intptr_t to,
               int count, dim3 grid, dim3 block, size_t shared_bytes) {
    const Context context{device, reinterpret_cast<void*>(stream), nullptr};
    const auto* const source = reinterpret_cast<const int*>(from);
    const Operands operands{source, reinterpret_cast<int*>(to), count};
    const auto run = [&](const char* kernel_name, auto kernel, const auto& argument) {
        if (name == kernel_name)
            launch(context, "trial", kernel, grid, block, shared_bytes, argument);
    };
    run("block_sums", &block_sums, operands);
    run("race", &race, operands);
    run("some_threads_end", &some_threads_end, operands);
    run("two_barriers", &two_barriers, operands);
    run("overrun_of_shared_memory", &overrun_of_shared_memory, operands);
    run("uninitialised_shared_memory", &uninitialised_shared_memory, operands);
    run("copy", &copy, operands);
    run("overrun", &overrun, operands);
    run("host_address", &host_address, static_cast<uintptr_t>(from) / 2);
    run("endless_recursion", &endless_recursion, operands);
    run("misaligned", &misaligned, operands);
    run("warp_sums", &warp_sums, operands);
    run("some_lanes_meet", &some_lanes_meet, operands);
    run("tensor_product", &tensor_product, operands);
    run("copies", &copies, operands);
    run("forgotten_copy", &forgotten_copy, operands);
    run("misaligned_row", &misaligned_row, operands);
    run("throws", &throws, operands);
    run_hopper_trial(name, context, operands.from, operands.to);
}

}  // namespace cuda_emulator
