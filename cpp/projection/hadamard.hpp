// The orthonormal fast Walsh-Hadamard transform along one axis, in natural (Sylvester) order.
#pragma once

#include "core/result.hpp"
#include "core/tensor.hpp"

namespace slipstick::cpu::projection {

// As x, float64 for integers and bools. Throws where x has no such axis or its length is not a
// power of two.
ResultSpec result_of_hadamard(const ConstTensor& x, int64_t axis);
// `out` may be x itself.
void hadamard(const ConstTensor& x, int64_t axis, const Tensor& out);

}  // namespace slipstick::cpu::projection
