// Which unsigned lanes hold the bits of an element type. Included by *.simd.cpp alone.
#pragma once

#include "core/dtype.hpp"
#include "core/simd.hpp"
#include "mitchell/product.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

using slipstick::mitchell::Format;

// The format of T in lanes of type Lane.
template <class T, class Lane>
constexpr const Format<Lane>& format() {
    if constexpr (sizeof(T) == 8) {
        return slipstick::mitchell::kFormat64<Lane>;
    } else if constexpr (sizeof(T) == 4) {
        return slipstick::mitchell::kFormat32<Lane>;
    } else if constexpr (DtypeOf<T>::value == Dtype::kFloat16) {
        return slipstick::mitchell::kFormat16<Lane>;
    } else {
        return slipstick::mitchell::kFormatB16<Lane>;
    }
}

// The unsigned type that holds T's bits.
template <class T>
struct PatternOf {
    using type = uint16_t;
};
template <>
struct PatternOf<float> {
    using type = uint32_t;
};
template <>
struct PatternOf<double> {
    using type = uint64_t;
};
template <class T>
using Pattern = typename PatternOf<T>::type;

// The bits of T in lanes that may be wider.
template <class T, class Lane>
SLIPSTICK_INLINE Vec<Lane> load_lanes(const Pattern<T>* source) {
    if constexpr (sizeof(Lane) == sizeof(T)) {
        return load<Vec<Lane>>(source);
    } else {
        return __builtin_convertvector((load<VecLike<Pattern<T>, Lane>>(source)), Vec<Lane>);
    }
}
template <class T, class Lane>
SLIPSTICK_INLINE void store_lanes(Pattern<T>* target, Vec<Lane> value) {
    if constexpr (sizeof(Lane) == sizeof(T)) {
        store(target, value);
    } else {
        store(target, __builtin_convertvector(value, VecLike<Pattern<T>, Lane>));
    }
}

}  // namespace
}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
