#include "core/tensor.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <vector>

namespace slipstick {
namespace {

struct Extent {  // the bytes [low, high) that a view touches
    intptr_t low;
    intptr_t high;
};

Extent extent(const ConstTensor& tensor) {
    const intptr_t item = item_size(tensor.dtype);
    Extent bytes{reinterpret_cast<intptr_t>(tensor.data),
                 reinterpret_cast<intptr_t>(tensor.data) + item};
    for (int axis = 0; axis < tensor.rank; ++axis) {
        const intptr_t reach = tensor.strides[axis] * (tensor.shape[axis] - 1) * item;
        (reach < 0 ? bytes.low : bytes.high) += reach;
    }
    return bytes;
}

// Modulo `period`, the bytes that a view touches: an interval of length `length` from `start`.
// Length 0 says that the view's strides do not fit the period.
struct Residue {
    intptr_t start;
    intptr_t length;
};

Residue residue(const ConstTensor& tensor, intptr_t period) {
    const intptr_t item = item_size(tensor.dtype);
    intptr_t length = item;
    for (int axis = 0; axis < tensor.rank; ++axis) {
        const intptr_t stride = std::abs(tensor.strides[axis]) * item;
        if (tensor.shape[axis] > 1 && stride % period != 0)
            length += stride * (tensor.shape[axis] - 1);
    }
    if (length > period) return {0, 0};
    return {extent(tensor).low % period, length};
}

bool disjoint_modulo(const ConstTensor& a, const ConstTensor& b, intptr_t period) {
    const Residue ra = residue(a, period);
    const Residue rb = residue(b, period);
    if (ra.length == 0 || rb.length == 0) return false;
    const intptr_t a_to_b = (rb.start - ra.start + period) % period;
    return a_to_b >= ra.length && a_to_b + rb.length <= period;
}

}  // namespace

bool same_shape(const ConstTensor& a, const ConstTensor& b) {
    return a.rank == b.rank && std::equal(a.shape, a.shape + a.rank, b.shape);
}

std::string shape_text(const ConstTensor& tensor) {
    std::string text = "(";
    for (int axis = 0; axis < tensor.rank; ++axis) {
        if (axis > 0) text += ", ";
        text += std::to_string(tensor.shape[axis]);
    }
    return text + (tensor.rank == 1 ? ",)" : ")");
}

std::string describe(const ConstTensor& tensor) {
    return std::string(name(tensor.dtype)) + " of shape " + shape_text(tensor);
}

bool may_overlap(const ConstTensor& a, const ConstTensor& b) {
    if (a.size() == 0 || b.size() == 0) return false;
    const Extent ea = extent(a);
    const Extent eb = extent(b);
    if (ea.high <= eb.low || eb.high <= ea.low) return false;
    for (const ConstTensor* tensor : {&a, &b}) {
        for (int axis = 0; axis < tensor->rank; ++axis) {
            const intptr_t period = std::abs(tensor->strides[axis]) * item_size(tensor->dtype);
            if (tensor->shape[axis] > 1 && period > 0 && disjoint_modulo(a, b, period))
                return false;
        }
    }
    return true;
}

bool same_memory(const ConstTensor& a, const ConstTensor& b) {
    if (a.data != b.data || a.dtype != b.dtype || !same_shape(a, b)) return false;
    for (int axis = 0; axis < a.rank; ++axis) {
        if (a.shape[axis] > 1 && a.strides[axis] != b.strides[axis]) return false;
    }
    return true;
}

bool overlaps_itself(const ConstTensor& tensor) {
    if (tensor.size() <= 1) return false;
    // Sorted by stride, every axis must step over all that the axes inside it reach.
    std::array<std::pair<int64_t, int64_t>, kMaxRank> axes;
    size_t count = 0;
    for (int axis = 0; axis < tensor.rank; ++axis) {
        if (tensor.shape[axis] > 1)
            axes[count++] = {std::abs(tensor.strides[axis]), tensor.shape[axis]};
    }
    std::sort(axes.begin(), axes.begin() + static_cast<std::ptrdiff_t>(count));
    int64_t reach = 0;
    for (size_t i = 0; i < count; ++i) {
        if (axes[i].first <= reach) return true;
        reach += axes[i].first * (axes[i].second - 1);
    }
    return false;
}

}  // namespace slipstick
