// The block form of the subsampled randomized Hadamard transform: the kind "srht". With b = 4096,
// feature j in block B = j / b, component i in group g = i / b:
//   A[i, j] = D~[i, B] (-1)^popcount(r_i & (j mod b)) D[g, j]
// r_i is the (i mod b)-th of a random order of 0 ... b - 1 that belongs to the group.
#pragma once

#include "projection/csr.hpp"
#include "projection/projection.hpp"

namespace slipstick::cpu::projection {

void project_srht(const ConstTensor& x, const Law& law, uint64_t first_feature, const Tensor& out);
void project_srht(const Csr& x, const Law& law, uint64_t first_feature, const Tensor& out);
void back_project_srht(const ConstTensor& y, const Law& law, uint64_t first_feature,
                       const Tensor& out);
void block_srht(const Law& law, uint64_t first_row, uint64_t first_column, const Tensor& out);

}  // namespace slipstick::cpu::projection
