// The Mitchell family on the CPU. Every function comes in two parts: result_of_* checks the
// operands and says what the result looks like; the function itself computes into `out` (checked by
// check_out).
#pragma once

#include "core/result.hpp"
#include "core/tensor.hpp"
#include "mitchell/method.hpp"

namespace slipstick::cpu::mitchell {

ResultSpec result_of_multiply(const ConstTensor& a, const ConstTensor& b, const Method& method);
void multiply(const ConstTensor& a, const ConstTensor& b, const Method& method, const Tensor& out);

// multiply(a, a), under its own name in errors.
ResultSpec result_of_square(const ConstTensor& a, const Method& method);

// Quotients take Mitchell's own method.
ResultSpec result_of_divide(const ConstTensor& a, const ConstTensor& b);
void divide(const ConstTensor& a, const ConstTensor& b, const Method& method, const Tensor& out);

ResultSpec result_of_reciprocal(const ConstTensor& a);
void reciprocal(const ConstTensor& a, const Method& method, const Tensor& out);

ResultSpec result_of_sqrt(const ConstTensor& a);
void sqrt(const ConstTensor& a, const Tensor& out);
ResultSpec result_of_log2(const ConstTensor& a);
void log2(const ConstTensor& a, const Tensor& out);
ResultSpec result_of_exp2(const ConstTensor& a);
void exp2(const ConstTensor& a, const Tensor& out);

ResultSpec result_of_power(const ConstTensor& a, const ConstTensor& p);
void power(const ConstTensor& a, const ConstTensor& p, const Tensor& out);
// A number is an exponent as it stands, whatever the dtype of `a`.
ResultSpec result_of_power(const ConstTensor& a, double p);
void power(const ConstTensor& a, double p, const Tensor& out);

// (..., m, k) @ (..., k, n) with NumPy's rules for one-dimensional operands and leading axes.
// Integers are summed exactly: throws std::invalid_argument where their sums could overflow.
// Refuses in the name of `function`.
ResultSpec result_of_matmul(const ConstTensor& a, const ConstTensor& b, const Method& method,
                            const char* function = "matmul");
// `multiplier` is applied to every sum once, before rounding; floating-point operands only.
void matmul(const ConstTensor& a, const ConstTensor& b, const Method& method, double multiplier,
            const Tensor& out, Path path = Path::kAuto);

}  // namespace slipstick::cpu::mitchell
