// The orthonormal fast Walsh-Hadamard transform along one axis, in natural (Sylvester) order.
#pragma once

#include "core/tensor.hpp"
#include "projection/names.hpp"

namespace slipstick::cpu::projection {

// `out` may be x itself.
void hadamard(const ConstTensor& x, int64_t axis, const Tensor& out);

}  // namespace slipstick::cpu::projection
