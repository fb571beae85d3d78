// What is known of the numbers in an operand of a sum of products, and what follows from it.
#pragma once

#include "core/checks.hpp"
#include "core/store.hpp"
#include "mitchell/kernels.hpp"
#include "mitchell/method.hpp"

namespace slipstick::cpu::mitchell {

// What an operand of any rank can hold: integers of 8 and 16 bits fit the kernels whatever they
// are, all others are looked at.
Magnitudes magnitudes_of(const ConstTensor& tensor);
Magnitudes magnitudes_of(const Matrix& matrix);

// A sum of `depth` products must fit the result. An approximate product is at most the exact one,
// or twice that with an offset below 1. The limit of the dtype settles most cases; where it does
// not, the data do.
void check_integer_sums(const char* function, Named left, Named right, const Method& method,
                        int64_t depth);

}  // namespace slipstick::cpu::mitchell
