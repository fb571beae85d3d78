// Two-dimensional convolutions (cross-correlations) of approximate products.
#pragma once

#include <array>

#include "core/result.hpp"
#include "core/tensor.hpp"
#include "mitchell/method.hpp"

namespace slipstick::cpu::mitchell {

// How the sums are formed; the bits are the same. A test asks for each in turn.
enum class ConvForm { kAuto, kMatrices, kLines };

struct ConvOptions {  // pairs: along the rows, along the columns
    std::array<int64_t, 2> stride;
    std::array<int64_t, 2> padding;
    bool same_padding;  // as much as gives the result the input's size
    std::array<int64_t, 2> dilation;
    int64_t groups;
    ConvForm form = ConvForm::kAuto;
    Path path = Path::kAuto;
};

// x (n, c, h, w) or (c, h, w), weight (o, c / groups, kh, kw). Bits are those of the matrix product
// of the weights, (o / groups, c / groups kh kw), with the patches of a group. Integers are summed
// exactly: throws std::invalid_argument where their sums could overflow.
ResultSpec result_of_conv2d(const ConstTensor& x, const ConstTensor& weight,
                            const ConvOptions& options, const Method& method);
void conv2d(const ConstTensor& x, const ConstTensor& weight, const ConvOptions& options,
            const Method& method, const Tensor& out);

}  // namespace slipstick::cpu::mitchell
