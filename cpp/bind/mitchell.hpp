// The Mitchell family's functions of _cpu.
#pragma once

#include <string>
#include <unordered_map>

#include "bind/call.hpp"
#include "mitchell/mitchell.hpp"

namespace slipstick::bind {

// `kind` and `mode` as Python's method objects name them; `table` is None or a square array.
inline cpu::mitchell::Method make_method(const std::string& kind, int64_t width, double bias,
                                         const std::string& mode, const py::object& table) {
    using cpu::mitchell::Kind;
    static const std::unordered_map<std::string, Kind> kinds = {
        {"mitchell", Kind::kMitchell},
        {"mitchell raw", Kind::kRaw},
        {"mitchell kosson-jaggi", Kind::kKossonJaggi},
        {"lmul", Kind::kLMul},
        {"lmul-formula", Kind::kLMulFormula},
        {"mbm", Kind::kMbm},
        {"realm", Kind::kRealm},
        {"ilm", Kind::kIlm},
        {"mitch-w", Kind::kMitchW},
        {"drum", Kind::kDrum},
        {"alm-soa", Kind::kAlmSoa},
        {"operand-decomposition", Kind::kOperandDecomposition},
        {"table", Kind::kTable},
    };
    cpu::mitchell::Method method{kinds.at(mode.empty() ? kind : kind + " " + mode), width, bias,
                                 nullptr};
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
                                mitchell::result_of_multiply(left.tensor(), right.tensor()),
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
        "matmul",
        [](py::object a, py::object b, const mitchell::Method& method, double multiplier,
           py::object out, py::object empty) {
            const Array left("matmul", "a", a);
            const Array right("matmul", "b", b);
            const Result result("matmul", out, empty,
                                mitchell::result_of_matmul(left.tensor(), right.tensor(), method),
                                {{"a", left.tensor()}, {"b", right.tensor()}});
            without_gil([&] {
                mitchell::matmul(left.tensor(), right.tensor(), method, multiplier,
                                 result.tensor());
            });
            return result.object();
        },
        py::arg("a"), py::arg("b"), py::arg("method"), py::arg("multiplier"), py::arg("out"),
        py::arg("empty"));
}

}  // namespace slipstick::bind
