// The dtypes that the family takes, and what becomes of them.
#pragma once

#include "core/dtype.hpp"
#include "mitchell/product.hpp"

namespace slipstick::mitchell {

inline constexpr const char* kAllDtypes =
    "float32, float64, float16, bfloat16, int8, int16, int32, uint8, uint16 or uint32";
inline constexpr const char* kFloatDtypes = "float32, float64, float16 or bfloat16";
inline constexpr const char* kIntegerDtypes = "int8, int16, int32, uint8, uint16 or uint32";

constexpr bool is_float(Dtype dtype) { return dtype <= Dtype::kBFloat16; }

constexpr bool is_operand(Dtype dtype) {
    return is_float(dtype) ||
           (dtype >= Dtype::kInt8 && dtype <= Dtype::kUInt32 && dtype != Dtype::kInt64);
}

constexpr const Format<uint64_t>& float_format(Dtype dtype) {
    switch (dtype) {
        case Dtype::kFloat32:
            return kFormat32<uint64_t>;
        case Dtype::kFloat64:
            return kFormat64<uint64_t>;
        case Dtype::kFloat16:
            return kFormat16<uint64_t>;
        default:
            return kFormatB16<uint64_t>;
    }
}

template <class F>
decltype(auto) dispatch_integer(Dtype dtype, F&& f) {
    return dispatch<int8_t, int16_t, int32_t, uint8_t, uint16_t, uint32_t>(dtype, f);
}

inline Dtype product_dtype(Dtype dtype) {
    if (is_float(dtype)) return dtype;
    return dispatch_integer(dtype, []<class T>() { return DtypeOf<Wider<T>>::value; });
}

// 8-bit operands are summed in 32 bits, wider ones in 64.
inline Dtype sum_dtype(Dtype dtype) {
    if (is_float(dtype)) return dtype;
    return dispatch_integer(dtype, []<class T>() {
        if constexpr (sizeof(T) == 1)
            return DtypeOf<std::conditional_t<std::is_signed_v<T>, int32_t, uint32_t>>::value;
        else
            return DtypeOf<std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>>::value;
    });
}

}  // namespace slipstick::mitchell
