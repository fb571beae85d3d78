// The Mitchell family's functions of _cpu.
#pragma once

#include <string>

#include "bind/call.hpp"
#include "mitchell/mitchell.hpp"

namespace slipstick::bind {

// `kind` and `mode` as Python's method objects name them; `table` is None or a square array.
inline cpu::mitchell::Method make_method(const std::string& kind, int64_t width, double bias,
                                         const std::string& mode, const py::object& table) {
    const std::string name = mode.empty() ? kind : kind + " " + mode;
    cpu::mitchell::Method method{{}, width, bias, nullptr};
    if (!cpu::mitchell::find_kind(name, method.kind)) {
        refuse_value("MitchellMethod", "`kind` and `mode` must name a method, got ", name);
    }
    if (!table.is_none()) {
        const Array array("MitchellMethod", "table", table);
        const ConstTensor& view = array.tensor();
        cpu::mitchell::Table copy{{}, view.shape[0], view.dtype == Dtype::kInt16};
        const int64_t count = view.shape[0] * view.shape[1];
        copy.entries.resize(static_cast<size_t>(count));
        for (int64_t i = 0; i < count; ++i) {
            copy.entries[static_cast<size_t>(i)] = item_size(view.dtype) == 1
                                                       ? static_cast<const uint8_t*>(view.data)[i]
                                                       : static_cast<const uint16_t*>(view.data)[i];
        }
        method.table = std::make_shared<const cpu::mitchell::Table>(std::move(copy));
    }
    return method;
}

// Which of the kernels that agree bit for bit is asked for: the tests go through them all.
inline cpu::mitchell::Path path_of(const std::string& name) {
    using cpu::mitchell::Path;
    if (name == "sums") return Path::kSums;
    if (name == "flushed") return Path::kFlushed;
    return name == "general" ? Path::kGeneral : Path::kAuto;
}

// A function of one floating-point operand.
inline void bind_function(py::module_& module, const char* name,
                          ResultSpec (*result_of)(const ConstTensor&),
                          void (*compute)(const ConstTensor&, const Tensor&)) {
    module.def(
        name,
        [=](py::object a, py::object out, py::object empty) {
            const Array operand(name, "a", a);
            const Result result(name, out, empty, result_of(operand.tensor()),
                                {{"a", operand.tensor()}}, true);
            without_gil([&] { compute(operand.tensor(), result.tensor()); });
            return result.object();
        },
        py::arg("a"), py::arg("out"), py::arg("empty"));
}

inline void bind_mitchell(py::module_& module) {
    namespace mitchell = cpu::mitchell;

    py::class_<mitchell::Method>(module, "MitchellMethod")
        .def(py::init(&make_method), py::arg("kind"), py::arg("width") = 0, py::arg("bias") = 0.0,
             py::arg("mode") = "", py::arg("table") = py::none());

    module.def(
        "multiply",
        [](py::object a, py::object b, const mitchell::Method& method, py::object out,
           py::object empty) {
            const Array left("multiply", "a", a);
            const Array right("multiply", "b", b);
            const Result result("multiply", out, empty,
                                mitchell::result_of_multiply(left.tensor(), right.tensor(), method),
                                {{"a", left.tensor()}, {"b", right.tensor()}}, true);
            without_gil([&] {
                mitchell::multiply(left.tensor(), right.tensor(), method, result.tensor());
            });
            return result.object();
        },
        py::arg("a"), py::arg("b"), py::arg("method"), py::arg("out"), py::arg("empty"));

    module.def(
        "divide",
        [](py::object a, py::object b, const mitchell::Method& method, py::object out,
           py::object empty) {
            const Array left("divide", "a", a);
            const Array right("divide", "b", b);
            const Result result("divide", out, empty,
                                mitchell::result_of_divide(left.tensor(), right.tensor()),
                                {{"a", left.tensor()}, {"b", right.tensor()}}, true);
            without_gil(
                [&] { mitchell::divide(left.tensor(), right.tensor(), method, result.tensor()); });
            return result.object();
        },
        py::arg("a"), py::arg("b"), py::arg("method"), py::arg("out"), py::arg("empty"));

    module.def(
        "reciprocal",
        [](py::object a, const mitchell::Method& method, py::object out, py::object empty) {
            const Array operand("reciprocal", "a", a);
            const Result result("reciprocal", out, empty,
                                mitchell::result_of_reciprocal(operand.tensor()),
                                {{"a", operand.tensor()}}, true);
            without_gil(
                [&] { mitchell::reciprocal(operand.tensor(), method, result.tensor()); });
            return result.object();
        },
        py::arg("a"), py::arg("method"), py::arg("out"), py::arg("empty"));

    bind_function(module, "sqrt", &mitchell::result_of_sqrt, &mitchell::sqrt);
    bind_function(module, "log2", &mitchell::result_of_log2, &mitchell::log2);
    bind_function(module, "exp2", &mitchell::result_of_exp2, &mitchell::exp2);

    module.def(
        "power",
        [](py::object a, py::object p, py::object out, py::object empty) {
            const Array base("power", "a", a);
            if (PyFloat_Check(p.ptr()) || PyLong_Check(p.ptr())) {
                const auto number = p.cast<double>();
                const Result result("power", out, empty,
                                    mitchell::result_of_power(base.tensor(), number),
                                    {{"a", base.tensor()}}, true);
                without_gil([&] { mitchell::power(base.tensor(), number, result.tensor()); });
                return result.object();
            }
            const Array exponent("power", "p", p);
            const Result result("power", out, empty,
                                mitchell::result_of_power(base.tensor(), exponent.tensor()),
                                {{"a", base.tensor()}, {"p", exponent.tensor()}}, true);
            without_gil(
                [&] { mitchell::power(base.tensor(), exponent.tensor(), result.tensor()); });
            return result.object();
        },
        py::arg("a"), py::arg("p"), py::arg("out"), py::arg("empty"));

    module.def(
        "matmul",
        [](py::object a, py::object b, const mitchell::Method& method, double multiplier,
           py::object out, py::object empty, const std::string& path) {
            const Array left("matmul", "a", a);
            const Array right("matmul", "b", b);
            const Result result("matmul", out, empty,
                                mitchell::result_of_matmul(left.tensor(), right.tensor(), method),
                                {{"a", left.tensor()}, {"b", right.tensor()}});
            without_gil([&] {
                mitchell::matmul(left.tensor(), right.tensor(), method, multiplier,
                                 result.tensor(), path_of(path));
            });
            return result.object();
        },
        py::arg("a"), py::arg("b"), py::arg("method"), py::arg("multiplier"), py::arg("out"),
        py::arg("empty"), py::arg("path") = "auto");
}

}  // namespace slipstick::bind
