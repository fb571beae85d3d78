// The Mitchell family's functions of _cpu.
#pragma once

#include "bind/call.hpp"
#include "mitchell/mitchell.hpp"

namespace slipstick::bind {

inline void bind_mitchell(py::module_& module) {
    namespace mitchell = cpu::mitchell;

    module.def(
        "multiply",
        [](py::object a, py::object b, double bias, py::object out, py::object empty) {
            const Array left("multiply", "a", a);
            const Array right("multiply", "b", b);
            const Result result("multiply", out, empty,
                                mitchell::result_of_multiply(left.tensor(), right.tensor()),
                                {{"a", left.tensor()}, {"b", right.tensor()}}, true);
            without_gil([&] {
                mitchell::multiply(left.tensor(), right.tensor(), {bias}, result.tensor());
            });
            return result.object();
        },
        py::arg("a"), py::arg("b"), py::arg("bias"), py::arg("out"), py::arg("empty"));

    module.def(
        "divide",
        [](py::object a, py::object b, double bias, py::object out, py::object empty) {
            const Array left("divide", "a", a);
            const Array right("divide", "b", b);
            const Result result("divide", out, empty,
                                mitchell::result_of_divide(left.tensor(), right.tensor()),
                                {{"a", left.tensor()}, {"b", right.tensor()}}, true);
            without_gil(
                [&] { mitchell::divide(left.tensor(), right.tensor(), {bias}, result.tensor()); });
            return result.object();
        },
        py::arg("a"), py::arg("b"), py::arg("bias"), py::arg("out"), py::arg("empty"));

    module.def(
        "matmul",
        [](py::object a, py::object b, double bias, double multiplier, py::object out,
           py::object empty) {
            const Array left("matmul", "a", a);
            const Array right("matmul", "b", b);
            const mitchell::Method method{bias};
            const Result result("matmul", out, empty,
                                mitchell::result_of_matmul(left.tensor(), right.tensor(), method),
                                {{"a", left.tensor()}, {"b", right.tensor()}});
            without_gil([&] {
                mitchell::matmul(left.tensor(), right.tensor(), method, multiplier,
                                 result.tensor());
            });
            return result.object();
        },
        py::arg("a"), py::arg("b"), py::arg("bias"), py::arg("multiplier"), py::arg("out"),
        py::arg("empty"));
}

}  // namespace slipstick::bind
