// lambda of a row: the only place where it is computed, so that a row has the same lambda in every
// path.
#pragma once

#include <algorithm>
#include <cmath>

#include "attention/attention.hpp"
#include "core/checks.hpp"
#include "core/dtype.hpp"
#include "core/error.hpp"

namespace slipstick::cpu::attention {

inline constexpr const char* kFloatDtypes = "float32, float64, float16 or bfloat16";

inline bool is_float(Dtype dtype) { return dtype <= Dtype::kBFloat16; }

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

// lambda in float64, for every law but kGiven; the caller rounds it once. ln 0 is not evaluated:
// a count below 1 is taken as 1.
inline double factor(const Scale& scale, int64_t head, int64_t n) {
    const auto* p = scale.values.as<double>() +
                    (scale.values.shape[0] == 1 ? 0 : head * scale.values.strides[0]);
    const double count = static_cast<double>(std::max<int64_t>(n, 1));
    switch (scale.law) {
        case Law::kAffineLog:
            return p[0] * std::log(count) + p[1];
        case Law::kClippedLog:
            return std::max(p[0] * std::log(count), p[1]);
        default:
            return p[3] * (1.0 + p[0] * std::log(1.0 + std::floor((count - 1.0 + p[2]) / p[1])));
    }
}

// The scale must suit rows of the given shape, whose heads lie along `head_axis` (-1: no such
// axis).
inline void check_scale(const char* function, const Scale& scale, const ConstTensor& rows,
                        int head_axis, bool broadcasts, const char* axes) {
    if (scale.law == Law::kGiven) {
        check_dtype(function, {"scale", scale.values}, is_float(scale.values.dtype), kFloatDtypes);
        if (!broadcasts) {
            refuse_value(function, "`scale` must broadcast to ", axes, ", here ", shape_text(rows),
                         ", got shape ", shape_text(scale.values));
        }
        return;
    }
    const int64_t parameters = scale.law == Law::kTemperature ? 4 : 2;
    const ConstTensor& values = scale.values;
    if (values.dtype != Dtype::kFloat64 || values.rank != 2 || values.shape[1] != parameters ||
        values.strides[1] != 1) {
        refuse_value(function, "`scale` must give ", parameters,
                     " float64 parameters a head side by side, got ", describe(values));
    }
    const int64_t given = scale.values.shape[0];
    const int64_t heads = head_axis < 0 ? 1 : rows.shape[head_axis];
    if (given != 1 && given != heads) {
        refuse_value(function, "`scale` must have one entry for all heads or one for each of the ",
                     heads, " heads, got ", given);
    }
}

}  // namespace slipstick::cpu::attention
