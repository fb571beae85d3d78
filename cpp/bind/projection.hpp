// The projection family's functions, for a device's module; Backend as in mitchell.hpp.
#pragma once

#include <tuple>

#include "bind/call.hpp"
#include "projection/csr_matrix.hpp"
#include "projection/law.hpp"
#include "projection/results.hpp"

namespace slipstick::bind {

// The Law of python/slipstick/projection/_law.py, a tuple.
using LawFields = std::tuple<std::string_view, uint64_t, uint32_t, double, int64_t, int64_t>;
inline projection::Law law_from(const char* function, const LawFields& fields) {
    const auto& [kind, seed, threshold, scale, nonzeros, components] = fields;
    return {projection::kind_of(function, kind), seed, threshold, scale, nonzeros, components};
}

// Products with a dense array.
template <class Backend>
void bind_products(py::module_& module) {
    // `fast` allows other bits than those of every other device, inside the same error bounds.
    module.def(
        "project",
        [](py::object x, int64_t n_components, const LawFields& fields, uint64_t first_feature,
           bool fast, py::object out, py::object empty) {
            const Backend backend("project", "x", empty);
            const Array input("project", "x", x, backend.place());
            const projection::Law law = law_from("project", fields);
            const Result result(
                "project", out, empty,
                projection::result_of_project(input.tensor(), n_components, first_feature),
                {{"x", input.tensor()}}, false, backend.place());
            without_gil([&] {
                backend.project(input.tensor(), law, first_feature, fast, result.tensor());
            });
            return result.object();
        },
        py::arg("x"), py::arg("n_components"), py::arg("law"), py::arg("first_feature"),
        py::arg("fast"), py::arg("out"), py::arg("empty"));

    module.def(
        "back_project",
        [](py::object y, int64_t n_features, const LawFields& fields, uint64_t first_feature,
           py::object out, py::object empty) {
            const Backend backend("back_project", "y", empty);
            const Array input("back_project", "y", y, backend.place());
            const projection::Law law = law_from("back_project", fields);
            const Result result(
                "back_project", out, empty,
                projection::result_of_back_project(input.tensor(), n_features, first_feature),
                {{"y", input.tensor()}}, false, backend.place());
            without_gil(
                [&] { backend.back_project(input.tensor(), law, first_feature, result.tensor()); });
            return result.object();
        },
        py::arg("y"), py::arg("n_features"), py::arg("law"), py::arg("first_feature"),
        py::arg("out"), py::arg("empty"));
}

// Products with a sparse array in compressed rows.
template <class Backend>
void bind_sparse_products(py::module_& module) {
    // None where the columns of a row do not increase, if that can be seen.
    module.def(
        "project_csr",
        [](py::object data, py::object indices, py::object indptr, int64_t rows, int64_t features,
           int64_t n_components, const LawFields& fields, uint64_t first_feature, py::object out,
           py::object empty) -> py::object {
            const char* const function = "project";
            const Backend backend(function, "x", empty);
            const Array values(function, "x", data, backend.place());
            const Array columns(function, "x", indices, backend.place());
            const Array starts(function, "x", indptr, backend.place());
            projection::Law law = law_from(function, fields);
            law.components = n_components;
            const projection::Csr x{values.tensor(), columns.tensor(), starts.tensor(), rows,
                                    features};
            const int64_t shape[] = {rows, features};
            const int64_t strides[] = {features, 1};
            const ConstTensor dense{nullptr, values.tensor().dtype, 2, shape, strides};
            const ResultSpec spec =
                projection::result_of_project(dense, n_components, first_feature);
            projection::check_csr_arrays(function, x);
            bool increasing = false;
            without_gil([&] { increasing = backend.check_csr(function, x); });
            if (!increasing) return py::none();
            const Result result(
                function, out, empty, spec,
                {{"x", values.tensor()}, {"x", columns.tensor()}, {"x", starts.tensor()}}, false,
                backend.place());
            without_gil([&] { backend.project_csr(x, law, first_feature, result.tensor()); });
            return result.object();
        },
        py::arg("data"), py::arg("indices"), py::arg("indptr"), py::arg("rows"),
        py::arg("features"), py::arg("n_components"), py::arg("law"), py::arg("first_feature"),
        py::arg("out"), py::arg("empty"));
}

template <class Backend>
void bind_block(py::module_& module) {
    // Fills `out`, an array (rows, columns) of float64 or float32.
    module.def(
        "projection_block",
        [](const LawFields& fields, uint64_t first_row, int64_t rows, uint64_t first_column,
           int64_t columns, py::object out, py::object empty) {
            const Backend backend("block", "out", empty);
            const Array target("block", "out", out, backend.place());
            const projection::Law law = law_from("block", fields);
            const Result result("block", out, empty,
                                projection::result_of_block(rows, columns, target.tensor()), {},
                                false, backend.place());
            without_gil([&] { backend.block(law, first_row, first_column, result.tensor()); });
            return result.object();
        },
        py::arg("law"), py::arg("first_row"), py::arg("rows"), py::arg("first_column"),
        py::arg("columns"), py::arg("out"), py::arg("empty"));
}

template <class Backend>
void bind_transforms(py::module_& module) {
    module.def(
        "hadamard",
        [](py::object x, int64_t axis, py::object out, py::object empty) {
            const Backend backend("hadamard", "x", empty);
            const Array input("hadamard", "x", x, backend.place());
            const Result result("hadamard", out, empty,
                                projection::result_of_hadamard(input.tensor(), axis),
                                {{"x", input.tensor()}}, true, backend.place());
            without_gil([&] { backend.hadamard(input.tensor(), axis, result.tensor()); });
            return result.object();
        },
        py::arg("x"), py::arg("axis"), py::arg("out"), py::arg("empty"));

    module.def(
        "rotate",
        [](py::object x, uint64_t seed, int64_t rounds, bool inverse, py::object out,
           py::object empty) {
            const Backend backend("rotate", "x", empty);
            const Array input("rotate", "x", x, backend.place());
            const Result result("rotate", out, empty, projection::result_of_rotate(input.tensor()),
                                {{"x", input.tensor()}}, true, backend.place());
            without_gil(
                [&] { backend.rotate(input.tensor(), seed, rounds, inverse, result.tensor()); });
            return result.object();
        },
        py::arg("x"), py::arg("seed"), py::arg("rounds"), py::arg("inverse"), py::arg("out"),
        py::arg("empty"));
}

}  // namespace slipstick::bind
