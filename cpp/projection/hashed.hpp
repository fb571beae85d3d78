// The hashed kinds, "sjlt" and "countsketch": s entries +-1 a column, one in each of s blocks of
// components, the others 0 and skipped.
#pragma once

#include "projection/projection.hpp"

namespace slipstick::cpu::projection {

// As project, block and back_project of projection.hpp, for a law of a hashed kind.
void project_hashed(const ConstTensor& x, const Law& law, uint64_t first_feature,
                    const Tensor& out);
void block_hashed(const Law& law, uint64_t first_row, uint64_t first_column, const Tensor& out);
void back_project_hashed(const ConstTensor& y, const Law& law, uint64_t first_feature,
                         const Tensor& out);

}  // namespace slipstick::cpu::projection
