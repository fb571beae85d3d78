#include "mitchell/geometry.hpp"

#include <algorithm>
#include <string>

#include "core/error.hpp"

namespace slipstick::mitchell {
namespace {

constexpr const char* kFunction = "conv2d";
constexpr int64_t kLimit = int64_t{1} << 31;  // of strides and the like: sizes stay in 64 bits
constexpr int64_t kLongestAxis = int64_t{1} << 61;  // that sums of positions stay in 64 bits

std::string text_of(const std::array<int64_t, 2>& pair) {
    return text("(", pair[0], ", ", pair[1], ")");
}

void check_pair(const char* argument, const std::array<int64_t, 2>& pair, int64_t least) {
    if (std::min(pair[0], pair[1]) < least || std::max(pair[0], pair[1]) >= kLimit) {
        refuse_value(kFunction, "`", argument, "` must be from ", least, " to 2**31 - 1, got ",
                     text_of(pair));
    }
}

}  // namespace

Geometry geometry_of(const ConstTensor& x, const ConstTensor& weight, const ConvOptions& options) {
    if (x.rank != 3 && x.rank != 4) {
        refuse_value(kFunction, "`x` must have shape (n, c, h, w) or (c, h, w), got shape ",
                     shape_text(x));
    }
    if (weight.rank != 4) {
        refuse_value(kFunction, "`weight` must have shape (o, c / groups, kh, kw), got shape ",
                     shape_text(weight));
    }
    check_pair("stride", options.stride, 1);
    check_pair("dilation", options.dilation, 1);
    check_pair("padding", options.padding, 0);
    const int64_t groups = options.groups;
    if (groups < 1) refuse_value(kFunction, "`groups` must be at least 1, got ", groups);
    const int64_t channels = x.shape[x.rank - 3];
    if (channels % groups != 0) {
        refuse_value(kFunction, "`groups` must divide the ", channels, " channels of `x` of shape ",
                     shape_text(x), ", got ", groups);
    }
    if (weight.shape[0] % groups != 0) {
        refuse_value(kFunction, "`groups` must divide the ", weight.shape[0],
                     " output channels of `weight` of shape ", shape_text(weight), ", got ",
                     groups);
    }
    if (weight.shape[1] != channels / groups) {
        refuse_value(kFunction, "`weight` must have ", channels / groups,
                     " input channels, those of `x` of shape ", shape_text(x),
                     " divided by `groups`, got shape ", shape_text(weight));
    }
    Geometry g{x.rank == 4 ? x.shape[0] : 1,
               groups,
               channels / groups,
               weight.shape[0] / groups,
               x.shape[x.rank - 2],
               x.shape[x.rank - 1],
               weight.shape[2],
               weight.shape[3],
               0,
               0,
               options.stride,
               options.padding,
               options.dilation};
    if (g.kernel_height == 0 || g.kernel_width == 0) {
        refuse_value(kFunction, "`weight` must have a kernel of at least 1 x 1, got shape ",
                     shape_text(weight));
    }
    // Views that repeat an element may be of any size.
    if (std::max(g.height, g.width) >= kLongestAxis ||
        g.kernel_height - 1 >= kLongestAxis / g.dilation[0] ||
        g.kernel_width - 1 >= kLongestAxis / g.dilation[1]) {
        refuse_value(kFunction, "`x` and `weight` must span less than 2**61 elements, got shapes ",
                     shape_text(x), " and ", shape_text(weight), " with dilation ",
                     text_of(g.dilation));
    }
    const std::array<int64_t, 2> span = {(g.kernel_height - 1) * g.dilation[0],
                                         (g.kernel_width - 1) * g.dilation[1]};
    if (options.same_padding) {
        if (g.stride[0] != 1 || g.stride[1] != 1) {
            refuse_value(kFunction, "`stride` must be 1 with padding \"same\", got ",
                         text_of(g.stride));
        }
        g.padding = {span[0] / 2, span[1] / 2};  // one more below and to the right where odd
        g.out_height = g.height;
        g.out_width = g.width;
        return g;
    }
    const int64_t rows = g.height + 2 * g.padding[0] - span[0];
    const int64_t columns = g.width + 2 * g.padding[1] - span[1];
    if (rows < 1 || columns < 1) {
        refuse_value(kFunction, "`weight` must span no more than `x` of shape ", shape_text(x),
                     " with padding ", text_of(g.padding), ", got shape ", shape_text(weight),
                     " with dilation ", text_of(g.dilation));
    }
    g.out_height = (rows - 1) / g.stride[0] + 1;
    g.out_width = (columns - 1) / g.stride[1] + 1;
    return g;
}

}  // namespace slipstick::mitchell
