// What is known of the numbers in an operand of a sum of products, and what follows from it.
#pragma once

#include "core/store.hpp"
#include "mitchell/kernels.hpp"
#include "mitchell/names.hpp"

namespace slipstick::cpu::mitchell {

// What an operand of any rank can hold: integers of 8 and 16 bits fit the kernels whatever they
// are, all others are looked at.
Magnitudes magnitudes_of(const ConstTensor& tensor);
Magnitudes magnitudes_of(const Matrix& matrix);

// Sums of integers are checked by the bounds of sums.hpp, and where these do not settle it by the
// data.
const Sums& cpu_sums();

}  // namespace slipstick::cpu::mitchell
