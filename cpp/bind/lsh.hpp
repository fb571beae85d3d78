// The functions of slipstick.lsh in _cpu.
#pragma once

#include "bind/call.hpp"
#include "projection/hamming.hpp"

namespace slipstick::bind {

inline void bind_lsh(py::module_& module) {
    namespace projection = cpu::projection;

    module.def(
        "hamming_distance",
        [](py::object a, py::object b, py::object empty) {
            const Array left("hamming_distance", "a", a);
            const Array right("hamming_distance", "b", b);
            const Result result(
                "hamming_distance", py::none(), empty,
                projection::result_of_hamming_distance(left.tensor(), right.tensor()), {});
            without_gil([&] {
                projection::hamming_distance(left.tensor(), right.tensor(), result.tensor());
            });
            return result.object();
        },
        py::arg("a"), py::arg("b"), py::arg("empty"));

    // -> (distances, indices)
    module.def(
        "hamming_topk",
        [](py::object queries, py::object codes, int64_t k, py::object empty) {
            const char* const function = "hamming_topk";
            const Array query_array(function, "queries", queries);
            const Array code_array(function, "codes", codes);
            const projection::TopkSpecs specs = projection::results_of_hamming_topk(
                query_array.tensor(), code_array.tensor(), k);
            const Result distances(function, py::none(), empty, specs.distances, {});
            const Result indices(function, py::none(), empty, specs.indices, {});
            without_gil([&] {
                projection::hamming_topk(query_array.tensor(), code_array.tensor(), k,
                                         distances.tensor().as<int32_t>(),
                                         indices.tensor().as<int64_t>());
            });
            return py::make_tuple(distances.object(), indices.object());
        },
        py::arg("queries"), py::arg("codes"), py::arg("k"), py::arg("empty"));
}

}  // namespace slipstick::bind
