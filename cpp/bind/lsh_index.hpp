// What serves slipstick.lsh.Index, which makes and holds the arrays, in _cpu.
#pragma once

#include "bind/call.hpp"
#include "projection/probes.hpp"

namespace slipstick::bind {

template <class T>
using Contiguous = py::array_t<T, py::array::c_style>;

inline void bind_lsh_index(py::module_& module) {
    namespace projection = cpu::projection;

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
