// A tensor with a fixed number of axes, broadcast to a given shape.
#pragma once

#include <array>

#include "core/tensor.hpp"

namespace slipstick::attention {

// Axes that the tensor lacks, and axes of length 1, have stride 0: an index of the shape that the
// tensor broadcasts to leads to its element.
template <int axes>
struct View {
    const char* data;
    Dtype dtype;
    std::array<int64_t, axes> shape;
    std::array<int64_t, axes> strides;

    explicit View(const ConstTensor& tensor)
        : data(tensor.as<char>()), dtype(tensor.dtype), shape{}, strides{} {
        for (int axis = 0; axis < axes; ++axis) {
            const int own = axis - (axes - tensor.rank);
            const auto at = static_cast<size_t>(axis);
            shape[at] = own < 0 ? 1 : tensor.shape[own];
            strides[at] = shape[at] == 1 ? 0 : tensor.strides[own];
        }
    }

    template <class... Index>
    int64_t offset(Index... index) const {
        static_assert(sizeof...(index) == axes);
        size_t axis = 0;
        int64_t sum = 0;
        ((sum += index * strides[axis++]), ...);
        return sum;
    }
    template <class T, class... Index>
    T* at(Index... index) const {
        return reinterpret_cast<T*>(const_cast<char*>(data)) + offset(index...);
    }
    template <class... Index>
    void* address(Index... index) const {
        return const_cast<char*>(data) + offset(index...) * item_size(dtype);
    }
};

}  // namespace slipstick::attention
