// The 65,536 products of a method for 8-bit operands, made where they are read.
#pragma once

#include <cstdint>

#include "mitchell/cuda.hpp"

namespace slipstick::cuda::mitchell {

// What the products of int8 are changed by, so that all are unsigned: their top bit.
constexpr uint32_t product_offset(Dtype dtype) { return dtype == Dtype::kInt8 ? 0x8000 : 0; }

// table[256 a + b], or [256 b + a] where `exchanged`: the bits of P(a, b) plus product_offset, from
// the context's scratch memory.
const uint16_t* all_products(const Context& context, const char* function, Dtype dtype,
                             slipstick::mitchell::Kind kind, const Parameters& parameters,
                             bool exchanged);

}  // namespace slipstick::cuda::mitchell
