#include "core/store.hpp"

#include <cstring>
#include <type_traits>

namespace slipstick::cpu {
namespace {

template <class T>
T rounded(double value) {
    if constexpr (std::is_same_v<T, Float16>) {
        return to_float16(to_float_odd(value));
    } else if constexpr (std::is_same_v<T, BFloat16>) {
        return to_bfloat16(to_float_odd(value));
    } else {
        return static_cast<T>(value);
    }
}

template <class T>
using AccOf = std::conditional_t<sizeof(T) == 2, float, T>;

}  // namespace

void store_scaled(const void* acc, int64_t acc_stride, int64_t rows, int64_t columns, double scale,
                  const Matrix& target, int64_t row, int64_t column) {
    dispatch<float, double, Float16, BFloat16, int32_t, int64_t, uint32_t, uint64_t>(
        target.dtype, [&]<class T>() {
            for (int64_t i = 0; i < rows; ++i) {
                const auto* source = static_cast<const AccOf<T>*>(acc) + i * acc_stride;
                T* line = static_cast<T*>(target.data) + (row + i) * target.row_stride +
                          column * target.column_stride;
                if (std::is_same_v<T, AccOf<T>> && scale == 1 && target.column_stride == 1) {
                    std::memcpy(line, source, static_cast<size_t>(columns) * sizeof(T));
                    continue;
                }
                for (int64_t j = 0; j < columns; ++j) {
                    T& element = line[j * target.column_stride];
                    if constexpr (std::is_integral_v<T>) {
                        element = source[j];
                    } else {
                        element = rounded<T>(static_cast<double>(source[j]) * scale);
                    }
                }
            }
        });
}

}  // namespace slipstick::cpu
