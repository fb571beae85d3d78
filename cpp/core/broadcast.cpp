#include "core/broadcast.hpp"

#include <algorithm>
#include <cstdlib>

namespace slipstick::cpu {
namespace {

struct Axis {
    int64_t size;
    std::array<int64_t, kMaxOperands> stride;  // in bytes
};

struct Nest {
    int operands = 0;
    int rank = 0;
    std::array<Axis, kMaxRank> axes;  // the last one runs fastest
};

// Axes of length 1 dropped, sorted so that out's steps shrink inwards, and neighbours merged where
// every operand steps over both as over one.
Nest make_nest(const Tensor& out, std::initializer_list<const ConstTensor*> inputs) {
    Nest nest;
    nest.operands = 1 + static_cast<int>(inputs.size());
    for (int axis = 0; axis < out.rank; ++axis) {
        if (out.shape[axis] == 1) continue;
        Axis& entry = nest.axes[static_cast<size_t>(nest.rank++)];
        entry = {out.shape[axis], {out.strides[axis] * item_size(out.dtype)}};
        size_t operand = 1;
        for (const ConstTensor* input : inputs) {
            const int own = axis - (out.rank - input->rank);
            const bool stretched = own < 0 || input->shape[own] == 1;
            entry.stride[operand++] = stretched ? 0 : input->strides[own] * item_size(input->dtype);
        }
    }
    const auto begin = nest.axes.begin();
    const auto steps_further = [](const Axis& a, const Axis& b) {
        return std::abs(a.stride[0]) > std::abs(b.stride[0]);
    };
    std::stable_sort(begin, begin + nest.rank, steps_further);
    int kept = 0;
    for (int axis = 1; axis < nest.rank; ++axis) {
        Axis& outer = nest.axes[static_cast<size_t>(kept)];
        const Axis& inner = nest.axes[static_cast<size_t>(axis)];
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

}  // namespace

bool broadcasts_to(const ConstTensor& input, int rank, const int64_t* shape) {
    if (input.rank > rank) return false;
    for (int axis = 0; axis < input.rank; ++axis) {
        const int64_t size = shape[axis + rank - input.rank];
        if (input.shape[axis] != size && input.shape[axis] != 1) return false;
    }
    return true;
}

void for_each_strip(const Tensor& out, std::initializer_list<const ConstTensor*> inputs,
                    int64_t grain, FunctionRef<void(const Strip&)> kernel) {
    const int64_t total = out.size();
    if (total == 0) return;
    const Nest nest = make_nest(out, inputs);
    std::array<const void*, kMaxOperands> base{out.data};
    std::array<int64_t, kMaxOperands> item{item_size(out.dtype)};
    size_t next = 1;
    for (const ConstTensor* input : inputs) {
        base[next] = input->data;
        item[next++] = item_size(input->dtype);
    }
    const Axis inner = nest.rank > 0 ? nest.axes[static_cast<size_t>(nest.rank - 1)] : Axis{1, {}};

    parallel_for(total, grain, [&](int64_t begin, int64_t end) {
        while (begin < end) {
            // Where element `begin` lies; strips are long, so this is not in the way.
            Strip strip{std::min(end - begin, inner.size - begin % inner.size), base, {}};
            int64_t index = begin;
            for (int axis = nest.rank - 1; axis >= 0; --axis) {
                const Axis& entry = nest.axes[static_cast<size_t>(axis)];
                const int64_t position = index % entry.size;
                index /= entry.size;
                for (size_t operand = 0; operand < static_cast<size_t>(nest.operands); ++operand) {
                    strip.data[operand] = static_cast<const char*>(strip.data[operand]) +
                                          position * entry.stride[operand];
                }
            }
            for (size_t operand = 0; operand < static_cast<size_t>(nest.operands); ++operand) {
                strip.stride[operand] = inner.stride[operand] / item[operand];
            }
            kernel(strip);
            begin += strip.count;
        }
    });
}

}  // namespace slipstick::cpu
