// What every binding of a kernel does: find or make the result, check it, let go of the GIL,
// compute.
#pragma once

#include "bind/array.hpp"
#include "core/checks.hpp"
#include "core/error.hpp"

namespace slipstick::bind {

// Where a result goes: the caller's `out`, or a new array from `empty(shape, dtype_name)`, which
// belongs to the caller's framework. Shapes and dtypes are thus decided in one place, the family,
// and C++ allocates nothing.
class Result {
public:
    Result(const char* function, py::object out, const py::object& empty, const ResultSpec& spec,
           std::initializer_list<Named> inputs, bool in_place = false, const Place& place = kOnCpu)
        : object_(out.is_none() ? make(function, empty, spec) : std::move(out)),
          array_(function, "out", object_, place) {
        check_out(function, array_.writable(), spec, inputs, in_place);
    }

    Tensor tensor() const { return array_.writable(); }
    py::object object() const { return object_; }

private:
    static py::object make(const char* function, const py::object& empty, const ResultSpec& spec) {
        py::tuple shape(spec.rank);
        int64_t bytes = item_size(spec.dtype);
        bool fits = true;
        for (int axis = 0; axis < spec.rank; ++axis) {
            const int64_t size = spec.shape[static_cast<size_t>(axis)];
            shape[static_cast<size_t>(axis)] = size;
            // An empty axis makes any array small, but NumPy multiplies the others all the same.
            if (size > 0) fits &= !__builtin_mul_overflow(bytes, size, &bytes);
        }
        if (!fits) {
            refuse_value(function, "the result must have fewer than 2**63 bytes, got shape ",
                         py::repr(shape).cast<std::string>());
        }
        return empty(shape, name(spec.dtype));
    }

    py::object object_;
    Array array_;
};

// Runs `compute` without the GIL.
template <class Compute>
void without_gil(Compute compute) {
    const py::gil_scoped_release release;
    compute();
}

}  // namespace slipstick::bind
