// Matrices inside tensors.
#pragma once

#include <array>

#include "core/store.hpp"
#include "core/tensor.hpp"

namespace slipstick::cpu::mitchell {

inline void* address(const Matrix& matrix, int64_t row, int64_t column) {
    return static_cast<char*>(matrix.data) +
           (row * matrix.row_stride + column * matrix.column_stride) * item_size(matrix.dtype);
}

inline Matrix transposed(const Matrix& matrix) {
    return {matrix.data, matrix.dtype,         matrix.columns,
            matrix.rows, matrix.column_stride, matrix.row_stride};
}

}  // namespace slipstick::cpu::mitchell
