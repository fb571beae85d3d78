// The softmax of rows whose scores come a tile at a time, in the layout of multiply_add's results:
// a lane holds, of 16 rows, elements of row lane / 4 and of row lane / 4 + 8, and the four lanes of
// a row share it.
//
// Exponents are those of 2: with c = |lambda| log2 e a weight is 2^(c (r - m)). The sign of lambda
// is in the query. c r - c m would be one instruction instead of two, but off by half a step of
// c m: the largest weight would not be 1, and with scores near 2^31 it would overflow.
#pragma once

#include <cmath>
#include <limits>

#include "core/ptx.cuh"

namespace slipstick::cuda::attention {

inline constexpr float kLog2E = 1.44269504f;
inline constexpr float kLn2 = 0.693147181f;
inline constexpr float kHidden = -std::numeric_limits<float>::infinity();
// Below this 2^u is 0; u is kept above it where it is multiplied with 2^u.
inline constexpr float kLowestExponent = -126.0f;

// c of a row. A hidden key has the score -inf, which has to stay one when lambda is 0: the least
// number takes its place. Its product with any float32 is below 2^-21, of which 2^u is 1. The
// greatest takes the place of a finite lambda's c beyond it, since infinity times r - m = 0 is NaN.
__device__ __forceinline__ float exponent_scale(float factor) {
    constexpr float greatest = std::numeric_limits<float>::max();
    const float size = fabsf(factor);
    if (size == 0) return 0x1p-149f;
    return size > greatest / kLog2E && size <= greatest ? greatest : size * kLog2E;
}

template <class T>
__device__ __forceinline__ T sum_of_row(T share) {
    share += shuffle_xor(share, 1);
    return share + shuffle_xor(share, 2);
}

// The lane's two rows. Sums are the lane's shares.
struct OnlineRows {
    float scale[2];    // c
    float maximum[2];  // m, the largest score; -inf before the first
    float sum[2];      // l = sum of 2^u, u = c (r - m)
    float moment[2];   // sum of 2^u u
};

__device__ __forceinline__ OnlineRows no_scores(float upper_scale, float lower_scale) {
    return {{upper_scale, lower_scale}, {kHidden, kHidden}, {0.0f, 0.0f}, {0.0f, 0.0f}};
}

// Takes kBlocks results of 8 keys each into the rows, hidden ones being -inf, and leaves the
// weights 2^u in their place. What was added up with earlier weights is to be multiplied by alpha.
template <bool has_moment, int kBlocks>
__device__ __forceinline__ void take_scores(OnlineRows& rows, float (&scores)[kBlocks][4],
                                            float (&alpha)[2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        float top = scores[0][2 * half];
#pragma unroll
        for (int b = 0; b < kBlocks; ++b) {
            if (b > 0) top = fmaxf(top, scores[b][2 * half]);
            top = fmaxf(top, scores[b][2 * half + 1]);
        }
        top = fmaxf(top, shuffle_xor(top, 1));
        top = fmaxf(top, shuffle_xor(top, 2));
        const float before = rows.maximum[half];
        top = fmaxf(top, before);

        const float scale = rows.scale[half];
        const float reference = top == kHidden ? 0.0f : top;
        const float moved = scale * (before - reference);
        alpha[half] = exp2_fast(moved);
        rows.maximum[half] = top;
        if constexpr (has_moment) {
            const float delta = fmaxf(moved, kLowestExponent);
            rows.moment[half] = alpha[half] * fmaf(delta, rows.sum[half], rows.moment[half]);
        }

        float sum = 0;
        float moment = 0;
#pragma unroll
        for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
            for (int e = 2 * half; e < 2 * half + 2; ++e) {
                const float exponent = scale * (scores[b][e] - reference);
                const float weight = exp2_fast(exponent);
                sum += weight;
                if constexpr (has_moment)
                    moment = fmaf(weight, fmaxf(exponent, kLowestExponent), moment);
                scores[b][e] = weight;
            }
        }
        rows.sum[half] = fmaf(rows.sum[half], alpha[half], sum);
        if constexpr (has_moment) rows.moment[half] += moment;
    }
}

}  // namespace slipstick::cuda::attention
