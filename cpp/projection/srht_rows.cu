#include <algorithm>

#include "core/launch.cuh"
#include "projection/entry.hpp"
#include "projection/srht.cuh"

namespace slipstick::cuda::projection {
namespace {

using slipstick::projection::kSrhtBlock;

constexpr int kThreads = 256;

// A block a group. The exchanges follow one another: one thread makes them, 4096 times two reads
// and writes of shared memory, about 0.1 ms for all groups that a device runs at once.
__global__ void __launch_bounds__(kThreads)
    sampled_rows_kernel(uint64_t seed, uint64_t first_group, uint64_t groups, uint16_t* rows) {
    __shared__ uint16_t order[kSrhtBlock];
    __shared__ uint16_t exchanged[kSrhtBlock];
    for (uint64_t g = blockIdx.x; g < groups; g += gridDim.x) {
        for (int quad = static_cast<int>(threadIdx.x); quad < kSrhtBlock / 4; quad += kThreads) {
            int to[4];
            slipstick::projection::srht_exchanges(seed, static_cast<uint32_t>(first_group + g),
                                                  quad, to);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                order[4 * quad + i] = static_cast<uint16_t>(4 * quad + i);
                exchanged[4 * quad + i] = static_cast<uint16_t>(to[i]);
            }
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            for (int t = 0; t < kSrhtBlock; ++t) {
                const int other = exchanged[t];
                const uint16_t taken = order[other];
                order[other] = order[t];
                order[t] = taken;
            }
        }
        __syncthreads();
        uint16_t* const target = rows + g * kSrhtBlock;
        for (int t = static_cast<int>(threadIdx.x); t < kSrhtBlock; t += kThreads)
            target[t] = order[t];
        __syncthreads();
    }
}

}  // namespace

const uint16_t* sampled_rows(const Context& context, const char* function, uint64_t seed,
                             uint64_t first_group, uint64_t end_group) {
    constexpr uint64_t kMostBlocks = 1 << 16;
    const uint64_t groups = end_group - first_group;
    auto* const rows =
        context.memory->allocate_array<uint16_t>(static_cast<int64_t>(groups) * kSrhtBlock);
    launch(context, function, sampled_rows_kernel,
           dim3(static_cast<unsigned>(std::min(groups, kMostBlocks))), kThreads, 0, seed,
           first_group, groups, rows);
    return rows;
}

}  // namespace slipstick::cuda::projection
