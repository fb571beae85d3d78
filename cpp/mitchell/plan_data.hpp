// What is known of a product's operands, and what their kernel is told: plain data, on any device.
#pragma once

#include <cstdint>

#include "mitchell/parameters.hpp"

namespace slipstick::mitchell {

// The magnitudes among the elements of an operand: bits of a floating-point dtype, or integers.
struct Magnitudes {
    uint64_t lowest = ~uint64_t{0};  // of what is not zero or subnormal
    uint64_t highest = 0;            // infinities and NaNs included
    bool zeros = false;              // zeros or subnormals
};

// A change of the operands' magnitude bits that a method makes before it multiplies, in the lanes
// that a product is formed in:  ((bits + half + (odd bit)) & keep) | set.
struct OperandChange {
    uint64_t half = 0;  // of the last place kept, less one unit: rounds to nearest
    uint64_t odd = 0;   // 1 where ties go to even; shifted down by odd_shift
    int odd_shift = 0;
    uint64_t keep = ~uint64_t{0};
    uint64_t set = 0;
    uint64_t set_from = 0;  // magnitudes from which `set` applies
};

// How one operand of a matrix product becomes lanes.
struct Packing {
    OperandChange change;
    uint64_t bias = 0;      // added to the bits, sign included, in wrapping arithmetic
    uint64_t zero = 0;      // what a zero becomes
    uint64_t smallest = 0;  // magnitudes below it are zeros
    int terms = 1;          // elements of the product that one element becomes
    int leading_ones = 0;   // ILM: how many of them the second term lacks
    double formula = 0;     // LMulFormula: 1 - c
};

// The mac argument of every kernel.
struct MacConstants {
    Parameters parameters;
    uint64_t low_bits = 0;      // of every product, set
    double smallest_chain = 0;  // chains below it are 0
    double unscale = 1;         // of a chain, a power of two
};

}  // namespace slipstick::mitchell
