// What _cpu alone has of the projection family.
#pragma once

#include "bind/projection.hpp"
#include "core/philox.hpp"
#include "projection/gaussian.hpp"
#include "projection/skinny.hpp"

namespace slipstick::bind {

inline void bind_projection_on_cpu(py::module_& module) {
    namespace projection = cpu::projection;

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
