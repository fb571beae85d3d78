// lambda of a row, from the parameters of its head.
#pragma once

#include "attention/attention.hpp"

namespace slipstick::cpu::attention {

// In float64, for every law but kGiven; the caller rounds it once.
inline double factor(const Scale& scale, int64_t head, int64_t n) {
    const auto* p = scale.values.as<double>() +
                    (scale.values.shape[0] == 1 ? 0 : head * scale.values.strides[0]);
    return slipstick::attention::factor(scale.law, p, n);
}

}  // namespace slipstick::cpu::attention
