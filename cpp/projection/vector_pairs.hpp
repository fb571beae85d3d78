// The vectors that a transform reads and writes: an axis of x and of the result.
#pragma once

#include <array>

#include "core/tensor.hpp"

namespace slipstick::projection {

// All axes of x and out but one, which is the axis of the vectors.
class VectorPairs {
public:
    VectorPairs(const ConstTensor& x, const ConstTensor& out, int axis);

    int64_t count() const { return count_; }

    // Axes, as few as there can be; the last one runs fastest.
    size_t rank() const { return rank_; }
    int64_t length(size_t axis) const { return shape_[axis]; }
    int64_t source_stride(size_t axis) const { return source_[axis]; }
    int64_t target_stride(size_t axis) const { return target_[axis]; }

    // Calls body(source, target, vectors, source_stride, target_stride) for runs that cover the
    // vectors [begin, end): the first starts `source` elements into x and `target` into out.
    template <class Body>
    void for_each_run(int64_t begin, int64_t end, Body body) const {
        for (int64_t at = begin; at < end;) {
            const size_t last = rank_ - 1;
            const int64_t within = at % shape_[last];
            int64_t source = within * source_[last];
            int64_t target = within * target_[last];
            int64_t rest = at / shape_[last];
            for (size_t axis = last; axis-- > 0;) {
                source += rest % shape_[axis] * source_[axis];
                target += rest % shape_[axis] * target_[axis];
                rest /= shape_[axis];
            }
            const int64_t length = shape_[last] - within;
            const int64_t vectors = length < end - at ? length : end - at;
            body(source, target, vectors, source_[last], target_[last]);
            at += vectors;
        }
    }

private:
    size_t rank_ = 0;
    int64_t count_ = 1;
    std::array<int64_t, kMaxRank> shape_{};
    std::array<int64_t, kMaxRank> source_{};
    std::array<int64_t, kMaxRank> target_{};
};

}  // namespace slipstick::projection
