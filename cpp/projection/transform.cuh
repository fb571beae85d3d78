// The fast Walsh-Hadamard transform in a block's shared memory: the butterflies of the CPU's graph
// (projection/transform_kernels.hpp), so its bits. A pass takes up to four stages: each thread
// holds up to sixteen numbers, which differ in the bits of those stages.
//
// Cost of n numbers of 4 bytes, in clocks of a multiprocessor: shared memory moves 128 bytes a
// clock, so that loading, ceil(log2(n) / 4) passes and storing take 2 (1 + passes) n / 32; an
// H100's memory brings and takes 14.5 bytes a clock and multiprocessor, 8 n / 14.5. For n = 2^12
// that is 1024 to 2260 and for 2^15 10240 to 18080, so memory is the limit as long as two blocks
// share a multiprocessor.
#pragma once

#include "core/cuda.cuh"
#include "core/philox.hpp"
#include "projection/vectors.cuh"

namespace slipstick::cuda::projection {

// One unused number after every 16 keeps both neighbours and sixteenth neighbours in other banks.
__host__ __device__ constexpr int padded(int index) { return index + index / 16; }

inline constexpr int kPassStages = 4;
inline constexpr int kMostStages = 64;
// Before the stages 0, 4, 8, ... all numbers are multiplied by one of these; null: by nothing.
struct StageScales {
    double factor[kMostStages / kPassStages];
    bool any;
};

// Vectors of shared memory: number i of vector v is padded(v * stride + offset + i), and holds
// `lines` lines of 2^log2n numbers.
struct Lines {
    int vectors;
    int stride;
    int offset;
    int lines;
    int log2n;
};

template <int stages, class Acc>
__device__ __forceinline__ void butterflies(Acc (&value)[1 << stages]) {
#pragma unroll
    for (int stage = 0; stage < stages; ++stage) {
#pragma unroll
        for (int i = 0; i < 1 << stages; ++i) {
            if ((i >> stage & 1) != 0) continue;
            const Acc a = value[i];
            const Acc b = value[i | 1 << stage];
            value[i] = a + b;
            value[i | 1 << stage] = a - b;
        }
    }
}

// The stages first, first + 1, ... of lines; `first` numbers their distance within the lines. A
// barrier has to come before and after.
template <int stages, class Acc>
__device__ __forceinline__ void pass(Acc* shared, const Lines& lines, int first, Acc scale,
                                     bool scaled) {
    const int groups = lines.lines << (lines.log2n - stages);  // of a vector
    const int all = lines.vectors * groups;
    for (int at = static_cast<int>(threadIdx.x); at < all; at += static_cast<int>(blockDim.x)) {
        const int vector = lines.vectors == 1 ? 0 : at / groups;
        const int group = at - vector * groups;
        const int start = vector * lines.stride + lines.offset +
                          ((group >> first) << (first + stages)) + (group & ((1 << first) - 1));
        Acc value[1 << stages];
#pragma unroll
        for (int i = 0; i < 1 << stages; ++i) {
            value[i] = shared[padded(start + (i << first))];
            if (scaled) value[i] *= scale;
        }
        butterflies<stages>(value);
#pragma unroll
        for (int i = 0; i < 1 << stages; ++i) shared[padded(start + (i << first))] = value[i];
    }
}

// The stages of lines from the one of distance 2^begin on; that one is number `number` of the
// whole transform, a multiple of 4. Without stages the numbers are still scaled. Ends with a
// barrier, and needs one before.
template <class Acc>
__device__ __forceinline__ void transform_from(Acc* shared, const Lines& lines, int begin,
                                               int number, const StageScales& scales) {
    int done = begin;
    do {
        const int left = lines.log2n - done;
        const auto scale = static_cast<Acc>(
            scales.any ? scales.factor[(number + done - begin) / kPassStages] : 1.0);
        if (left >= 4) {
            pass<4>(shared, lines, done, scale, scales.any);
        } else if (left == 3) {
            pass<3>(shared, lines, done, scale, scales.any);
        } else if (left == 2) {
            pass<2>(shared, lines, done, scale, scales.any);
        } else if (left == 1) {
            pass<1>(shared, lines, done, scale, scales.any);
        } else if (scales.any) {
            pass<0>(shared, lines, done, scale, true);
        }
        __syncthreads();
        done += kPassStages;
    } while (done < lines.log2n);
}
template <class Acc>
__device__ __forceinline__ void transform(Acc* shared, const Lines& lines,
                                          const StageScales& scales) {
    transform_from(shared, lines, 0, 0, scales);
}

// Which numbers of `features` are to be turned over, a bit each: words 4 b ... 4 b + 3 are those of
// the counter (first_word, low, high half of first + b, tag).
__device__ __forceinline__ void sign_words(uint32_t* words, int features, uint64_t seed,
                                           uint32_t first_word, uint64_t first, uint32_t tag) {
    for (int b = static_cast<int>(threadIdx.x); 128 * b < features;
         b += static_cast<int>(blockDim.x)) {
        const uint64_t number = first + static_cast<uint64_t>(b);
        const PhiloxWords drawn = philox4x32(
            {{first_word, static_cast<uint32_t>(number), static_cast<uint32_t>(number >> 32), tag}},
            seed);
#pragma unroll
        for (int i = 0; i < 4; ++i) words[4 * b + i] = drawn.word[i];
    }
}

template <class Acc>
__device__ __forceinline__ Acc turned(Acc value, const uint32_t* words, int feature) {
    return (words[feature / 32] >> (feature % 32) & 1u) != 0 ? -value : value;
}

}  // namespace slipstick::cuda::projection
