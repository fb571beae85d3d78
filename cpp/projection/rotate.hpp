// A random rotation of vectors of any length: rounds of random signs and a fast orthogonal
// transform, without padding.
#pragma once

#include "core/tensor.hpp"
#include "projection/names.hpp"

namespace slipstick::cpu::projection {

// Along the last axis; `out` may be x itself. A round turns x into H D x with the signs D of
// (seed, round, feature); `inverse` takes the transposes in reverse. README.md says what H is.
void rotate(const ConstTensor& x, uint64_t seed, int64_t rounds, bool inverse, const Tensor& out);

}  // namespace slipstick::cpu::projection
