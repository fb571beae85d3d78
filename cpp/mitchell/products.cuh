// Elementwise products by dtype: what multiply() chooses from.
#pragma once

#include "mitchell/cuda.hpp"

namespace slipstick::cuda::mitchell {

void multiply_floats(const Context& context, slipstick::mitchell::Kind kind,
                     const Parameters& parameters, const ConstTensor& a, const ConstTensor& b,
                     const Tensor& out);
void multiply_integers(const Context& context, slipstick::mitchell::Kind kind,
                       const Parameters& parameters, const ConstTensor& a, const ConstTensor& b,
                       const Tensor& out);

}  // namespace slipstick::cuda::mitchell
