// Two-dimensional convolutions (cross-correlations) of approximate products.
#pragma once

#include "core/result.hpp"
#include "core/tensor.hpp"
#include "mitchell/names.hpp"

namespace slipstick::cpu::mitchell {

// x (n, c, h, w) or (c, h, w), weight (o, c / groups, kh, kw). Bits are those of the matrix product
// of the weights, (o / groups, c / groups kh kw), with the patches of a group. Integers are summed
// exactly: throws std::invalid_argument where their sums could overflow.
ResultSpec result_of_conv2d(const ConstTensor& x, const ConstTensor& weight,
                            const ConvOptions& options, const Method& method);
void conv2d(const ConstTensor& x, const ConstTensor& weight, const ConvOptions& options,
            const Method& method, const Tensor& out);

}  // namespace slipstick::cpu::mitchell
