// What a method's integer products get wrong: statistics over rows of pairs, for error reports.
#pragma once

#include <cstdint>
#include <vector>

#include "mitchell/error_kernels.hpp"
#include "mitchell/names.hpp"

namespace slipstick::cpu::mitchell {

// The operands' magnitudes, ascending and without zero, below 2^bits (up to 2^(bits-1) if signed),
// and how often each occurs; no weights means once each. `symmetric`: both lists are the same, and
// pairs are taken once for both orders.
struct ErrorOperands {
    const uint32_t* a;
    const uint32_t* b;
    const int64_t* weight_a;
    const int64_t* weight_b;
    int64_t count_a;
    int64_t count_b;
    bool symmetric;
};

// Of one row: the pairs of one a with every b, weighted by b's weights (not by a's). A row of a
// symmetric report has the pairs from the diagonal on, those off it counted twice.
struct ErrorRow {
    double relative;  // sums of the relative error, its magnitude and its square
    double magnitude;
    double square;
    double low;  // extremes of the relative error
    double high;
    double furthest;        // the largest |P - T|
    uint64_t distance_low;  // the sum of |P - T|, 128 bits
    uint64_t distance_high;
    uint64_t wrong;  // how many pairs have P != T
};

// Pairs that attain the largest |relative error|, by exact comparison.
struct WorstPairs {
    uint64_t distance = 0;  // |P - T| and T of each of them
    uint64_t exact = 1;
    int64_t count = 0;
    std::vector<uint32_t> a;  // the first ones
    std::vector<uint32_t> b;
};

// Whether an n-bit multiplier's products are those of the same operands in either order.
bool is_commutative(const Method& method);

// The statistics of rows begin ... end, and their histogram (kErrorBins, weighted by both
// operands), which is added to. Operands of up to 16 bits. Throws std::invalid_argument or
// TypeError, in the name of error_report, where the method does not take integers of `bits` bits.
void error_rows(const Method& method, int bits, bool is_signed, const ErrorOperands& operands,
                int64_t begin, int64_t end, ErrorRow* rows, int64_t* histogram);

// The worst pairs among the rows whose largest magnitude (of ErrorRow::low and high) is `largest`;
// `multiplicity` (by operand, or null for 1) says how many operands a magnitude stands for.
WorstPairs worst_pairs(const Method& method, int bits, bool is_signed,
                       const ErrorOperands& operands, const int64_t* rows, int64_t count,
                       double largest, const uint8_t* multiplicity_a, const uint8_t* multiplicity_b,
                       int64_t limit);

// Magnitudes of products, element by element; operands of up to 32 bits.
void products_of_bits(const Method& method, int bits, bool is_signed, const uint32_t* a,
                      const uint32_t* b, int64_t count, uint64_t* products);

}  // namespace slipstick::cpu::mitchell
