// Elements of arrays of any integer or float type, on the host.
#pragma once

#include <algorithm>
#include <limits>
#include <string>
#include <type_traits>

#include "core/dtype.hpp"

namespace slipstick::attention {

inline constexpr const char* kFloatDtypes = "float32, float64, float16 or bfloat16";

inline bool is_float(Dtype dtype) { return dtype <= Dtype::kBFloat16; }
inline bool is_integer(Dtype dtype) { return dtype >= Dtype::kInt8 && dtype <= Dtype::kUInt64; }

inline double float_at(const void* data, Dtype dtype, int64_t index) {
    return dispatch<float, double, Float16, BFloat16>(dtype, [&]<class T>() -> double {
        const T value = static_cast<const T*>(data)[index];
        if constexpr (sizeof(T) == 2) {
            return to_float(value);
        } else {
            return value;
        }
    });
}

inline int64_t integer_at(const void* data, Dtype dtype, int64_t index) {
    return dispatch<int64_t, int32_t, int8_t, int16_t, uint8_t, uint16_t, uint32_t, uint64_t>(
        dtype, [&]<class T>() {
            const T value = static_cast<const T*>(data)[index];
            if constexpr (std::is_same_v<T, uint64_t>) {
                return static_cast<int64_t>(
                    std::min<uint64_t>(value, std::numeric_limits<int64_t>::max()));
            } else {
                return static_cast<int64_t>(value);
            }
        });
}

// The same integer for a message, beyond int64's range too.
inline std::string integer_text(const void* data, Dtype dtype, int64_t index) {
    return dtype == Dtype::kUInt64 ? std::to_string(static_cast<const uint64_t*>(data)[index])
                                   : std::to_string(integer_at(data, dtype, index));
}

}  // namespace slipstick::attention
