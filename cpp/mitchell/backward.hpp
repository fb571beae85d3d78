// Gradients of a matrix product of approximate products.
#pragma once

#include "core/result.hpp"
#include "core/tensor.hpp"
#include "mitchell/names.hpp"

namespace slipstick::cpu::mitchell {

// Checks the operands; the gradients have their shapes and dtype.
void check_matmul_backward(const ConstTensor& grad, const ConstTensor& a, const ConstTensor& b,
                           const Method& method);

// Sums over axes along which an operand was stretched continue the sums of the product, in order.
// `derivative` is for kExact alone.
void matmul_backward(const ConstTensor& grad, const ConstTensor& a, const ConstTensor& b,
                     const Method& method, Gradient gradient, const Derivative& derivative,
                     const Tensor& grad_a, const Tensor& grad_b);

}  // namespace slipstick::cpu::mitchell
