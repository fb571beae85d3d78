// From the gradients of the rows' lambda to that of what the scale is made of.
#pragma once

#include <vector>

#include "attention/attention.hpp"
#include "attention/visibility.hpp"

namespace slipstick::cpu::attention {

// `grad_factor`: dlambda, (batch, heads, queries). Added in that order, in float64.
void write_scale_gradient(const Shape& shape, const Visibility& visibility, const Scale& scale,
                          const std::vector<double>& grad_factor, const Tensor& target);

}  // namespace slipstick::cpu::attention
