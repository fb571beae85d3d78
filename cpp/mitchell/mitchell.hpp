// The Mitchell family on the CPU. Every function comes in two parts: result_of_* checks the
// operands and says what the result looks like; the function itself computes into `out` (checked by
// check_out).
#pragma once

#include "core/result.hpp"
#include "core/tensor.hpp"
#include "mitchell/method.hpp"

namespace slipstick::cpu::mitchell {

ResultSpec result_of_multiply(const ConstTensor& a, const ConstTensor& b);
void multiply(const ConstTensor& a, const ConstTensor& b, const Method& method, const Tensor& out);

ResultSpec result_of_divide(const ConstTensor& a, const ConstTensor& b);
void divide(const ConstTensor& a, const ConstTensor& b, const Method& method, const Tensor& out);

// (..., m, k) @ (..., k, n) with NumPy's rules for one-dimensional operands and leading axes.
// Integers are summed exactly: throws std::invalid_argument where their sums could overflow.
ResultSpec result_of_matmul(const ConstTensor& a, const ConstTensor& b, const Method& method);
// `multiplier` is applied to every sum once, before rounding; floating-point operands only.
void matmul(const ConstTensor& a, const ConstTensor& b, const Method& method, double multiplier,
            const Tensor& out);

}  // namespace slipstick::cpu::mitchell
