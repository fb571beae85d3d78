#include "core/nest.hpp"

#include <algorithm>
#include <cstdlib>

namespace slipstick {

bool broadcasts_to(const ConstTensor& input, int rank, const int64_t* shape) {
    if (input.rank > rank) return false;
    for (int axis = 0; axis < input.rank; ++axis) {
        const int64_t size = shape[axis + rank - input.rank];
        if (input.shape[axis] != size && input.shape[axis] != 1) return false;
    }
    return true;
}

Nest make_nest(const Tensor& out, std::initializer_list<const ConstTensor*> inputs) {
    Nest nest;
    nest.operands = 1 + static_cast<int>(inputs.size());
    for (int axis = 0; axis < out.rank; ++axis) {
        if (out.shape[axis] == 1) continue;
        Nest::Axis& entry = nest.axes[static_cast<size_t>(nest.rank++)];
        entry = {out.shape[axis], {out.strides[axis] * item_size(out.dtype)}};
        size_t operand = 1;
        for (const ConstTensor* input : inputs) {
            const int own = axis - (out.rank - input->rank);
            const bool stretched = own < 0 || input->shape[own] == 1;
            entry.stride[operand++] = stretched ? 0 : input->strides[own] * item_size(input->dtype);
        }
    }
    const auto begin = nest.axes.begin();
    const auto steps_further = [](const Nest::Axis& a, const Nest::Axis& b) {
        return std::abs(a.stride[0]) > std::abs(b.stride[0]);
    };
    std::stable_sort(begin, begin + nest.rank, steps_further);
    int kept = 0;
    for (int axis = 1; axis < nest.rank; ++axis) {
        Nest::Axis& outer = nest.axes[static_cast<size_t>(kept)];
        const Nest::Axis& inner = nest.axes[static_cast<size_t>(axis)];
        const auto merges = [&](size_t operand) {
            return outer.stride[operand] == inner.stride[operand] * inner.size;
        };
        bool all = true;
        for (int operand = 0; operand < nest.operands; ++operand)
            all = all && merges(static_cast<size_t>(operand));
        if (all) {
            outer = {outer.size * inner.size, inner.stride};
        } else {
            nest.axes[static_cast<size_t>(++kept)] = inner;
        }
    }
    nest.rank = nest.rank == 0 ? 0 : kept + 1;
    return nest;
}

}  // namespace slipstick
