// The sizes of a convolution, found from its operands and checked.
#pragma once

#include <array>
#include <cstdint>

#include "mitchell/results.hpp"

namespace slipstick::mitchell {

struct Geometry {
    int64_t images, groups;
    int64_t channels, outputs;  // of a group
    int64_t height, width;
    int64_t kernel_height, kernel_width;
    int64_t out_height, out_width;
    std::array<int64_t, 2> stride, padding, dilation;  // padding: above and to the left

    int64_t depth() const { return channels * kernel_height * kernel_width; }
    double products() const {
        return static_cast<double>(outputs) * static_cast<double>(depth()) *
               static_cast<double>(out_height) * static_cast<double>(out_width);
    }
    bool is_pointwise() const {
        return kernel_height == 1 && kernel_width == 1 && stride[0] == 1 && stride[1] == 1 &&
               padding[0] == 0 && padding[1] == 0 && out_height == height && out_width == width;
    }
};

// Refuses, in the name of conv2d, what does not fit together.
Geometry geometry_of(const ConstTensor& x, const ConstTensor& weight, const ConvOptions& options);

}  // namespace slipstick::mitchell
