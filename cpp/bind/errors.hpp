// The statistics of error reports: arrays made and held by slipstick's own Python code.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <optional>
#include <vector>

#include "bind/call.hpp"
#include "mitchell/errors.hpp"

namespace slipstick::bind {

template <class T>
using Column = py::array_t<T, py::array::c_style>;

template <class T>
const T* data_or_null(const std::optional<Column<T>>& column) {
    return column ? column->data() : nullptr;
}

template <class T>
Column<T> to_column(const std::vector<T>& values) {
    return Column<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

inline void bind_errors(py::module_& module) {
    namespace mitchell = cpu::mitchell;
    using mitchell::ErrorOperands;
    using mitchell::Method;

    module.attr("error_bins_per_unit") = mitchell::kErrorBinsPerUnit;
    module.attr("error_bins") = mitchell::kErrorBins;
    module.def("is_commutative", &mitchell::is_commutative, py::arg("method"));

    // -> (float64 (rows, 6), uint64 (rows, 3)), columns as in ErrorRow; the histogram is added to.
    module.def(
        "error_rows",
        [](const Method& method, int bits, bool is_signed, const Column<uint32_t>& a,
           const Column<uint32_t>& b, const std::optional<Column<int64_t>>& weight_a,
           const std::optional<Column<int64_t>>& weight_b, bool symmetric, int64_t begin,
           int64_t end, Column<int64_t>& histogram) {
            const ErrorOperands operands{
                a.data(), b.data(), data_or_null(weight_a), data_or_null(weight_b), a.size(),
                b.size(), symmetric};
            std::vector<mitchell::ErrorRow> rows(static_cast<size_t>(end - begin));
            int64_t* bins = histogram.mutable_data();
            without_gil([&] {
                mitchell::error_rows(method, bits, is_signed, operands, begin, end, rows.data(),
                                     bins);
            });
            Column<double> reals({end - begin, int64_t{6}});
            Column<uint64_t> integers({end - begin, int64_t{3}});
            double* real = reals.mutable_data();
            uint64_t* integer = integers.mutable_data();
            for (const auto& row : rows) {
                for (const double value :
                     {row.relative, row.magnitude, row.square, row.low, row.high, row.furthest})
                    *real++ = value;
                for (const uint64_t value : {row.distance_low, row.distance_high, row.wrong})
                    *integer++ = value;
            }
            return py::make_tuple(reals, integers);
        },
        py::arg("method"), py::arg("bits"), py::arg("signed"), py::arg("a"), py::arg("b"),
        py::arg("weight_a"), py::arg("weight_b"), py::arg("symmetric"), py::arg("begin"),
        py::arg("end"), py::arg("histogram"));

    // -> (|P - T|, T, how many pairs, the first of their operands)
    module.def(
        "worst_pairs",
        [](const Method& method, int bits, bool is_signed, const Column<uint32_t>& a,
           const Column<uint32_t>& b, bool symmetric, const Column<int64_t>& rows, double largest,
           const std::optional<Column<uint8_t>>& multiplicity_a,
           const std::optional<Column<uint8_t>>& multiplicity_b, int64_t limit) {
            const ErrorOperands operands{a.data(), b.data(), nullptr,  nullptr,
                                         a.size(), b.size(), symmetric};
            mitchell::WorstPairs worst;
            without_gil([&] {
                worst = mitchell::worst_pairs(method, bits, is_signed, operands, rows.data(),
                                              rows.size(), largest, data_or_null(multiplicity_a),
                                              data_or_null(multiplicity_b), limit);
            });
            return py::make_tuple(worst.distance, worst.exact, worst.count, to_column(worst.a),
                                  to_column(worst.b));
        },
        py::arg("method"), py::arg("bits"), py::arg("signed"), py::arg("a"), py::arg("b"),
        py::arg("symmetric"), py::arg("rows"), py::arg("largest"), py::arg("multiplicity_a"),
        py::arg("multiplicity_b"), py::arg("limit"));

    module.def(
        "products_of_bits",
        [](const Method& method, int bits, bool is_signed, const Column<uint32_t>& a,
           const Column<uint32_t>& b) {
            Column<uint64_t> products(a.size());
            uint64_t* out = products.mutable_data();
            without_gil([&] {
                mitchell::products_of_bits(method, bits, is_signed, a.data(), b.data(), a.size(),
                                           out);
            });
            return products;
        },
        py::arg("method"), py::arg("bits"), py::arg("signed"), py::arg("a"), py::arg("b"));
}

}  // namespace slipstick::bind
