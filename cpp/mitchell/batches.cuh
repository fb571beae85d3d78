// Where each of a batch of matrix products finds its operands and its result.
#pragma once

#include "core/cuda.cuh"
#include "core/tensor.hpp"

namespace slipstick::cuda::mitchell {

// The batch axes of a result in C order, neighbours merged where all steps allow it. Steps count
// elements, and are 0 where an operand is broadcast.
struct Batches {
    int64_t count = 1;
    int rank = 0;
    int64_t size[kMaxRank];
    int64_t left[kMaxRank];
    int64_t right[kMaxRank];
    int64_t out[kMaxRank];

    // Adds an axis inside the ones there are.
    void append(int64_t length, int64_t left_step, int64_t right_step, int64_t out_step) {
        if (length == 1) return;
        count *= length;
        const int last = rank - 1;
        if (rank > 0 && left[last] == left_step * length && right[last] == right_step * length &&
            out[last] == out_step * length) {
            size[last] *= length;
        } else {
            size[rank++] = length;
        }
        left[rank - 1] = left_step;
        right[rank - 1] = right_step;
        out[rank - 1] = out_step;
    }
};

struct Places {
    int64_t left, right, out;
};

__device__ __forceinline__ Places places_of(const Batches& batches, int64_t index) {
    Places places{0, 0, 0};
#pragma unroll 1
    for (int axis = batches.rank - 1; axis >= 0; --axis) {
        const int64_t rest = index / batches.size[axis];
        const int64_t position = index - rest * batches.size[axis];
        places.left += position * batches.left[axis];
        places.right += position * batches.right[axis];
        places.out += position * batches.out[axis];
        index = rest;
    }
    return places;
}

}  // namespace slipstick::cuda::mitchell
