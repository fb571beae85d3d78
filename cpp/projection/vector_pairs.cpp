#include "projection/vector_pairs.hpp"

namespace slipstick::projection {

VectorPairs::VectorPairs(const ConstTensor& x, const ConstTensor& out, int axis) {
    for (int i = 0; i < x.rank; ++i) {
        const int64_t size = x.shape[i];
        if (i == axis || size == 1) continue;
        count_ *= size;
        const size_t last = rank_ - 1;
        if (rank_ > 0 && source_[last] == size * x.strides[i] &&
            target_[last] == size * out.strides[i]) {  // one axis with the one before
            shape_[last] *= size;
            source_[last] = x.strides[i];
            target_[last] = out.strides[i];
        } else {
            shape_[rank_] = size;
            source_[rank_] = x.strides[i];
            target_[rank_++] = out.strides[i];
        }
    }
    if (rank_ == 0) shape_[rank_++] = 1;
}

}  // namespace slipstick::projection
