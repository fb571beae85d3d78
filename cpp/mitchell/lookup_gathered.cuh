// Lookups one by one, for results of few rows or columns: a thread gathers the products of a part
// of one sum. Its lanes meet on the banks of shared memory, 9 products a cycle and multiprocessor.
#pragma once

#include "mitchell/lookup_bytes.cuh"

namespace slipstick::cuda::mitchell {

constexpr int kGatherThreads = 1024;

// How a sum's depth is shared out: slices of whole words.
struct GatherWork {
    int64_t outputs;
    int64_t slices;
    int64_t slice_depth;
};

__global__ void __launch_bounds__(kGatherThreads)
    gathered_kernel(LookupProblem p, GatherWork work, const uint16_t* table, bool is_table_shared,
                    uint32_t product_offset) {
    if (is_table_shared) {
        auto* const copy = dynamic_shared<uint16_t>();
        copy_table(table, copy);
        table = copy;
    }
    const int64_t step = int64_t{gridDim.x} * kGatherThreads;
    int64_t task = int64_t{blockIdx.x} * kGatherThreads + threadIdx.x;
    for (; task < work.outputs * work.slices; task += step) {
        const int64_t slice = task / work.outputs;
        const int64_t output = task - slice * work.outputs;
        const int64_t line = output / p.right.lines;
        const int64_t column = output - line * p.right.lines;
        const int64_t batch = line / p.left.lines;
        const int64_t row = line - batch * p.left.lines;
        const Places places = places_of(p.batches, batch);
        const ByteLines left(p.left, places.left, p.depth);
        const ByteLines right(p.right, places.right, p.depth);
        const int64_t begin = slice * work.slice_depth;
        const int64_t end = p.depth - begin < work.slice_depth ? p.depth : begin + work.slice_depth;
        uint32_t sum = 0;
#pragma unroll 4
        for (int64_t k = begin; k < end; k += 4) {
            const uint32_t a = left.word(true, row, k);
            const uint32_t b = right.word(true, column, k);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const uint32_t place =
                    ((a >> (8 * i)) & 0xff) * kTableSide + ((b >> (8 * i)) & 0xff);
                sum += k + i < end ? table[place] - product_offset : 0;
            }
        }
        put_sum(p.out + places.out + target_of(p.left.targets, row) +
                    target_of(p.right.targets, column),
                sum, work.slices == 1);
    }
}

// Zeros, for sums that several blocks add to.
__global__ void __launch_bounds__(kGatherThreads) clear_kernel(LookupProblem p, int64_t outputs) {
    const int64_t step = int64_t{gridDim.x} * kGatherThreads;
    int64_t output = int64_t{blockIdx.x} * kGatherThreads + threadIdx.x;
    for (; output < outputs; output += step) {
        const int64_t line = output / p.right.lines;
        const int64_t batch = line / p.left.lines;
        p.out[places_of(p.batches, batch).out +
              target_of(p.left.targets, line - batch * p.left.lines) +
              target_of(p.right.targets, output - line * p.right.lines)] = 0;
    }
}

}  // namespace slipstick::cuda::mitchell
