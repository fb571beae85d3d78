// The Mitchell family on the CPU. Every function comes in two parts: result_of_* (most of them in
// results.hpp) checks the operands and says what the result looks like; the function itself
// computes into `out` (checked by check_out).
#pragma once

#include "core/result.hpp"
#include "core/tensor.hpp"
#include "mitchell/names.hpp"

namespace slipstick::cpu::mitchell {

void multiply(const ConstTensor& a, const ConstTensor& b, const Method& method, const Tensor& out);

// Quotients take Mitchell's own method.
void divide(const ConstTensor& a, const ConstTensor& b, const Method& method, const Tensor& out);
void reciprocal(const ConstTensor& a, const Method& method, const Tensor& out);

void sqrt(const ConstTensor& a, const Tensor& out);
void log2(const ConstTensor& a, const Tensor& out);
void exp2(const ConstTensor& a, const Tensor& out);

void power(const ConstTensor& a, const ConstTensor& p, const Tensor& out);
// A number is an exponent as it stands, whatever the dtype of `a`.
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
