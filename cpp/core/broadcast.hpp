// The loop of an elementwise function over strided, broadcast operands: axes are merged and sorted,
// the elements split over the threads, and a kernel sees one strip after another.
#pragma once

#include <array>

#include "core/nest.hpp"
#include "core/threads.hpp"

namespace slipstick::cpu {

// A run of `count` elements; operand 0 is the result. Strides count elements.
struct Strip {
    int64_t count;
    std::array<const void*, kMaxOperands> data;
    std::array<int64_t, kMaxOperands> stride;

    void* target() const { return const_cast<void*>(data[0]); }
};

// Calls kernel(strip) for strips that cover `out` once. Every input must broadcast to out's shape.
// `grain` is the number of elements that are worth a thread.
void for_each_strip(const Tensor& out, std::initializer_list<const ConstTensor*> inputs,
                    int64_t grain, FunctionRef<void(const Strip&)> kernel);

}  // namespace slipstick::cpu
