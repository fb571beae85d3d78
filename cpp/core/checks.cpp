#include "core/checks.hpp"

#include <algorithm>

#include "core/error.hpp"

namespace slipstick {

void check_dtype(const char* function, Named argument, bool offered, const char* expected) {
    if (!offered) {
        refuse_type(function, "`", argument.name, "` must be ", expected, ", got ",
                    name(argument.tensor.dtype));
    }
}

void check_same_dtype(const char* function, std::initializer_list<Named> arguments) {
    const Named& first = *arguments.begin();
    for (const Named& argument : arguments) {
        if (argument.tensor.dtype != first.tensor.dtype) {
            refuse_type(function, "`", argument.name, "` must have dtype ",
                        name(first.tensor.dtype), " like `", first.name, "`, got ",
                        name(argument.tensor.dtype));
        }
    }
}

void append_broadcast(const char* function, Named a, int a_rank, Named b, int b_rank,
                      ResultSpec& spec) {
    const int rank = std::max(a_rank, b_rank);
    for (int axis = 0; axis < rank; ++axis) {
        const int a_axis = axis - (rank - a_rank);
        const int b_axis = axis - (rank - b_rank);
        const int64_t a_size = a_axis < 0 ? 1 : a.tensor.shape[a_axis];
        const int64_t b_size = b_axis < 0 ? 1 : b.tensor.shape[b_axis];
        if (a_size != b_size && a_size != 1 && b_size != 1) {
            refuse_value(function, "`", b.name, "` must broadcast with `", a.name, "` of shape ",
                         shape_text(a.tensor), ", got shape ", shape_text(b.tensor));
        }
        spec.append(a_size == 1 ? b_size : a_size);
    }
}

void check_out(const char* function, const Tensor& out, const ResultSpec& spec,
               std::initializer_list<Named> inputs, bool in_place) {
    if (out.dtype != spec.dtype) {
        refuse_type(function, "`out` must have dtype ", name(spec.dtype), ", got ",
                    name(out.dtype));
    }
    const ConstTensor expected{nullptr, spec.dtype, spec.rank, spec.shape.data(), nullptr};
    if (!same_shape(out, expected)) {
        refuse_value(function, "`out` must have shape ", shape_text(expected), ", got ",
                     shape_text(out));
    }
    if (overlaps_itself(out)) {
        refuse_value(function, "`out` must not overlap itself, got a view of shape ",
                     shape_text(out), " that leads several indices to one element");
    }
    for (const Named& input : inputs) {
        if (in_place && same_memory(out, input.tensor)) continue;
        if (may_overlap(out, input.tensor)) {
            refuse_value(function, "`out` must not overlap `", input.name,
                         "`, got views that share memory",
                         in_place ? " without being the same view" : "");
        }
    }
}

}  // namespace slipstick
