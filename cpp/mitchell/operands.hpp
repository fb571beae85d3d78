// The dtypes that the family takes, and what becomes of them.
#pragma once

#include "core/dtype.hpp"
#include "mitchell/product.hpp"

namespace slipstick::cpu::mitchell {

inline constexpr const char* kAllDtypes =
    "float32, float64, float16, bfloat16, int8, int16, int32, uint8, uint16 or uint32";
inline constexpr const char* kFloatDtypes = "float32, float64, float16 or bfloat16";

constexpr bool is_float(Dtype dtype) { return dtype <= Dtype::kBFloat16; }

template <class F>
decltype(auto) dispatch_integer(Dtype dtype, F&& f) {
    return dispatch<int8_t, int16_t, int32_t, uint8_t, uint16_t, uint32_t>(dtype, f);
}

inline Dtype product_dtype(Dtype dtype) {
    if (is_float(dtype)) return dtype;
    return dispatch_integer(
        dtype, []<class T>() { return DtypeOf<slipstick::mitchell::Wider<T>>::value; });
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

}  // namespace slipstick::cpu::mitchell
