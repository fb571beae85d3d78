// How a product of two operands is computed on the CPU: the kernel that the rules choose, and what
// the operands have to become for it.
#pragma once

#include <optional>

#include "mitchell/kernels.hpp"
#include "mitchell/names.hpp"

namespace slipstick::cpu::mitchell {

struct Plan {
    const MatmulPath* path;
    Packing left;
    Packing right;
    MacConstants mac;
    // Of 8-bit operands whose products are looked up: all of them, which `mac` points to.
    std::shared_ptr<const Table> products;
};

// `a` and `b` as scanned, or for integers the limits of what they hold; `depth` is the length of
// the longest sum. Throws, in the name of `function`, std::invalid_argument where `path` cannot
// serve.
Plan make_plan(Dtype dtype, const Method& method, const Magnitudes& a, const Magnitudes& b,
               int64_t depth, Path path, const char* function = "matmul");

// A product of few rows with a right operand that has not been looked at: how the left one is
// packed for sums, and between which magnitudes the right one has to lie, zeros apart, in the bits
// of the type that sums are kept in. Nothing where another kernel has to do it.
struct ThinPlan {
    Packing left;
    bool masked;
    MacConstants mac;
    uint64_t lowest;
    uint64_t highest;
};
std::optional<ThinPlan> make_thin_plan(Dtype dtype, const Method& method, const Magnitudes& a,
                                       int64_t depth);

// Ordinary products of the operands as they are.
Plan make_exact_plan(Dtype dtype);

}  // namespace slipstick::cpu::mitchell
