// The sizes of a call.
#pragma once

#include <algorithm>

#include "attention/results.hpp"

namespace slipstick::attention {

struct Shape {  // `queries` and `keys` are the longest sequence's
    int64_t batch;
    int64_t heads;
    int64_t kv_heads;
    int64_t queries;
    int64_t keys;
    int64_t dim;
    int64_t dim_v;

    int64_t group() const { return kv_heads == 0 ? 1 : heads / kv_heads; }
    // Rows of scores are counted within a key head, in the order of their queries with the heads of
    // the group side by side: neighbours then see nearly the same keys, and few queries still fill
    // the lanes.
    int64_t head_of(int64_t kv_head, int64_t row) const {
        return kv_head * group() + row % group();
    }
    int64_t query_of(int64_t row) const { return row / group(); }
};

// The sizes of inputs that result_of_attention has accepted.
Shape shape_of(const Inputs& inputs);
// Of packed inputs, as if they were one sequence.
Shape packed_shape_of(const Inputs& inputs);

// No window reaches further than all keys and queries together; so no sum overflows.
inline Window window_of(const Options& options, const Shape& shape) {
    const int64_t furthest = shape.keys + shape.queries;
    return {options.causal, std::min(options.left, furthest), std::min(options.right, furthest)};
}

}  // namespace slipstick::attention
