// The matrices that a tensor holds, as the gradients of a product find them.
#pragma once

#include "core/tensor.hpp"

namespace slipstick::mitchell {

struct Stack {
    int64_t rows = 1;
    int64_t columns = 1;
    int64_t row_step = 0;  // in elements, as all steps
    int64_t column_step = 0;
    // Along the axes of the product in front of its matrices; 0 where the tensor was stretched.
    int64_t steps[kMaxRank] = {};
    // Of these, the axes that the tensor has. Along the others its gradients are sums.
    bool has[kMaxRank] = {};
};

// `has_rows` and `has_columns`: which of the two last axes the tensor has. The axes in front, in C
// order, are `sizes` long.
inline Stack stack_of(const ConstTensor& tensor, bool has_rows, bool has_columns, int batch_axes,
                      const int64_t* sizes) {
    Stack stack;
    int axis = tensor.rank;
    if (has_columns) {
        stack.columns = tensor.shape[--axis];
        stack.column_step = tensor.strides[axis];
    }
    if (has_rows) {
        stack.rows = tensor.shape[--axis];
        stack.row_step = tensor.strides[axis];
    }
    for (int i = 0; i < batch_axes; ++i) {
        const int own = i - (batch_axes - axis);
        if (own < 0) continue;
        stack.steps[i] = tensor.shape[own] == 1 ? 0 : tensor.strides[own];
        stack.has[i] = tensor.shape[own] == sizes[i];
    }
    return stack;
}

}  // namespace slipstick::mitchell
