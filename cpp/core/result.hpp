// What the result of a call looks like: decided once, by the family, before anything is allocated.
#pragma once

#include <array>
#include <cstddef>

#include "core/tensor.hpp"

namespace slipstick {

struct ResultSpec {
    Dtype dtype{};
    int rank = 0;
    std::array<int64_t, kMaxRank> shape{};

    // How many elements it has: for the caller, who makes the memory.
    size_t size() const {
        size_t product = 1;
        for (size_t axis = 0; axis < static_cast<size_t>(rank); ++axis)
            product *= static_cast<size_t>(shape[axis]);
        return product;
    }

    void append(int64_t size) { shape[static_cast<size_t>(rank++)] = size; }
};

}  // namespace slipstick
