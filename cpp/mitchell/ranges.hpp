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

// A sum of `depth` products must fit the result. The limits of the product's dtype, or a table's
// largest entry, settle most cases; where they do not, the data do.
void check_integer_sums(const char* function, Named left, Named right, const Method& method,
                        int64_t depth);

}  // namespace slipstick::cpu::mitchell
