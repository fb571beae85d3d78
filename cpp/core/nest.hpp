// The axes of a loop over strided, broadcast operands, as few as there can be: what the CPU's
// strips and the GPU's threads walk through.
#pragma once

#include <array>
#include <initializer_list>

#include "core/tensor.hpp"

namespace slipstick {

inline constexpr int kMaxOperands = 3;

// Operand 0 is the result.
struct Nest {
    struct Axis {
        int64_t size;
        std::array<int64_t, kMaxOperands> stride;  // in bytes
    };
    int operands = 0;
    int rank = 0;
    std::array<Axis, kMaxRank> axes;  // the last one runs fastest
};

// NumPy's rule: shapes are aligned at their last axes, and an axis of length 1 stretches.
bool broadcasts_to(const ConstTensor& input, int rank, const int64_t* shape);

// Axes of length 1 dropped, sorted so that the result's steps shrink inwards, and neighbours merged
// where every operand steps over both as over one. Every input must broadcast to out's shape.
Nest make_nest(const Tensor& out, std::initializer_list<const ConstTensor*> inputs);

}  // namespace slipstick
