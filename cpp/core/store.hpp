// The end of a product: accumulators scaled once, rounded once, written with any strides.
#pragma once

#include "core/dtype.hpp"

namespace slipstick::cpu {

// A matrix inside a tensor: strides count elements.
struct Matrix {
    void* data;
    Dtype dtype;
    int64_t rows;
    int64_t columns;
    int64_t row_stride;
    int64_t column_stride;
};

// target[i][j] = round(acc[i][j] * scale) for a block of accumulators (float32 for 16-bit targets,
// else of the target's dtype) whose first element belongs to (row, column). The product is formed
// in float64; integers are stored as they are.
void store_scaled(const void* acc, int64_t acc_stride, int64_t rows, int64_t columns, double scale,
                  const Matrix& target, int64_t row, int64_t column);

}  // namespace slipstick::cpu
