// The rows of a tensor of any rank and strides, as the products of the family walk them.
#pragma once

#include <algorithm>

#include "core/tensor.hpp"

namespace slipstick::cpu::projection {

// The rows of a tensor (all axes but the last, as one), in runs of equal distance.
class Rows {
public:
    explicit Rows(const ConstTensor& tensor) {
        for (int axis = 0; axis + 1 < tensor.rank; ++axis) {
            const int64_t size = tensor.shape[axis];
            const int64_t stride = tensor.strides[axis];
            if (size == 1) continue;
            if (rank_ > 0 &&
                strides_[rank_ - 1] == size * stride) {  // one axis with the one before
                shape_[rank_ - 1] *= size;
                strides_[rank_ - 1] = stride;
            } else {
                shape_[rank_] = size;
                strides_[rank_++] = stride;
            }
            count_ *= size;
        }
        if (rank_ == 0) {
            shape_[0] = 1;
            strides_[rank_++] = 0;
        }
    }

    int64_t count() const { return count_; }

    // Calls body(row, rows, offset, stride) for runs that cover [begin, begin + count): row r of a
    // run lies offset + r * stride elements from the start.
    template <class Body>
    void for_each_run(int64_t begin, int64_t count, Body body) const {
        const int64_t length = shape_[rank_ - 1];
        const int64_t stride = strides_[rank_ - 1];
        for (int64_t row = begin; row < begin + count;) {
            const int64_t within = row % length;
            int64_t offset = within * stride;
            int64_t rest = row / length;
            for (int axis = rank_ - 2; axis >= 0; --axis) {
                offset += rest % shape_[axis] * strides_[axis];
                rest /= shape_[axis];
            }
            const int64_t rows = std::min(begin + count - row, length - within);
            body(row, rows, offset, stride);
            row += rows;
        }
    }

private:
    int rank_ = 0;
    int64_t count_ = 1;
    int64_t shape_[kMaxRank];
    int64_t strides_[kMaxRank];
};

// Fills offsets[0 ... count) with where the rows from `begin` on start, in elements.
inline void row_offsets(const Rows& rows, int64_t begin, int64_t count, int64_t* offsets) {
    rows.for_each_run(begin, count,
                      [&](int64_t start, int64_t length, int64_t offset, int64_t stride) {
                          for (int64_t i = 0; i < length; ++i)
                              offsets[start - begin + i] = offset + i * stride;
                      });
}

}  // namespace slipstick::cpu::projection
