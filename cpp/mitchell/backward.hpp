// Gradients of a matrix product of approximate products.
#pragma once

#include "core/result.hpp"
#include "core/tensor.hpp"
#include "mitchell/method.hpp"

namespace slipstick::cpu::mitchell {

// The derivative of a product with respect to one operand, as a function of both:
//   kCarry      sgn(b) 2^(E_b + carries of x + y + offset)
//   kLeading    sgn(b) 2^E_b
//   kRemainder  b less what remains of it without its `terms` leading ones
// A zero or subnormal b gives 0, a zero or subnormal a has x = 0, and an infinite or NaN a or b
// gives NaN.
struct Derivative {
    enum class Kind { kCarry, kLeading, kRemainder } kind = Kind::kCarry;
    double offset = 0;
    int64_t terms = 0;
};

enum class Gradient { kMimic, kExact, kStraightThrough };

// Checks the operands; the gradients have their shapes and dtype.
void check_matmul_backward(const ConstTensor& grad, const ConstTensor& a, const ConstTensor& b,
                           const Method& method);

// Sums over axes along which an operand was stretched continue the sums of the product, in order.
// `derivative` is for kExact alone.
void matmul_backward(const ConstTensor& grad, const ConstTensor& a, const ConstTensor& b,
                     const Method& method, Gradient gradient, const Derivative& derivative,
                     const Tensor& grad_a, const Tensor& grad_b);

}  // namespace slipstick::cpu::mitchell
