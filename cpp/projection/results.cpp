#include "projection/results.hpp"

#include <bit>

#include "core/checks.hpp"
#include "core/error.hpp"
#include "core/rounding.hpp"
#include "projection/csr_matrix.hpp"
#include "projection/law.hpp"

namespace slipstick::projection {
namespace {

void check_has_features(const char* function, const ConstTensor& x) {
    if (x.rank == 0) refuse_value(function, "`x` must have at least one axis, got shape ()");
    if (x.shape[x.rank - 1] == 0) {
        refuse_value(function, "`x` must have at least one feature, got shape ", shape_text(x));
    }
}

// Refuses features whose last one, first_feature + features - 1, does not fit 64 bits.
void check_last_feature(const char* function, uint64_t first_feature, int64_t features,
                        const char* whose) {
    if (first_feature > ~uint64_t{0} - static_cast<uint64_t>(features - 1)) {
        refuse_value(function, "`first_feature` must be at most 2**64 - ", features, " for ", whose,
                     features, " features, got ", first_feature);
    }
}

// The shape of `rows` but for its last axis.
ResultSpec result_of_rows(const ConstTensor& rows, int64_t columns, Dtype dtype) {
    ResultSpec spec{dtype};
    for (int axis = 0; axis + 1 < rows.rank; ++axis) spec.append(rows.shape[axis]);
    spec.append(columns);
    return spec;
}

// Floats stay what they are; integers and bools become float64.
Dtype float_of(Dtype dtype) { return dtype <= Dtype::kBFloat16 ? dtype : Dtype::kFloat64; }

// --- Codes ---

constexpr int64_t kMostCodeBytes = int64_t{1} << 20;  // distances below 2^24

void check_codes(const char* function, Named codes) {
    check_dtype(function, codes, codes.tensor.dtype == Dtype::kUInt8, "uint8");
    if (codes.tensor.rank == 0) {
        refuse_value(function, "`", codes.name, "` must have at least one axis, got shape ()");
    }
    const int64_t bytes = codes.tensor.shape[codes.tensor.rank - 1];
    if (bytes < 1 || bytes > kMostCodeBytes) {
        refuse_value(function, "`", codes.name, "` must have from 1 to ", kMostCodeBytes,
                     " bytes in its last axis, got shape ", shape_text(codes.tensor));
    }
}

void check_same_bytes(const char* function, Named first, Named second) {
    const int64_t bytes = first.tensor.shape[first.tensor.rank - 1];
    if (second.tensor.shape[second.tensor.rank - 1] != bytes) {
        refuse_value(function, "`", second.name, "` must have ", bytes,
                     " bytes in its last axis like `", first.name, "`, got shape ",
                     shape_text(second.tensor));
    }
}

}  // namespace

const char* name(Kind kind) {
    constexpr const char* names[] = {"rademacher", "gaussian",    "sparse",
                                     "sjlt",       "countsketch", "srht"};
    return names[static_cast<int>(kind)];
}

Kind kind_of(const char* function, std::string_view text) {
    for (const Kind kind : {Kind::kRademacher, Kind::kGaussian, Kind::kSparse, Kind::kSjlt,
                            Kind::kCountsketch, Kind::kSrht}) {
        if (text == name(kind)) return kind;
    }
    refuse_value(function, "`kind` must be one of the family's, got '", text, "'");
}

ResultSpec result_of_project(const ConstTensor& x, int64_t n_components, uint64_t first_feature) {
    check_has_features("project", x);
    check_last_feature("project", first_feature, x.shape[x.rank - 1], "`x` with ");
    return result_of_rows(x, n_components, float_of(x.dtype));
}

ResultSpec result_of_back_project(const ConstTensor& y, int64_t n_features,
                                  uint64_t first_feature) {
    check_last_feature("back_project", first_feature, n_features, "");
    return result_of_rows(y, n_features, float_of(y.dtype));
}

ResultSpec result_of_block(int64_t rows, int64_t columns, const ConstTensor& out) {
    const bool offered = out.dtype == Dtype::kFloat64 || out.dtype == Dtype::kFloat32;
    check_dtype("block", {"out", out}, offered, "float64 or float32");
    ResultSpec spec{out.dtype};
    spec.append(rows);
    spec.append(columns);
    return spec;
}

int log2_exact(int64_t n) {
    const auto bits = static_cast<uint64_t>(n);
    return n > 0 && std::has_single_bit(bits) ? std::countr_zero(bits) : -1;
}

int hadamard_axis(const ConstTensor& x, int64_t axis) {
    const char* const function = "hadamard";
    if (x.rank == 0) refuse_value(function, "`x` must have at least one axis, got shape ()");
    if (axis < -x.rank || axis >= x.rank) {
        refuse_value(function, "`axis` must be from ", -x.rank, " to ", x.rank - 1,
                     " for `x` of shape ", shape_text(x), ", got ", axis);
    }
    const auto which = static_cast<int>(axis < 0 ? axis + x.rank : axis);
    if (log2_exact(x.shape[which]) < 0) {
        refuse_value(function, "`x` must have a power of two as its length along axis ", axis,
                     " (`rotate` takes any length), got shape ", shape_text(x));
    }
    return which;
}

ResultSpec result_of_hadamard(const ConstTensor& x, int64_t axis) {
    hadamard_axis(x, axis);
    return result_of_rows(x, x.shape[x.rank - 1], float_of(x.dtype));
}

ResultSpec result_of_rotate(const ConstTensor& x) {
    check_has_features("rotate", x);
    return result_of_rows(x, x.shape[x.rank - 1], float_of(x.dtype));
}

ResultSpec result_of_signs(const char* function, const ConstTensor& x, int64_t n_bits) {
    check_has_features(function, x);
    return result_of_rows(x, ceil_div(n_bits, 8), Dtype::kUInt8);
}

ResultSpec result_of_hamming_distance(const ConstTensor& a, const ConstTensor& b) {
    const char* const function = "hamming_distance";
    check_codes(function, {"a", a});
    check_codes(function, {"b", b});
    check_same_bytes(function, {"a", a}, {"b", b});
    ResultSpec spec{Dtype::kInt32};
    append_broadcast(function, {"a", a}, a.rank - 1, {"b", b}, b.rank - 1, spec);
    return spec;
}

TopkSpecs results_of_hamming_topk(const ConstTensor& queries, const ConstTensor& codes, int64_t k) {
    const char* const function = "hamming_topk";
    check_codes(function, {"queries", queries});
    check_codes(function, {"codes", codes});
    if (codes.rank != 2) {
        refuse_value(function, "`codes` must have two axes, got shape ", shape_text(codes));
    }
    check_same_bytes(function, {"queries", queries}, {"codes", codes});
    if (codes.shape[0] >= int64_t{1} << kCodeIndexBits) {
        refuse_value(function, "`codes` must have fewer than 2**", kCodeIndexBits,
                     " rows, got shape ", shape_text(codes));
    }
    if (k < 1 || k > codes.shape[0]) {
        refuse_value(function, "`k` must be between 1 and the number of codes, ", codes.shape[0],
                     ", got ", k);
    }
    return {result_of_rows(queries, k, Dtype::kInt32), result_of_rows(queries, k, Dtype::kInt64)};
}

void check_csr_arrays(const char* function, const Csr& x) {
    check_dtype(function, {"x", x.values},
                x.values.dtype == Dtype::kFloat32 || x.values.dtype == Dtype::kFloat64,
                "of float32 or float64 elements where it is sparse");
    check_dtype(function, {"x", x.columns},
                x.columns.dtype == Dtype::kInt32 || x.columns.dtype == Dtype::kInt64,
                "of int32 or int64 indices where it is sparse");
    check_dtype(function, {"x", x.row_starts}, x.row_starts.dtype == x.columns.dtype,
                "of row starts (indptr) of the dtype of its column indices");
    for (const ConstTensor& part : {x.values, x.columns, x.row_starts}) {
        if (part.rank == 1 && (part.shape[0] <= 1 || part.strides[0] == 1)) continue;
        refuse_value(function,
                     "`x` must have elements, indices and row starts of one axis, next to "
                     "each other, got shape ",
                     shape_text(part));
    }
    if (x.row_starts.shape[0] != x.rows + 1) {
        refuse_value(function, "`x` must have ", x.rows + 1, " row starts (indptr), got shape ",
                     shape_text(x.row_starts));
    }
}

}  // namespace slipstick::projection
