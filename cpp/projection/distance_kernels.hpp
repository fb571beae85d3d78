// What a level offers for exact distances of float32 vectors.
#pragma once

#include <cstdint>

#include "core/isa.hpp"

namespace slipstick::cpu::projection {

struct DistanceKernels {
    // Sum of a[i] * b[i], and of b[i] * b[i].
    void (*products)(const float* a, const float* b, int64_t length, double* sums);
    // Sum of (a[i] - b[i])^2.
    double (*squares)(const float* a, const float* b, int64_t length);
};

}  // namespace slipstick::cpu::projection

namespace slipstick::cpu {
SLIPSTICK_LEVEL_TABLE(projection::DistanceKernels, distance_kernels)
}  // namespace slipstick::cpu
