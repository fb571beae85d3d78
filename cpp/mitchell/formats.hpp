// Which binary format an element type has, and which unsigned type holds its bits.
#pragma once

#include "core/dtype.hpp"
#include "mitchell/product.hpp"

namespace slipstick::mitchell {

// The format of T in lanes of type Lane; by value, since a GPU has no address of a host's constant.
template <class T, class Lane>
SLIPSTICK_HD constexpr Format<Lane> format() {
    if constexpr (sizeof(T) == 8) {
        return kFormat64<Lane>;
    } else if constexpr (sizeof(T) == 4) {
        return kFormat32<Lane>;
    } else if constexpr (DtypeOf<T>::value == Dtype::kFloat16) {
        return kFormat16<Lane>;
    } else {
        return kFormatB16<Lane>;
    }
}

template <class T>
using Pattern = std::conditional_t<sizeof(T) == 8, uint64_t,
                                   std::conditional_t<sizeof(T) == 4, uint32_t, uint16_t>>;

// The lanes that a method forms products in (MethodBase::lane_bits).
template <int bits>
using LaneOfBits =
    std::conditional_t<bits == 16, uint16_t, std::conditional_t<bits == 32, uint32_t, uint64_t>>;

}  // namespace slipstick::mitchell
