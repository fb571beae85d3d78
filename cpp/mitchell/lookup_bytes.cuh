// What the lookup kernels share: 8-bit operands brought four at a time, the table's place, and
// where sums go.
#pragma once

#include "core/launch.cuh"
#include "mitchell/lookup.cuh"

namespace slipstick::cuda::mitchell {

constexpr int kTableSide = 256;
constexpr int kTableBytes = 2 * kTableSide * kTableSide;  // half a multiprocessor's memory

// An operand of one product of a batch.
struct ByteLines {
    const Operand& operand;
    const uint8_t* data;
    int64_t lines;
    int64_t depth;

    __device__ __forceinline__ ByteLines(const LookupSide& side, int64_t batch_offset,
                                         int64_t depth_)
        : operand(side.operand),
          data(static_cast<const uint8_t*>(side.operand.data) + batch_offset),
          lines(side.lines),
          depth(depth_) {}

    // Whether neighbours in memory are neighbours along k.
    __device__ __forceinline__ bool runs_along_depth() const {
        return operand.access == Access::kPackedDepth || operand.access == Access::kDepth;
    }

    // Four elements from a multiple of 4 on, the first in the lowest byte, zeros where the operand
    // has none: those of one line from k on, or element k of as many lines.
    __device__ __forceinline__ uint32_t word(bool along_depth, int64_t line, int64_t k) const {
        if (line >= lines || k >= depth) return 0;
        if (operand.taps != nullptr) return gathered(along_depth, line, k);
        const uint8_t* source = data + line * operand.line + k * operand.depth;
        if (operand.access == (along_depth ? Access::kPackedDepth : Access::kPackedLines))
            return *reinterpret_cast<const uint32_t*>(source);
        const int64_t step = along_depth ? operand.depth : operand.line;
        const int64_t count = along_depth ? depth - k : lines - line;
        uint32_t word = 0;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if (i < count) word |= uint32_t{*source} << (8 * i);
            source += step;
        }
        return word;
    }

private:
    __device__ __forceinline__ uint32_t gathered(bool along_depth, int64_t line, int64_t k) const {
        const bool is_patch = operand.width != 0;
        int64_t row = is_patch ? line / operand.width : 0;
        int64_t column = line - row * operand.width;
        uint32_t word = 0;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if (line < lines && k < depth)
                word |= uint32_t{gathered(is_patch, row, column, operand.taps[k])} << (8 * i);
            if (along_depth) {
                ++k;
                continue;
            }
            ++line;
            if (++column == operand.width) {
                column = 0;
                ++row;
            }
        }
        return word;
    }
    __device__ __forceinline__ uint8_t gathered(bool is_patch, int64_t row, int64_t column,
                                                const Tap& tap) const {
        if (!is_patch) return data[column * operand.line + tap.offset];
        const int64_t top = row * operand.stride[0] + operand.origin[0];
        const int64_t left = column * operand.stride[1] + operand.origin[1];
        const auto y = static_cast<uint64_t>(top + tap.y);
        const auto x = static_cast<uint64_t>(left + tap.x);
        const bool inside = y < static_cast<uint64_t>(operand.size[0]) &&
                            x < static_cast<uint64_t>(operand.size[1]);
        return inside ? data[top * operand.step[0] + left * operand.step[1] + tap.offset]
                      : uint8_t{0};
    }
};

__device__ __forceinline__ int64_t target_of(const LineTargets& targets, int64_t line) {
    if (targets.width == 0) return line * targets.step;
    const int64_t row = line / targets.width;
    return row * targets.row + (line - row * targets.width) * targets.step;
}

// A part of a sum is added to what others have added; a whole one stored.
__device__ __forceinline__ void put_sum(uint32_t* target, uint32_t sum, bool is_whole) {
    if (is_whole) {
        *target = sum;
    } else {
        atomicAdd(target, sum);
    }
}

// The block's threads copy the table to `shared`.
__device__ __forceinline__ void copy_table(const uint16_t* table, uint16_t* shared) {
    using Entries = Pack<uint32_t, 4>;
    const auto* const source = reinterpret_cast<const Entries*>(table);
    auto* const target = reinterpret_cast<Entries*>(shared);
    constexpr int count = kTableBytes / static_cast<int>(sizeof(Entries));
    for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x))
        target[i] = source[i];
    __syncthreads();
}

}  // namespace slipstick::cuda::mitchell
