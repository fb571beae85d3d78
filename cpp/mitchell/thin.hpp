// Matrix products with few rows or few columns.
#pragma once

#include "core/store.hpp"
#include "mitchell/names.hpp"

namespace slipstick::cpu::mitchell {

// out = multiplier (a (x) b) where one operand has few rows (columns), so that the other is read
// once, where it lies. False, with `out` in any state, where another kernel has to do it: the
// method or the layout is not for this one, or the numbers turned out to be.
bool multiply_thin(const Method& method, const Matrix& a, const Matrix& b, double multiplier,
                   const Matrix& out);

}  // namespace slipstick::cpu::mitchell
