// Checks that the family's functions make of their options.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <initializer_list>
#include <new>
#include <string>

#include "attention/numbers.hpp"
#include "attention/shape.hpp"
#include "attention/view.hpp"
#include "core/checks.hpp"
#include "core/error.hpp"

namespace slipstick::attention {

inline constexpr int64_t kLargestCount = int64_t{1} << 53;  // float64 holds every integer to here

// A shape that belongs to no array.
struct Sizes : ConstTensor {
    explicit Sizes(std::initializer_list<int64_t> list)
        : ConstTensor{nullptr, Dtype::kFloat32, static_cast<int>(list.size()), nullptr, nullptr} {
        std::copy(list.begin(), list.end(), sizes.begin());
        shape = sizes.data();
    }
    Sizes(const Sizes&) = delete;
    Sizes& operator=(const Sizes&) = delete;
    std::array<int64_t, 4> sizes{};
};

// Sizes whose products no longer fit the counters, or whose packed keys fit no machine: broadcast
// views can have them.
inline void check_size(const Shape& shape) {
    const double rows = static_cast<double>(shape.batch) * static_cast<double>(shape.heads) *
                        static_cast<double>(shape.queries);
    const double keys = static_cast<double>(shape.keys) + 1024;
    const double columns = static_cast<double>(shape.dim) + static_cast<double>(shape.dim_v) + 1024;
    constexpr double kMostBytes = 0x1p47;  // of a process's address space
    if (rows > 0x1p60 || keys * columns * static_cast<double>(sizeof(double)) > kMostBytes) {
        throw std::bad_alloc();
    }
}

// Integers of at most two axes, from 0 to `highest`, which is seen of those that do not lie on a
// device; `shapes` says which shapes fit.
inline void check_integers(const char* function, Named argument, bool on_device, bool shape_fits,
                           const std::string& shapes, int64_t highest) {
    const ConstTensor& tensor = argument.tensor;
    check_dtype(function, argument, is_integer(tensor.dtype), "integer");
    if (!shape_fits) {
        refuse_value(function, "`", argument.name, "` must be ", shapes, ", got shape ",
                     shape_text(tensor));
    }
    if (on_device) return;
    const View<2> view(tensor);
    for (int64_t i = 0; i < view.shape[0]; ++i) {
        for (int64_t j = 0; j < view.shape[1]; ++j) {
            const int64_t number = integer_at(view.data, view.dtype, view.offset(i, j));
            if (number >= 0 && number <= highest) continue;
            refuse_value(function, "`", argument.name, "` must be from 0 to ", highest, ", got ",
                         integer_text(view.data, view.dtype, view.offset(i, j)));
        }
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

// The scores' own type decides what a cap may be: 0 or infinity in float32 would mean none.
inline void check_softcap(const char* function, double softcap, Dtype dtype) {
    const double cap = dtype == Dtype::kFloat64 ? softcap : static_cast<float>(softcap);
    if (softcap != 0 && !(cap > 0 && std::isfinite(cap))) {
        refuse_value(function, "`softcap` must be above 0 and finite in float32, got ", softcap);
    }
}

}  // namespace slipstick::attention
