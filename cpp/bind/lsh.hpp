// The functions of slipstick.lsh in _cpu.
#pragma once

#include "bind/call.hpp"
#include "projection/hamming.hpp"
#include "projection/probes.hpp"
#include "projection/signs.hpp"

namespace slipstick::bind {

template <class T>
using Contiguous = py::array_t<T, py::array::c_style>;

inline void bind_lsh(py::module_& module) {
    namespace projection = cpu::projection;

    module.def(
        "simhash",
        [](py::object x, int64_t n_bits, uint64_t seed, py::object empty) {
            const char* const function = "SimHash.hash";
            const Array input(function, "x", x);
            const ConstTensor& rows = input.tensor();
            const Result codes(function, py::none(), empty,
                               projection::result_of_signs(function, rows, n_bits), {});
            int64_t row = -1;
            without_gil([&] {
                row = projection::gaussian_signs(rows, seed, n_bits, codes.tensor().as<uint8_t>());
            });
            if (row >= 0) {
                refuse_value(function, "`x` must have no row whose projection is NaN, got row ",
                             row, " of ", shape_text(rows));
            }
            return codes.object();
        },
        py::arg("x"), py::arg("n_bits"), py::arg("seed"), py::arg("empty"));

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
            const projection::TopkSpecs specs =
                projection::results_of_hamming_topk(query_array.tensor(), code_array.tensor(), k);
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

    // The rest serves slipstick.lsh.Index, which makes and holds the arrays.
    module.def(
        "probe_ranks",
        [](const Contiguous<double>& penalties, int64_t probes) {
            Contiguous<uint8_t> ranks({penalties.shape(0), probes, penalties.shape(1)});
            const Array from("Index.query", "penalties", penalties);
            const Array to("Index.query", "ranks", ranks);
            without_gil([&] { projection::probe_ranks(from.tensor(), to.writable()); });
            return ranks;
        },
        py::arg("penalties"), py::arg("probes"));

    // -> (distances, indices), or None where `rows` names a vector that is not there
    module.def(
        "rank_candidates",
        [](const Contiguous<float>& vectors, const Contiguous<uint32_t>& rows,
           const Contiguous<float>& queries, const Contiguous<int64_t>& begin,
           const Contiguous<int64_t>& end, bool euclidean, int64_t k) -> py::object {
            const Array vector_array("Index.query", "vectors", vectors);
            const Array query_array("Index.query", "x", queries);
            Contiguous<double> distances({queries.shape(0), k});
            Contiguous<int64_t> indices({queries.shape(0), k});
            const projection::Buckets buckets{rows.data(), begin.data(), end.data(), begin.shape(1),
                                              begin.shape(2)};
            double* to = distances.mutable_data();
            int64_t* numbers = indices.mutable_data();
            bool is_sound = false;
            without_gil([&] {
                is_sound = projection::rank_candidates(
                    vector_array.tensor(), query_array.tensor(), buckets,
                    euclidean ? projection::Metric::kEuclidean : projection::Metric::kCosine, k, to,
                    numbers);
            });
            if (!is_sound) return py::none();
            return py::make_tuple(distances, indices);
        },
        py::arg("vectors"), py::arg("rows"), py::arg("queries"), py::arg("begin"), py::arg("end"),
        py::arg("euclidean"), py::arg("k"));
}

}  // namespace slipstick::bind
