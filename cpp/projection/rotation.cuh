// Rotations of vectors in shared memory, hadamard among them, and of longer ones in the device's.
#pragma once

#include "projection/rotation_shape.hpp"
#include "projection/transform.cuh"

namespace slipstick::cuda::projection {

// A round turns x into H D x; see projection/rotation_shape.hpp for H. Without signs a round is H
// alone.
struct Rotation {
    int64_t size;
    int log2n;
    int mixed;
    int64_t overlap;
    bool has_signs;
    bool inverse;
    int64_t rounds;
    uint64_t seed;
    StageScales scales;
    uint32_t mixing[28];  // bit k of row i: entry (i, k) is -1
};

// The factors that make the transform of 2^log2n numbers orthonormal, with the square root of
// 1 / mixed in the first, as rounded on the CPU (cpu::projection::Transform).
StageScales orthonormal_scales(int log2n, int mixed, bool in_float);

// All vectors, each read and written once where a block's shared memory holds one.
void rotate_vectors(const Context& context, const char* function, const Vectors& vectors,
                    const Rotation& rotation);
// What no shared memory holds: passes over `buffer`, (vectors, numbers) of the accumulator's type,
// which is the result itself where that is possible.
void rotate_long_vectors(const Context& context, const char* function, const Vectors& vectors,
                         const Rotation& rotation);

// M down the columns of `order` lines of 2^log2n numbers. at(line, column) is a number's place.
template <int order, class Acc, class At>
__device__ __forceinline__ void mix_column(const uint32_t* mixing, At at) {
    Acc value[order];
#pragma unroll
    for (int k = 0; k < order; ++k) value[k] = at(k);
    for (int i = 0; i < order; ++i) {
        Acc sum = 0;
#pragma unroll
        for (int k = 0; k < order; ++k) sum += (mixing[i] >> k & 1u) != 0 ? -value[k] : value[k];
        at(i) = sum;
    }
}

template <class Acc, class At>
__device__ __forceinline__ void mix_column(const Rotation& rotation, At at) {
    switch (rotation.mixed) {
        case 12:
            return mix_column<12, Acc>(rotation.mixing, at);
        case 20:
            return mix_column<20, Acc>(rotation.mixing, at);
        default:
            return mix_column<28, Acc>(rotation.mixing, at);
    }
}

}  // namespace slipstick::cuda::projection
