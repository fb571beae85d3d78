// What a level offers for error reports.
#pragma once

#include "core/isa.hpp"
#include "mitchell/methods.hpp"

namespace slipstick::cpu::mitchell {

// Relative errors fall into bins of 2^-16 from -1 to 3; what lies beyond counts in the last one.
inline constexpr int64_t kErrorBinsPerUnit = int64_t{1} << 16;
inline constexpr int64_t kErrorBins = 4 * kErrorBinsPerUnit;

// Sums in fixed lanes: pair i of a row goes to lane i mod 8. The last two are integers; they stay
// below 2^53 for rows of 2^16 pairs.
inline constexpr int kErrorLanes = 8;
struct ErrorSums {
    double relative[kErrorLanes], magnitude[kErrorLanes], square[kErrorLanes];
    double low[kErrorLanes], high[kErrorLanes], furthest[kErrorLanes];
    double distance[kErrorLanes], wrong[kErrorLanes];  // not weighted
};

struct ErrorKernels {
    using Parameters = slipstick::mitchell::Parameters;
    // What `products` wants of operands, neither of them zero.
    using PrepareFn = void (*)(const Parameters& parameters, const uint32_t* values, int64_t count,
                               uint64_t* keys, double* scales);
    // The products of one operand with `count` others, rounded up to a multiple of kErrorLanes, at
    // most `limit` each.
    using ProductsFn = void (*)(const Parameters& parameters, double limit, uint64_t key,
                                double scale, const uint64_t* keys, const double* scales,
                                int64_t count, double* products);
    // Adds pairs to the sums, and says which bin of the histogram each belongs to.
    using AccumulateFn = void (*)(const double* products, double a, const double* b,
                                  const double* weights, int64_t count, ErrorSums& sums,
                                  int32_t* bins);
    PrepareFn prepare[slipstick::mitchell::kMethodCount];
    ProductsFn products[slipstick::mitchell::kMethodCount];
    AccumulateFn accumulate;
};

}  // namespace slipstick::cpu::mitchell

namespace slipstick::cpu {
SLIPSTICK_LEVEL_TABLE(mitchell::ErrorKernels, mitchell_error_kernels)
}  // namespace slipstick::cpu
