// What is known of the numbers in an operand, and which kernel follows from it, found out and kept
// on the device: nobody waits, and a graph that was captured chooses anew whenever it runs.
#pragma once

#include "core/launch.cuh"
#include "core/tensor.hpp"
#include "mitchell/plan_rules.hpp"

namespace slipstick::cuda::mitchell {

using slipstick::mitchell::Choice;
using slipstick::mitchell::Kernel;
using slipstick::mitchell::Magnitudes;
using slipstick::mitchell::Product;

struct Range;

// The arrays that a tensor's first `batch_axes` axes number, each with a range of its own.
struct Arrays {
    ConstTensor tensor;
    int batch_axes = 0;
    bool padded = false;           // zeros stand beside what the tensor holds
    const Range* known = nullptr;  // from ranges_of, where they have been found already
};

// What a scan has seen, so that zeros are where it starts and greater is further.
struct Range {
    uint32_t not_lowest;  // the complement of the lowest magnitude
    uint32_t highest;
    uint32_t zeros;

    SLIPSTICK_HD Magnitudes magnitudes() const { return {~not_lowest, highest, zeros != 0}; }
};

// The ranges of float32, float16 or bfloat16 arrays, in the order of their axes, in scratch memory.
const Range* ranges_of(const Context& context, const char* function, const Arrays& arrays);

// The choices of a batch of products: that of product i is first[i * step].
struct Choices {
    const Choice* first;
    int64_t step;
};

// For every product of a batch, in the order of its axes, over which the arrays of `a` and `b` are
// broadcast. A path that a range does not allow is passed over.
Choices choose_kernels(const Context& context, const char* function, const Product& product,
                       const Arrays& a, const Arrays& b, int batch_axes,
                       const int64_t* batch_shape);

}  // namespace slipstick::cuda::mitchell
