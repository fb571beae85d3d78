// A random rotation of vectors of any length: rounds of random signs and a fast orthogonal
// transform, without padding.
#pragma once

#include "core/result.hpp"
#include "core/tensor.hpp"

namespace slipstick::cpu::projection {

// As x, float64 for integers and bools. Throws where x has no axis or its last one is empty.
ResultSpec result_of_rotate(const ConstTensor& x);
// Along the last axis; `out` may be x itself. A round turns x into H D x with the signs D of
// (seed, round, feature); `inverse` takes the transposes in reverse. README.md says what H is.
void rotate(const ConstTensor& x, uint64_t seed, int64_t rounds, bool inverse, const Tensor& out);

}  // namespace slipstick::cpu::projection
