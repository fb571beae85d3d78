// A view of somebody's array: pointer, shape, strides, dtype. Const or writable by type; owns
// nothing.
#pragma once

#include <cstdint>
#include <string>

#include "core/dtype.hpp"

namespace slipstick {

inline constexpr int kMaxRank = 64;  // NumPy's own limit

// Strides count elements, not bytes, and may be zero or negative.
struct ConstTensor {
    const void* data;
    Dtype dtype;
    int rank;
    const int64_t* shape;
    const int64_t* strides;

    int64_t size() const {
        int64_t product = 1;
        for (int axis = 0; axis < rank; ++axis) product *= shape[axis];
        return product;
    }
    template <class T>
    const T* as() const {
        return static_cast<const T*>(data);
    }
};

struct Tensor : ConstTensor {
    void* mutable_data() const { return const_cast<void*>(data); }
    template <class T>
    T* as() const {
        return static_cast<T*>(mutable_data());
    }
};

bool same_shape(const ConstTensor& a, const ConstTensor& b);

// "(2, 8, 128)", as Python prints it.
std::string shape_text(const ConstTensor& tensor);

// "float32 of shape (2, 8, 128)".
std::string describe(const ConstTensor& tensor);

// Whether the two views can share a byte. Exact for views that interleave along some axis of one
// buffer (every other column, the thirds of a packed query-key-value array); otherwise errs towards
// true.
bool may_overlap(const ConstTensor& a, const ConstTensor& b);

// The same memory, element for element: what an elementwise function may write in place.
bool same_memory(const ConstTensor& a, const ConstTensor& b);

// Whether two different indices of the view lead to one element (a broadcast view, for example);
// such a view cannot be written to.
bool overlaps_itself(const ConstTensor& tensor);

}  // namespace slipstick
