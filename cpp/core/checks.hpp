// The checks that several functions make of their arguments.
#pragma once

#include <initializer_list>
#include <utility>

#include "core/result.hpp"
#include "core/tensor.hpp"

namespace slipstick {

struct Named {
    const char* name;
    const ConstTensor& tensor;
};

// `argument` must be one of the dtypes that the function offers.
void check_dtype(const char* function, Named argument, bool offered, const char* expected);

// All arguments share the first one's dtype.
void check_same_dtype(const char* function, std::initializer_list<Named> arguments);

// The common shape of two operands under NumPy's broadcasting rule, appended to `spec`.
void append_broadcast(const char* function, Named a, int a_rank, Named b, int b_rank,
                      ResultSpec& spec);

// `out` is as `spec` says, does not lead twice to one element, and shares no memory with an input;
// in_place allows an input that is exactly `out`.
void check_out(const char* function, const Tensor& out, const ResultSpec& spec,
               std::initializer_list<Named> inputs, bool in_place);

}  // namespace slipstick
