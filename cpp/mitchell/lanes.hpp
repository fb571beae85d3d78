// How the bits of an element type become lanes of a vector, and back. Included by *.simd.cpp alone.
#pragma once

#include "core/dtype.hpp"
#include "core/simd.hpp"
#include "mitchell/formats.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

using slipstick::mitchell::format;
using slipstick::mitchell::Format;
using slipstick::mitchell::Pattern;

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
