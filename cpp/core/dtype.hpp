// The closed list of element types, the conversions of the 16-bit floats, and the one table of
// functions by type.
#pragma once

#include <cstdint>

#include "core/host_device.hpp"

namespace slipstick {

struct Float16 {
    uint16_t bits;
};
struct BFloat16 {
    uint16_t bits;
};
// Another library's bool may hold any byte, which C++'s own must not: it is read as a number.
struct Bool {
    uint8_t byte;
    constexpr explicit operator bool() const { return byte != 0; }
};

enum class Dtype : uint8_t {
    kFloat32,
    kFloat64,
    kFloat16,
    kBFloat16,
    kInt8,
    kInt16,
    kInt32,
    kInt64,
    kUInt8,
    kUInt16,
    kUInt32,
    kUInt64,
    kBool,
};
inline constexpr int kDtypeCount = 13;

// The same list for the compiler: DtypeOf<T>::value is the tag of the C++ type T.
template <class T>
struct DtypeOf;
#define SLIPSTICK_DTYPE(type, tag)                 \
    template <>                                    \
    struct DtypeOf<type> {                         \
        static constexpr Dtype value = Dtype::tag; \
    }
SLIPSTICK_DTYPE(float, kFloat32);
SLIPSTICK_DTYPE(double, kFloat64);
SLIPSTICK_DTYPE(Float16, kFloat16);
SLIPSTICK_DTYPE(BFloat16, kBFloat16);
SLIPSTICK_DTYPE(int8_t, kInt8);
SLIPSTICK_DTYPE(int16_t, kInt16);
SLIPSTICK_DTYPE(int32_t, kInt32);
SLIPSTICK_DTYPE(int64_t, kInt64);
SLIPSTICK_DTYPE(uint8_t, kUInt8);
SLIPSTICK_DTYPE(uint16_t, kUInt16);
SLIPSTICK_DTYPE(uint32_t, kUInt32);
SLIPSTICK_DTYPE(uint64_t, kUInt64);
SLIPSTICK_DTYPE(Bool, kBool);
#undef SLIPSTICK_DTYPE

constexpr const char* name(Dtype dtype) {
    constexpr const char* names[kDtypeCount] = {
        "float32", "float64", "float16", "bfloat16", "int8",   "int16", "int32",
        "int64",   "uint8",   "uint16",  "uint32",   "uint64", "bool"};
    return names[static_cast<int>(dtype)];
}

constexpr int64_t item_size(Dtype dtype) {
    constexpr int64_t sizes[kDtypeCount] = {4, 8, 2, 2, 1, 2, 4, 8, 1, 2, 4, 8, 1};
    return sizes[static_cast<int>(dtype)];
}

// --- Dispatch ---

// A table of
// functions by dtype; null where a type is not offered. A level file builds it once, at compile
// time:  make_per_dtype<Fn, float, double>([]<class T>() { return &kernel<T>; }).
template <class Fn>
struct PerDtype {
    Fn fn[kDtypeCount];
    constexpr Fn operator[](Dtype dtype) const { return fn[static_cast<int>(dtype)]; }
};

template <class Fn, class... Types, class Maker>
constexpr PerDtype<Fn> make_per_dtype(Maker maker) {
    PerDtype<Fn> table{};
    ((table.fn[static_cast<int>(DtypeOf<Types>::value)] = maker.template operator()<Types>()), ...);
    return table;
}

// Calls f.operator()<T>() for the one of Types that `dtype` names, and returns what it returns; for
// code that is not compiled per level. The caller has checked that `dtype` is among Types.
template <class First, class... Rest, class F>
decltype(auto) dispatch(Dtype dtype, F&& f) {
    if constexpr (sizeof...(Rest) > 0) {
        if (dtype != DtypeOf<First>::value) return dispatch<Rest...>(dtype, f);
    }
    return f.template operator()<First>();
}

// --- 16-bit floats ---

namespace bits {

SLIPSTICK_HD uint32_t of(float value) {
    uint32_t result;
    __builtin_memcpy(&result, &value, sizeof result);
    return result;
}
SLIPSTICK_HD uint64_t of(double value) {
    uint64_t result;
    __builtin_memcpy(&result, &value, sizeof result);
    return result;
}
SLIPSTICK_HD float as_float(uint32_t pattern) {
    float result;
    __builtin_memcpy(&result, &pattern, sizeof result);
    return result;
}
SLIPSTICK_HD double as_double(uint64_t pattern) {
    double result;
    __builtin_memcpy(&result, &pattern, sizeof result);
    return result;
}

}  // namespace bits

SLIPSTICK_HD float to_float(BFloat16 value) { return bits::as_float(uint32_t{value.bits} << 16); }

SLIPSTICK_HD float to_float(Float16 value) {
    const uint32_t sign = (uint32_t{value.bits} & 0x8000u) << 16;
    const uint32_t magnitude = value.bits & 0x7fffu;
    if (magnitude >= 0x7c00u)
        return bits::as_float(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13));
    // Read as a float32 with the exponent of float16 the value is 2^112 too small, subnormals
    // included: one exact multiplication puts both right.
    return bits::as_float(sign | bits::of(bits::as_float(magnitude << 13) * 0x1p112f));
}

// Round to nearest, ties to even; every NaN becomes a quiet one with its sign.
SLIPSTICK_HD BFloat16 to_bfloat16(float value) {
    const uint32_t pattern = bits::of(value);
    if ((pattern & 0x7fffffffu) > 0x7f800000u) {
        return {static_cast<uint16_t>(((pattern >> 16) & 0x8000u) | 0x7fc0u)};
    }
    return {static_cast<uint16_t>((pattern + 0x7fffu + ((pattern >> 16) & 1u)) >> 16)};
}

SLIPSTICK_HD Float16 to_float16(float value) {
    const uint32_t pattern = bits::of(value);
    const auto sign = static_cast<uint16_t>((pattern >> 16) & 0x8000u);
    const uint32_t magnitude = pattern & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return {static_cast<uint16_t>(sign | 0x7e00u)};
    // 65520 is half-way between the largest float16 and the next step: ties go to infinity.
    if (magnitude >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00u)};
    if (magnitude < 0x38800000u) {
        // Below 2^-14 the result is subnormal, a multiple of 2^-24: adding 0.5 leaves exactly those
        // bits in the fraction, rounded by the adder.
        const uint32_t shifted = bits::of(bits::as_float(magnitude) + 0.5f) - 0x3f000000u;
        return {static_cast<uint16_t>(sign | shifted)};
    }
    const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u) - 0x38000000u;
    return {static_cast<uint16_t>(sign | (rounded >> 13))};
}

// float32 by rounding to odd: whoever rounds the result to 16 bits rounds once, not twice.
SLIPSTICK_HD float to_float_odd(double value) {
    const float nearest = static_cast<float>(value);
    const uint32_t pattern = bits::of(nearest);
    if (static_cast<double>(nearest) == value || (pattern & 0x7fffffffu) >= 0x7f800000u)
        return nearest;
    const double magnitude = value < 0 ? -value : value;
    const double nearest_magnitude = bits::as_float(pattern & 0x7fffffffu);
    const uint32_t truncated = nearest_magnitude > magnitude ? pattern - 1 : pattern;
    return bits::as_float(truncated | 1u);
}

}  // namespace slipstick
