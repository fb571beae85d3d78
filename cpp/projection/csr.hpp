// Projection of a sparse matrix in compressed rows, without making it dense.
#pragma once

#include "projection/projection.hpp"

namespace slipstick::cpu::projection {

// Row r holds the elements row_starts[r] ... row_starts[r + 1] of values and columns.
struct Csr {
    ConstTensor values;      // float32 or float64; one axis, next to each other like the others
    ConstTensor columns;     // int32 or int64
    ConstTensor row_starts;  // of the columns' dtype
    int64_t rows;
    int64_t features;
};

// Throws TypeError or std::invalid_argument for arrays that do not fit together, or columns outside
// the features. False where a row's columns do not increase, which project_csr asks for.
bool check_csr(const char* function, const Csr& x);

// (rows, n_components), with the bits of project for the dense matrix, where all its elements are
// finite: zeros are skipped here.
void project_csr(const Csr& x, const Law& law, uint64_t first_feature, const Tensor& out);

}  // namespace slipstick::cpu::projection
