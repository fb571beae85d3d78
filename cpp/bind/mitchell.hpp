// The Mitchell family's functions, for a device's module. A Backend (CpuBackend, CudaBackend) lives
// as long as a call; it says where the call's arrays lie, and computes.
#pragma once

#include <pybind11/stl.h>

#include <string>

#include "bind/call.hpp"
#include "mitchell/results.hpp"

namespace slipstick::bind {

// `kind` and `mode` as Python's method objects name them; `table` is None or a square array.
inline mitchell::Method make_method(const std::string& kind, int64_t width, double bias,
                                    const std::string& mode, const py::object& table) {
    const std::string name = mode.empty() ? kind : kind + " " + mode;
    mitchell::Method method{{}, width, bias, nullptr};
    if (!mitchell::find_kind(name, method.kind)) {
        refuse_value("MitchellMethod", "`kind` and `mode` must name a method, got ", name);
    }
    if (!table.is_none()) {
        const Array array("MitchellMethod", "table", table);
        const ConstTensor& view = array.tensor();
        mitchell::Table copy{{}, view.shape[0], view.dtype == Dtype::kInt16};
        const int64_t count = view.shape[0] * view.shape[1];
        copy.entries.resize(static_cast<size_t>(count));
        for (int64_t i = 0; i < count; ++i) {
            copy.entries[static_cast<size_t>(i)] = item_size(view.dtype) == 1
                                                       ? static_cast<const uint8_t*>(view.data)[i]
                                                       : static_cast<const uint16_t*>(view.data)[i];
        }
        method.table = std::make_shared<const mitchell::Table>(std::move(copy));
    }
    return method;
}

// Which of the kernels that agree bit for bit is asked for: the tests go through them all. "exact"
// is for benchmarks of `matmul`; 32-bit integers would be rounded to float64.
inline mitchell::Path path_of(const std::string& name) {
    using mitchell::Path;
    if (name == "sums") return Path::kSums;
    if (name == "flushed") return Path::kFlushed;
    if (name == "exact") return Path::kExact;
    if (name == "general") return Path::kGeneral;
    if (name != "auto") {
        refuse_value("path_of", "`path` must be auto, sums, flushed, general or exact, got ", name);
    }
    return Path::kAuto;
}

// A function of one floating-point operand.
template <class Backend>
void bind_function(py::module_& module, const char* name,
                   ResultSpec (*result_of)(const ConstTensor&),
                   void (Backend::*compute)(const ConstTensor&, const Tensor&) const) {
    module.def(
        name,
        [=](py::object a, py::object out, py::object empty) {
            const Backend backend(name, "a", empty);
            const Array operand(name, "a", a, backend.place());
            const Result result(name, out, empty, result_of(operand.tensor()),
                                {{"a", operand.tensor()}}, true, backend.place());
            without_gil([&] { (backend.*compute)(operand.tensor(), result.tensor()); });
            return result.object();
        },
        py::arg("a"), py::arg("out"), py::arg("empty"));
}

inline mitchell::ConvForm form_of(const std::string& name) {
    using mitchell::ConvForm;
    if (name == "matrices") return ConvForm::kMatrices;
    return name == "lines" ? ConvForm::kLines : ConvForm::kAuto;
}

inline mitchell::Gradient gradient_of(const std::string& name) {
    using mitchell::Gradient;
    if (name == "mimic") return Gradient::kMimic;
    return name == "exact" ? Gradient::kExact : Gradient::kStraightThrough;
}

inline mitchell::Derivative::Kind derivative_kind_of(const std::string& name) {
    using Kind = mitchell::Derivative::Kind;
    if (name == "leading") return Kind::kLeading;
    return name == "remainder" ? Kind::kRemainder : Kind::kCarry;
}

template <class Backend>
void bind_mitchell(py::module_& module) {
    using Method = typename Backend::Method;

    py::class_<Method>(module, "MitchellMethod", py::module_local())
        .def(py::init([](const std::string& kind, int64_t width, double bias,
                         const std::string& mode, const py::object& table) {
                 return Method(make_method(kind, width, bias, mode, table));
             }),
             py::arg("kind"), py::arg("width") = 0, py::arg("bias") = 0.0, py::arg("mode") = "",
             py::arg("table") = py::none());

    module.def(
        "multiply",
        [](py::object a, py::object b, const Method& method, py::object out, py::object empty) {
            const Backend backend("multiply", "a", empty);
            const Array left("multiply", "a", a, backend.place());
            const Array right("multiply", "b", b, backend.place());
            const Result result("multiply", out, empty,
                                mitchell::result_of_multiply(left.tensor(), right.tensor(),
                                                             Backend::description(method)),
                                {{"a", left.tensor()}, {"b", right.tensor()}}, true,
                                backend.place());
            without_gil(
                [&] { backend.multiply(left.tensor(), right.tensor(), method, result.tensor()); });
            return result.object();
        },
        py::arg("a"), py::arg("b"), py::arg("method"), py::arg("out"), py::arg("empty"));

    module.def(
        "square",
        [](py::object a, const Method& method, py::object out, py::object empty) {
            const Backend backend("square", "a", empty);
            const Array operand("square", "a", a, backend.place());
            const ConstTensor& view = operand.tensor();
            const Result result("square", out, empty,
                                mitchell::result_of_square(view, Backend::description(method)),
                                {{"a", view}}, true, backend.place());
            without_gil([&] { backend.multiply(view, view, method, result.tensor()); });
            return result.object();
        },
        py::arg("a"), py::arg("method"), py::arg("out"), py::arg("empty"));

    module.def(
        "divide",
        [](py::object a, py::object b, const Method& method, py::object out, py::object empty) {
            const Backend backend("divide", "a", empty);
            const Array left("divide", "a", a, backend.place());
            const Array right("divide", "b", b, backend.place());
            const Result result(
                "divide", out, empty, mitchell::result_of_divide(left.tensor(), right.tensor()),
                {{"a", left.tensor()}, {"b", right.tensor()}}, true, backend.place());
            without_gil(
                [&] { backend.divide(left.tensor(), right.tensor(), method, result.tensor()); });
            return result.object();
        },
        py::arg("a"), py::arg("b"), py::arg("method"), py::arg("out"), py::arg("empty"));

    module.def(
        "reciprocal",
        [](py::object a, const Method& method, py::object out, py::object empty) {
            const Backend backend("reciprocal", "a", empty);
            const Array operand("reciprocal", "a", a, backend.place());
            const Result result("reciprocal", out, empty,
                                mitchell::result_of_reciprocal(operand.tensor()),
                                {{"a", operand.tensor()}}, true, backend.place());
            without_gil([&] { backend.reciprocal(operand.tensor(), method, result.tensor()); });
            return result.object();
        },
        py::arg("a"), py::arg("method"), py::arg("out"), py::arg("empty"));

    bind_function<Backend>(module, "sqrt", &mitchell::result_of_sqrt, &Backend::sqrt);
    bind_function<Backend>(module, "log2", &mitchell::result_of_log2, &Backend::log2);
    bind_function<Backend>(module, "exp2", &mitchell::result_of_exp2, &Backend::exp2);

    module.def(
        "power",
        [](py::object a, py::object p, py::object out, py::object empty) {
            const Backend backend("power", "a", empty);
            const Array base("power", "a", a, backend.place());
            if (PyFloat_Check(p.ptr()) || PyLong_Check(p.ptr())) {
                const auto number = p.cast<double>();
                const Result result("power", out, empty,
                                    mitchell::result_of_power(base.tensor(), number),
                                    {{"a", base.tensor()}}, true, backend.place());
                without_gil([&] { backend.power(base.tensor(), number, result.tensor()); });
                return result.object();
            }
            const Array exponent("power", "p", p, backend.place());
            const Result result(
                "power", out, empty, mitchell::result_of_power(base.tensor(), exponent.tensor()),
                {{"a", base.tensor()}, {"p", exponent.tensor()}}, true, backend.place());
            without_gil([&] { backend.power(base.tensor(), exponent.tensor(), result.tensor()); });
            return result.object();
        },
        py::arg("a"), py::arg("p"), py::arg("out"), py::arg("empty"));

    module.def(
        "matmul",
        [](py::object a, py::object b, const Method& method, double multiplier, py::object out,
           py::object empty, const std::string& path) {
            const Backend backend("matmul", "a", empty);
            const Array left("matmul", "a", a, backend.place());
            const Array right("matmul", "b", b, backend.place());
            const Result result("matmul", out, empty,
                                backend.result_of_matmul(left.tensor(), right.tensor(), method),
                                {{"a", left.tensor()}, {"b", right.tensor()}}, false,
                                backend.place());
            without_gil([&] {
                backend.matmul(left.tensor(), right.tensor(), method, multiplier, result.tensor(),
                               path_of(path));
            });
            return result.object();
        },
        py::arg("a"), py::arg("b"), py::arg("method"), py::arg("multiplier"), py::arg("out"),
        py::arg("empty"), py::arg("path") = "auto");

    module.def(
        "conv2d",
        [](py::object x, py::object weight, std::array<int64_t, 2> stride,
           std::array<int64_t, 2> padding, bool same_padding, std::array<int64_t, 2> dilation,
           int64_t groups, const Method& method, py::object out, py::object empty,
           const std::string& form, const std::string& path) {
            const Backend backend("conv2d", "x", empty);
            const Array images("conv2d", "x", x, backend.place());
            const Array weights("conv2d", "weight", weight, backend.place());
            const mitchell::ConvOptions options{stride, padding,       same_padding, dilation,
                                                groups, form_of(form), path_of(path)};
            const Result result(
                "conv2d", out, empty,
                backend.result_of_conv2d(images.tensor(), weights.tensor(), options, method),
                {{"x", images.tensor()}, {"weight", weights.tensor()}}, false, backend.place());
            without_gil([&] {
                backend.conv2d(images.tensor(), weights.tensor(), options, method, result.tensor());
            });
            return result.object();
        },
        py::arg("x"), py::arg("weight"), py::arg("stride"), py::arg("padding"),
        py::arg("same_padding"), py::arg("dilation"), py::arg("groups"), py::arg("method"),
        py::arg("out"), py::arg("empty"), py::arg("form") = "auto", py::arg("path") = "auto");

    module.def(
        "matmul_backward",
        [](py::object grad, py::object a, py::object b, const Method& method,
           const std::string& gradient, const std::string& derivative, double offset, int64_t terms,
           py::object empty) {
            const Backend backend("matmul_backward", "grad", empty);
            const Array upstream("matmul_backward", "grad", grad, backend.place());
            const Array left("matmul_backward", "a", a, backend.place());
            const Array right("matmul_backward", "b", b, backend.place());
            backend.check_matmul_backward(upstream.tensor(), left.tensor(), right.tensor(), method);
            const auto like = [&](const Array& operand) {
                const ConstTensor& tensor = operand.tensor();
                ResultSpec spec{tensor.dtype};
                for (int axis = 0; axis < tensor.rank; ++axis) spec.append(tensor.shape[axis]);
                return Result("matmul_backward", py::none(), empty, spec, {}, false,
                              backend.place());
            };
            const Result grad_a = like(left);
            const Result grad_b = like(right);
            without_gil([&] {
                backend.matmul_backward(upstream.tensor(), left.tensor(), right.tensor(), method,
                                        gradient_of(gradient),
                                        {derivative_kind_of(derivative), offset, terms},
                                        grad_a.tensor(), grad_b.tensor());
            });
            return py::make_tuple(grad_a.object(), grad_b.object());
        },
        py::arg("grad"), py::arg("a"), py::arg("b"), py::arg("method"), py::arg("gradient"),
        py::arg("derivative"), py::arg("offset"), py::arg("terms"), py::arg("empty"));
}

}  // namespace slipstick::bind
