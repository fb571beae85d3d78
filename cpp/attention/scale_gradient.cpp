#include "attention/scale_gradient.hpp"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "attention/scale.hpp"

namespace slipstick::cpu::attention {
namespace {

void store_float(void* data, Dtype dtype, int64_t index, double value) {
    dispatch<float, double, Float16, BFloat16>(dtype, [&]<class T>() {
        T& target = static_cast<T*>(data)[index];
        if constexpr (std::is_same_v<T, Float16>) {
            target = to_float16(to_float_odd(value));
        } else if constexpr (std::is_same_v<T, BFloat16>) {
            target = to_bfloat16(to_float_odd(value));
        } else {
            target = static_cast<T>(value);
        }
    });
}

}  // namespace

void write_scale_gradient(const Shape& shape, const Visibility& visibility, const Scale& scale,
                          const std::vector<double>& grad_factor, const Tensor& target) {
    const bool given = scale.law == Law::kGiven;
    // Affine: (heads, 2). Given: (batch or 1, heads or 1, queries or 1).
    const View<3> view(target);
    std::vector<double> sums(static_cast<size_t>(target.size()));
    const auto at_given = [&view](int64_t b, int64_t h, int64_t i) {
        const auto index = [&view](int64_t position, size_t axis) {
            return view.shape[axis] == 1 ? 0 : position;
        };
        return static_cast<size_t>((index(b, 0) * view.shape[1] + index(h, 1)) * view.shape[2] +
                                   index(i, 2));
    };
    size_t row = 0;
    for (int64_t b = 0; b < shape.batch; ++b) {
        for (int64_t h = 0; h < shape.heads; ++h) {
            for (int64_t i = 0; i < shape.queries; ++i, ++row) {
                if (given) {
                    sums[at_given(b, h, i)] += grad_factor[row];
                    continue;
                }
                const auto n = std::max<int64_t>(visibility.count(b, h, i), 1);
                sums[static_cast<size_t>(2 * h)] +=
                    grad_factor[row] * std::log(static_cast<double>(n));
                sums[static_cast<size_t>(2 * h + 1)] += grad_factor[row];
            }
        }
    }
    if (!given) {
        std::copy(sums.begin(), sums.end(), target.as<double>());
        return;
    }
    for (int64_t b = 0; b < view.shape[0]; ++b) {
        for (int64_t h = 0; h < view.shape[1]; ++h) {
            for (int64_t i = 0; i < view.shape[2]; ++i) {
                store_float(target.mutable_data(), target.dtype, view.offset(b, h, i),
                            sums[at_given(b, h, i)]);
            }
        }
    }
}

}  // namespace slipstick::cpu::attention
