// Sums of products of 8-bit operands, each looked up among the 65,536 that a method has: for
// methods whose sums are neither additions of patterns nor exact products (Kernel::kLookup).
#pragma once

#include <cstdint>

#include "mitchell/batches.cuh"
#include "mitchell/cuda.hpp"
#include "mitchell/tile_operands.cuh"

namespace slipstick::cuda::mitchell {

// Where the sums of an operand's lines go: those of line l to l * step, or, where `width` is not 0,
// to (l / width) * row + (l % width) * step. Steps in elements.
struct LineTargets {
    int64_t step;
    int64_t width;
    int64_t row;
};

// An operand's lines, and where their sums go.
struct LookupSide {
    Operand operand;
    int64_t lines;
    LineTargets targets;
};

// out[i, j] = sum over k of P(left[i, k], right[k, j]).
struct LookupProblem {
    LookupSide left;
    LookupSide right;
    int64_t depth;
    uint32_t* out;
    Batches batches;
};

// Sums modulo 2^32, of int16 products where `dtype` is int8 and of uint16 products for uint8.
void multiply_by_lookup(const Context& context, const char* function, Dtype dtype,
                        slipstick::mitchell::Kind kind, const Parameters& parameters,
                        const LookupProblem& problem);

}  // namespace slipstick::cuda::mitchell
