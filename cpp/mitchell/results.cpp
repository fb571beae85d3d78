#include "mitchell/results.hpp"

#include <algorithm>

#include "core/error.hpp"
#include "mitchell/geometry.hpp"
#include "mitchell/operands.hpp"

namespace slipstick::mitchell {
namespace {

ResultSpec result_of_binary(const char* function, Named a, Named b) {
    check_same_dtype(function, {a, b});
    ResultSpec spec{product_dtype(a.tensor.dtype)};
    append_broadcast(function, a, a.tensor.rank, b, b.tensor.rank, spec);
    return spec;
}

void check_float(const char* function, const ConstTensor& a) {
    check_dtype(function, {"a", a}, is_float(a.dtype), kFloatDtypes);
}

ResultSpec result_like(const ConstTensor& a, Dtype dtype) {
    ResultSpec spec{dtype};
    for (int axis = 0; axis < a.rank; ++axis) spec.append(a.shape[axis]);
    return spec;
}

ResultSpec result_of_unary(const char* function, const ConstTensor& a) {
    check_float(function, a);
    return result_like(a, a.dtype);
}

int batch_rank(const ConstTensor& tensor) { return std::max(0, tensor.rank - 2); }

}  // namespace

ResultSpec result_of_multiply(const ConstTensor& a, const ConstTensor& b, const Method& method) {
    check_dtype("multiply", {"a", a}, is_operand(a.dtype), kAllDtypes);
    const ResultSpec spec = result_of_binary("multiply", {"a", a}, {"b", b});
    parameters("multiply", a.dtype, method);
    return spec;
}

ResultSpec result_of_square(const ConstTensor& a, const Method& method) {
    check_dtype("square", {"a", a}, is_operand(a.dtype), kAllDtypes);
    parameters("square", a.dtype, method);
    return result_like(a, product_dtype(a.dtype));
}

ResultSpec result_of_divide(const ConstTensor& a, const ConstTensor& b) {
    check_float("divide", a);
    return result_of_binary("divide", {"a", a}, {"b", b});
}

ResultSpec result_of_reciprocal(const ConstTensor& a) { return result_of_unary("reciprocal", a); }

ResultSpec result_of_sqrt(const ConstTensor& a) { return result_of_unary("sqrt", a); }
ResultSpec result_of_log2(const ConstTensor& a) { return result_of_unary("log2", a); }
ResultSpec result_of_exp2(const ConstTensor& a) { return result_of_unary("exp2", a); }

ResultSpec result_of_power(const ConstTensor& a, const ConstTensor& p) {
    check_float("power", a);
    return result_of_binary("power", {"a", a}, {"p", p});
}
ResultSpec result_of_power(const ConstTensor& a, double) { return result_of_unary("power", a); }

ResultSpec result_of_matmul(const ConstTensor& a, const ConstTensor& b, const Method& method,
                            const char* function, const Sums& sums) {
    check_dtype(function, {"a", a}, sums.takes(a.dtype), sums.dtypes);
    check_same_dtype(function, {{"a", a}, {"b", b}});
    for (const Named& operand : {Named{"a", a}, Named{"b", b}}) {
        if (operand.tensor.rank == 0) {
            refuse_value(function, "`", operand.name,
                         "` must have at least one axis, got shape ()");
        }
    }
    const int64_t depth = a.shape[a.rank - 1];
    if (depth != b.shape[b.rank >= 2 ? b.rank - 2 : 0]) {
        refuse_value(function, "`b` must have ", depth, " rows, as many as `a` of shape ",
                     shape_text(a), " has columns, got shape ", shape_text(b));
    }
    parameters(function, a.dtype, method);
    if (!is_float(a.dtype)) sums.check(function, {"a", a}, {"b", b}, method, depth);
    ResultSpec spec{sum_dtype(a.dtype)};
    append_broadcast(function, {"a", a}, batch_rank(a), {"b", b}, batch_rank(b), spec);
    if (a.rank >= 2) spec.append(a.shape[a.rank - 2]);
    if (b.rank >= 2) spec.append(b.shape[b.rank - 1]);
    return spec;
}

ResultSpec result_of_conv2d(const ConstTensor& x, const ConstTensor& weight,
                            const ConvOptions& options, const Method& method, const Sums& sums) {
    constexpr const char* kFunction = "conv2d";
    check_dtype(kFunction, {"x", x}, sums.takes(x.dtype), sums.dtypes);
    check_same_dtype(kFunction, {{"x", x}, {"weight", weight}});
    const Geometry g = geometry_of(x, weight, options);
    parameters(kFunction, x.dtype, method);
    if (!is_float(x.dtype)) sums.check(kFunction, {"x", x}, {"weight", weight}, method, g.depth());
    ResultSpec spec{sum_dtype(x.dtype)};
    if (x.rank == 4) spec.append(g.images);
    spec.append(g.outputs * g.groups);
    spec.append(g.out_height);
    spec.append(g.out_width);
    return spec;
}

void check_matmul_backward(const ConstTensor& grad, const ConstTensor& a, const ConstTensor& b,
                           const Method& method, const Sums& sums) {
    constexpr const char* kFunction = "matmul_backward";
    check_dtype(kFunction, {"grad", grad}, is_float(grad.dtype) && sums.takes(grad.dtype),
                sums.float_dtypes);
    check_same_dtype(kFunction, {{"grad", grad}, {"a", a}, {"b", b}});
    const ResultSpec spec = result_of_matmul(a, b, method, kFunction, sums);
    const ConstTensor expected{nullptr, spec.dtype, spec.rank, spec.shape.data(), nullptr};
    if (!same_shape(grad, expected)) {
        refuse_value(kFunction, "`grad` must have shape ", shape_text(expected),
                     ", that of the product of `a` and `b`, got ", shape_text(grad));
    }
}

}  // namespace slipstick::mitchell
