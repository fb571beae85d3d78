// The functions of slipstick.lsh, for a device's module; Backend as in mitchell.hpp.
#pragma once

#include "bind/call.hpp"
#include "projection/results.hpp"

namespace slipstick::bind {

template <class Backend>
void bind_simhash(py::module_& module) {
    module.def(
        "simhash",
        [](py::object x, int64_t n_bits, uint64_t seed, py::object empty) {
            const char* const function = "SimHash.hash";
            const Backend backend(function, "x", empty);
            const Array input(function, "x", x, backend.place());
            const ConstTensor& rows = input.tensor();
            const Result codes(function, py::none(), empty,
                               projection::result_of_signs(function, rows, n_bits), {}, false,
                               backend.place());
            int64_t row = -1;
            without_gil([&] { row = backend.gaussian_signs(rows, seed, n_bits, codes.tensor()); });
            if (row >= 0) {
                refuse_value(function, "`x` must have no row whose projection is NaN, got row ",
                             row, " of ", shape_text(rows));
            }
            return codes.object();
        },
        py::arg("x"), py::arg("n_bits"), py::arg("seed"), py::arg("empty"));
}

template <class Backend>
void bind_hamming(py::module_& module) {
    module.def(
        "hamming_distance",
        [](py::object a, py::object b, py::object empty) {
            const Backend backend("hamming_distance", "a", empty);
            const Array left("hamming_distance", "a", a, backend.place());
            const Array right("hamming_distance", "b", b, backend.place());
            const Result result(
                "hamming_distance", py::none(), empty,
                projection::result_of_hamming_distance(left.tensor(), right.tensor()), {}, false,
                backend.place());
            without_gil(
                [&] { backend.hamming_distance(left.tensor(), right.tensor(), result.tensor()); });
            return result.object();
        },
        py::arg("a"), py::arg("b"), py::arg("empty"));

    // -> (distances, indices)
    module.def(
        "hamming_topk",
        [](py::object queries, py::object codes, int64_t k, py::object empty) {
            const char* const function = "hamming_topk";
            const Backend backend(function, "queries", empty);
            const Array query_array(function, "queries", queries, backend.place());
            const Array code_array(function, "codes", codes, backend.place());
            const projection::TopkSpecs specs =
                projection::results_of_hamming_topk(query_array.tensor(), code_array.tensor(), k);
            const Result distances(function, py::none(), empty, specs.distances, {}, false,
                                   backend.place());
            const Result indices(function, py::none(), empty, specs.indices, {}, false,
                                 backend.place());
            without_gil([&] {
                backend.hamming_topk(query_array.tensor(), code_array.tensor(), k,
                                     distances.tensor(), indices.tensor());
            });
            return py::make_tuple(distances.object(), indices.object());
        },
        py::arg("queries"), py::arg("codes"), py::arg("k"), py::arg("empty"));
}

}  // namespace slipstick::bind
