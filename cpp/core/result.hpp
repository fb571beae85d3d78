// What the result of a call looks like: decided once, by the family, before anything is allocated.
#pragma once

#include <array>

#include "core/tensor.hpp"

namespace slipstick {

struct ResultSpec {
    Dtype dtype{};
    int rank = 0;
    std::array<int64_t, kMaxRank> shape{};

    void append(int64_t size) { shape[static_cast<size_t>(rank++)] = size; }
};

}  // namespace slipstick
