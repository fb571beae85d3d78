#include "core/broadcast.hpp"

#include <algorithm>

namespace slipstick::cpu {

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
    const Nest::Axis inner =
        nest.rank > 0 ? nest.axes[static_cast<size_t>(nest.rank - 1)] : Nest::Axis{1, {}};

    parallel_for(total, grain, [&](int64_t begin, int64_t end) {
        while (begin < end) {
            // Where element `begin` lies; strips are long, so this is not in the way.
            Strip strip{std::min(end - begin, inner.size - begin % inner.size), base, {}};
            int64_t index = begin;
            for (int axis = nest.rank - 1; axis >= 0; --axis) {
                const Nest::Axis& entry = nest.axes[static_cast<size_t>(axis)];
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
