// The rows of x as the left operand of a product with a random matrix.
#pragma once

#include <algorithm>

#include "core/rounding.hpp"
#include "projection/kernels.hpp"
#include "projection/rows.hpp"

namespace slipstick::cpu::projection {

// Depth counts in whole groups of the product: zeros stand before and behind the features of x.
class LeftOperand {
public:
    // Column 0 of x lies `origin` into a block of depth.
    LeftOperand(const Product& product, const ConstTensor& x, int64_t origin)
        : product_(product),
          x_(x),
          rows_(x),
          lead_(origin % product.group),
          depth_origin_(origin - lead_) {}

    int64_t rows() const { return rows_.count(); }
    int64_t depth() const { return round_up(lead_ + features(), product_.group); }
    int64_t depth_origin() const { return depth_origin_; }

    // As PackFn: depth [k, k + depth) of rows [row, row + rows).
    void pack(int64_t row, int64_t rows, int64_t k, int64_t depth, void* packed) const {
        const int64_t begin = std::clamp<int64_t>(k - lead_, 0, features());
        const int64_t end = std::clamp<int64_t>(k + depth - lead_, 0, features());
        const PaddedDepth padded{begin - (k - lead_), end - begin, k + depth - lead_ - end};
        const int64_t stride = x_.strides[x_.rank - 1];
        const char* const source = x_.as<char>() + begin * stride * item_size(x_.dtype);
        constexpr int64_t batch = 96;  // a multiple of every tile's height
        for (int64_t first = 0; first < rows; first += batch) {
            int64_t offsets[batch];
            const int64_t count = std::min(batch, rows - first);
            row_offsets(rows_, row + first, count, offsets);
            product_.pack_rows(
                source, offsets, stride, count, padded,
                static_cast<char*>(packed) + first * depth * product_.matmul.left_bytes);
        }
    }

private:
    int64_t features() const { return x_.shape[x_.rank - 1]; }

    const Product& product_;
    const ConstTensor& x_;
    Rows rows_;
    int64_t lead_;
    int64_t depth_origin_;
};

}  // namespace slipstick::cpu::projection
