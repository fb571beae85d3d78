// The projection family on the CPU: y = A x with a random matrix A that is never stored. Entry
// (i, j), component i and feature j, is a pure function of (kind, seed, i, j); README.md has the
// contract.
#pragma once

#include <cstdint>

#include "core/tensor.hpp"
#include "projection/names.hpp"

namespace slipstick::cpu::projection {

// Column 0 of x is feature first_feature. Infinities and NaNs propagate.
void project(const ConstTensor& x, const Law& law, uint64_t first_feature, const Tensor& out);

void back_project(const ConstTensor& y, const Law& law, uint64_t first_feature, const Tensor& out);

// out[i][j] = A[first_row + i][first_column + j], float64, or float32 rounded from that once; from
// the generator of project.
void block(const Law& law, uint64_t first_row, uint64_t first_column, const Tensor& out);

}  // namespace slipstick::cpu::projection
