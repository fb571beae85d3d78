// Blocks of 4096 features and groups of 4096 components of the SRHT, for the kernels of dense and
// of sparse input. A block of threads has kSrhtThreads.
#pragma once

#include "core/cuda.cuh"
#include "projection/entry.hpp"

namespace slipstick::cuda::projection {

using slipstick::projection::kSrhtBlock;

inline constexpr int kSrhtThreads = 256;
inline constexpr int kSrhtWords = kSrhtBlock / 32;

struct Sketch {
    uint64_t seed;
    uint64_t first_feature;
    int64_t features;
    int64_t components;
    double scale;
    const uint16_t* rows;  // r of every component, 4096 a group
};

// The features of a vector that lie in one block.
struct Part {
    uint64_t block;
    int64_t begin;  // feature of the vector
    int first;      // where in the block
    int count;
};

// That begins with feature `begin`.
__device__ __forceinline__ Part part_at(const Sketch& sketch, int64_t begin) {
    const uint64_t j = sketch.first_feature + static_cast<uint64_t>(begin);
    const auto first = static_cast<int>(j % kSrhtBlock);
    const int64_t left = sketch.features - begin;
    return {j / kSrhtBlock, begin, first,
            left < kSrhtBlock - first ? static_cast<int>(left) : kSrhtBlock - first};
}

// D of the group's rows for the features of a block, D~ of the group's components.
struct Signs {
    uint32_t input[kSrhtWords];
    uint32_t output[kSrhtWords];
};
__device__ __forceinline__ void draw_signs(const Sketch& sketch, uint32_t group, uint64_t block,
                                           Signs& signs) {
    const auto thread = static_cast<int>(threadIdx.x);
    if (thread >= 2 * kSrhtWords / 4) return;
    const bool is_input = thread < kSrhtWords / 4;
    const auto part = static_cast<uint64_t>(thread % (kSrhtWords / 4));
    const PhiloxWords words =
        is_input ? slipstick::projection::srht_input_signs(sketch.seed, group,
                                                           block * kSrhtBlock + 128 * part)
                 : slipstick::projection::srht_output_signs(
                       sketch.seed, uint64_t{group} * kSrhtBlock + 128 * part, block);
    uint32_t* const target = (is_input ? signs.input : signs.output) + 4 * part;
#pragma unroll
    for (int i = 0; i < 4; ++i) target[i] = words.word[i];
}

}  // namespace slipstick::cuda::projection
