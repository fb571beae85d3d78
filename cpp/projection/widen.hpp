// The dtypes of x and what their elements are summed as. Included by *.simd.cpp alone.
#pragma once

#include <type_traits>

#include "core/simd.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

// What an element is multiplied and summed as: 16-bit floats as float32, integers as float64.
template <class T>
constexpr auto widened(T value) {
    if constexpr (std::is_same_v<T, Bool>) {
        return value ? 1.0 : 0.0;
    } else if constexpr (std::is_integral_v<T>) {
        return static_cast<double>(value);
    } else if constexpr (sizeof(T) == 2) {
        return to_float(value);
    } else {
        return value;
    }
}
template <class T>
using SumOf = decltype(widened(T{}));

template <class Fn, class Maker>
constexpr PerDtype<Fn> every_dtype(Maker maker) {
    return make_per_dtype<Fn, float, double, Float16, BFloat16, int8_t, int16_t, int32_t, int64_t,
                          uint8_t, uint16_t, uint32_t, uint64_t, Bool>(maker);
}

}  // namespace
}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
