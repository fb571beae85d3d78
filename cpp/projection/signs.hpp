// The signs of a Gaussian projection, packed into codes as soon as the sums are finished.
#pragma once

#include <cstdint>

#include "core/tensor.hpp"
#include "projection/names.hpp"

namespace slipstick::cpu::projection {

// Bit i & 7 of byte i >> 3 of a row's code is 1 where component i of its product with the Gaussian
// matrix of the seed is at least 0; bits past n_bits are 0. `codes` is contiguous. No more than
// blocks of the projection exist at a time. Returns the first row whose projection has a NaN, or
// -1.
int64_t gaussian_signs(const ConstTensor& x, uint64_t seed, int64_t n_bits, uint8_t* codes);

}  // namespace slipstick::cpu::projection
