// The projection family's functions of _cpu.
#pragma once

#include <tuple>

#include "bind/call.hpp"
#include "core/philox.hpp"
#include "projection/csr.hpp"
#include "projection/gaussian.hpp"
#include "projection/hadamard.hpp"
#include "projection/projection.hpp"
#include "projection/rotate.hpp"
#include "projection/skinny.hpp"

namespace slipstick::bind {

// The Law of python/slipstick/projection/_law.py, a tuple.
using LawFields = std::tuple<std::string_view, uint64_t, uint32_t, double, int64_t, int64_t>;
inline cpu::projection::Law law_from(const char* function, const LawFields& fields) {
    const auto& [kind, seed, threshold, scale, nonzeros, components] = fields;
    return {cpu::projection::kind_of(function, kind), seed, threshold, scale, nonzeros, components};
}

inline void bind_projection(py::module_& module) {
    namespace projection = cpu::projection;

    module.def(
        "project",
        [](py::object x, int64_t n_components, const LawFields& fields, uint64_t first_feature,
           py::object out, py::object empty) {
            const Array input("project", "x", x);
            const projection::Law law = law_from("project", fields);
            const Result result(
                "project", out, empty,
                projection::result_of_project(input.tensor(), n_components, first_feature),
                {{"x", input.tensor()}});
            without_gil(
                [&] { projection::project(input.tensor(), law, first_feature, result.tensor()); });
            return result.object();
        },
        py::arg("x"), py::arg("n_components"), py::arg("law"), py::arg("first_feature"),
        py::arg("out"), py::arg("empty"));

    module.def(
        "back_project",
        [](py::object y, int64_t n_features, const LawFields& fields, uint64_t first_feature,
           py::object out, py::object empty) {
            const Array input("back_project", "y", y);
            const projection::Law law = law_from("back_project", fields);
            const Result result(
                "back_project", out, empty,
                projection::result_of_back_project(input.tensor(), n_features, first_feature),
                {{"y", input.tensor()}});
            without_gil([&] {
                projection::back_project(input.tensor(), law, first_feature, result.tensor());
            });
            return result.object();
        },
        py::arg("y"), py::arg("n_features"), py::arg("law"), py::arg("first_feature"),
        py::arg("out"), py::arg("empty"));

    // x in compressed rows. None where the columns of a row do not increase.
    module.def(
        "project_csr",
        [](py::object data, py::object indices, py::object indptr, int64_t rows, int64_t features,
           int64_t n_components, const LawFields& fields, uint64_t first_feature, py::object out,
           py::object empty) -> py::object {
            const Array values("project", "x", data);
            const Array columns("project", "x", indices);
            const Array starts("project", "x", indptr);
            projection::Law law = law_from("project", fields);
            law.components = n_components;
            const projection::Csr x{values.tensor(), columns.tensor(), starts.tensor(), rows,
                                    features};
            const int64_t shape[] = {rows, features};
            const int64_t strides[] = {features, 1};
            const ConstTensor dense{nullptr, values.tensor().dtype, 2, shape, strides};
            const ResultSpec spec =
                projection::result_of_project(dense, n_components, first_feature);
            bool increasing = false;
            without_gil([&] { increasing = projection::check_csr("project", x); });
            if (!increasing) return py::none();
            const Result result(
                "project", out, empty, spec,
                {{"x", values.tensor()}, {"x", columns.tensor()}, {"x", starts.tensor()}});
            without_gil([&] { projection::project_csr(x, law, first_feature, result.tensor()); });
            return result.object();
        },
        py::arg("data"), py::arg("indices"), py::arg("indptr"), py::arg("rows"),
        py::arg("features"), py::arg("n_components"), py::arg("law"), py::arg("first_feature"),
        py::arg("out"), py::arg("empty"));

    // out = a right, and out = a^T left, for the randomized SVD.
    const auto skinny = [&](const char* name, auto product) {
        module.def(
            name,
            [product](py::object a, py::object factor, py::object out) {
                const Array matrix("randomized_svd", "x", a);
                const Array few("randomized_svd", "factor", factor);
                const Array result("randomized_svd", "out", out);
                const Tensor target = result.writable();
                without_gil([&] { product(matrix.tensor(), few.tensor(), target); });
            },
            py::arg("a"), py::arg("factor"), py::arg("out"));
    };
    skinny("skinny_times", projection::skinny_times);
    skinny("skinny_transposed", projection::skinny_transposed);

    // Fills `out`, a float64 array (rows, columns).
    module.def(
        "projection_block",
        [](const LawFields& fields, uint64_t first_row, uint64_t first_column, py::object out) {
            const Array result("block", "out", out);
            const projection::Law law = law_from("block", fields);
            const Tensor target = result.writable();
            check_dtype("block", {"out", target}, target.dtype == Dtype::kFloat64, "float64");
            without_gil([&] { projection::block(law, first_row, first_column, target); });
        },
        py::arg("law"), py::arg("first_row"), py::arg("first_column"), py::arg("out"));

    module.def(
        "hadamard",
        [](py::object x, int64_t axis, py::object out, py::object empty) {
            const Array input("hadamard", "x", x);
            const Result result("hadamard", out, empty,
                                projection::result_of_hadamard(input.tensor(), axis),
                                {{"x", input.tensor()}}, true);
            without_gil([&] { projection::hadamard(input.tensor(), axis, result.tensor()); });
            return result.object();
        },
        py::arg("x"), py::arg("axis"), py::arg("out"), py::arg("empty"));

    module.def(
        "rotate",
        [](py::object x, uint64_t seed, int64_t rounds, bool inverse, py::object out,
           py::object empty) {
            const Array input("rotate", "x", x);
            const Result result("rotate", out, empty, projection::result_of_rotate(input.tensor()),
                                {{"x", input.tensor()}}, true);
            without_gil([&] {
                projection::rotate(input.tensor(), seed, rounds, inverse, result.tensor());
            });
            return result.object();
        },
        py::arg("x"), py::arg("seed"), py::arg("rounds"), py::arg("inverse"), py::arg("out"),
        py::arg("empty"));

    // The definitions of one block of bits and of one Gaussian entry, for the tests.
    module.def(
        "philox4x32",
        [](uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint64_t seed) {
            const PhiloxWords words = philox4x32({{c0, c1, c2, c3}}, seed);
            return py::make_tuple(words.word[0], words.word[1], words.word[2], words.word[3]);
        },
        py::arg("c0"), py::arg("c1"), py::arg("c2"), py::arg("c3"), py::arg("seed"));
    module.def(
        "gaussian_from_bits",
        [](uint32_t word) {
            using namespace slipstick::projection;
            return gaussian_from_bits<ScalarOps>(word);
        },
        py::arg("word"));
}

}  // namespace slipstick::bind
