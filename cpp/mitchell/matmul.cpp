#include <algorithm>
#include <cmath>
#include <limits>

#include "core/broadcast.hpp"
#include "core/checks.hpp"
#include "core/error.hpp"
#include "core/store.hpp"
#include "mitchell/kernels.hpp"
#include "mitchell/mitchell.hpp"
#include "mitchell/operands.hpp"

namespace slipstick::cpu::mitchell {
namespace {

// The last two
// axes of an operand as a matrix, a missing one as an axis of length 1.
Matrix matrix_of(const ConstTensor& tensor, bool vector_is_row) {
    const int rank = tensor.rank;
    Matrix matrix{const_cast<void*>(tensor.data), tensor.dtype, 1, 1, 0, 0};
    const bool has_rows = rank >= 2 || !vector_is_row;
    const bool has_columns = rank >= 2 || vector_is_row;
    if (has_columns) {
        matrix.columns = tensor.shape[rank - 1];
        matrix.column_stride = tensor.strides[rank - 1];
    }
    if (has_rows) {
        const int axis = has_columns ? rank - 2 : rank - 1;
        matrix.rows = tensor.shape[axis];
        matrix.row_stride = tensor.strides[axis];
    }
    return matrix;
}

int batch_rank(const ConstTensor& tensor) { return std::max(0, tensor.rank - 2); }

void* address(const Matrix& matrix, int64_t row, int64_t column) {
    return static_cast<char*>(matrix.data) +
           (row * matrix.row_stride + column * matrix.column_stride) * item_size(matrix.dtype);
}

bool is_finite(const Matmul& kernels, const Matrix& matrix) {
    if (kernels.is_finite == nullptr) return true;
    const bool along_columns = std::abs(matrix.column_stride) <= std::abs(matrix.row_stride);
    const int64_t lines = along_columns ? matrix.rows : matrix.columns;
    const int64_t length = along_columns ? matrix.columns : matrix.rows;
    const int64_t stride = along_columns ? matrix.column_stride : matrix.row_stride;
    for (int64_t line = 0; line < lines; ++line) {
        const void* start = along_columns ? address(matrix, line, 0) : address(matrix, 0, line);
        if (!kernels.is_finite(start, length, stride)) return false;
    }
    return true;
}

void multiply_matrices(const Matmul& kernels, const Matrix& a, const Matrix& b,
                       const Parameters& method_parameters, double multiplier, const Matrix& out) {
    const bool finite = is_finite(kernels, a) && is_finite(kernels, b);
    const MatmulProblem problem{.rows = a.rows, .depth = a.columns, .columns = b.columns};
    cpu::matmul(
        finite ? kernels.finite : kernels.general, &method_parameters, problem,
        [&](int64_t row, int64_t rows, int64_t k, int64_t depth, void* packed) {
            kernels.pack_left(address(a, row, k), a.row_stride, a.column_stride, rows, depth,
                              packed);
        },
        [&](int64_t column, int64_t columns, int64_t k, int64_t depth, void* packed) {
            kernels.pack_right(address(b, k, column), b.column_stride, b.row_stride, columns, depth,
                               packed);
        },
        [&](int64_t row, int64_t rows, int64_t column, int64_t columns, const void* acc,
            int64_t acc_stride) {
            store_scaled(acc, acc_stride, rows, columns, multiplier, out, row, column);
        });
}

// The largest magnitude in an integer tensor, as a double (exact below 2^53, and operands have 32
// bits).
double largest_magnitude(const ConstTensor& tensor) {
    double largest = 0;
    dispatch_integer(tensor.dtype, [&]<class T>() {
        // One operand only: the tensor takes the place of the result, and is read.
        for_each_strip(
            Tensor{tensor}, {}, std::numeric_limits<int64_t>::max(), [&](const Strip& strip) {
                const auto* values = static_cast<const T*>(strip.data[0]);
                for (int64_t i = 0; i < strip.count; ++i) {
                    largest = std::max(largest,
                                       std::abs(static_cast<double>(values[i * strip.stride[0]])));
                }
            });
    });
    return largest;
}

// A sum of `depth` products must fit the result. An approximate product is at most the exact one,
// or twice that with an offset below 1. The limit of the dtype settles most cases; where it does
// not, the data do.
void check_integer_sums(const ConstTensor& a, const ConstTensor& b, const Method& method,
                        int64_t depth) {
    const Dtype sum = sum_dtype(a.dtype);
    const bool is_signed = sum == Dtype::kInt32 || sum == Dtype::kInt64;
    const double highest =
        std::ldexp(1.0, static_cast<int>(item_size(sum)) * 8 - (is_signed ? 1 : 0)) - 1;
    const double growth = method.bias > 0 ? 2.0 : 1.0;
    const double operand =
        std::ldexp(1.0, static_cast<int>(item_size(a.dtype)) * 8 - (is_signed ? 1 : 0)) -
        (is_signed ? 0 : 1);
    const double terms = growth * static_cast<double>(depth);
    if (terms * operand * operand < highest) return;
    const double bound = terms * largest_magnitude(a) * largest_magnitude(b);
    if (bound >= highest) {
        refuse_value("matmul", "`a` and `b` must be small enough for exact sums in ", name(sum),
                     ", got ", depth, " products of ", name(a.dtype), " that could add up to ",
                     bound);
    }
}

}  // namespace

ResultSpec result_of_matmul(const ConstTensor& a, const ConstTensor& b, const Method& method) {
    check_dtype("matmul", {"a", a}, active_mitchell_matmul_kernels().matmul[a.dtype] != nullptr,
                kAllDtypes);
    check_same_dtype("matmul", {{"a", a}, {"b", b}});
    for (const Named& operand : {Named{"a", a}, Named{"b", b}}) {
        if (operand.tensor.rank == 0) {
            refuse_value("matmul", "`", operand.name,
                         "` must have at least one axis, got shape ()");
        }
    }
    const Matrix left = matrix_of(a, true);
    const Matrix right = matrix_of(b, false);
    if (left.columns != right.rows) {
        refuse_value("matmul", "`b` must have ", left.columns, " rows, as many as `a` of shape ",
                     shape_text(a), " has columns, got shape ", shape_text(b));
    }
    if (!is_float(a.dtype)) check_integer_sums(a, b, method, left.columns);
    ResultSpec spec{sum_dtype(a.dtype)};
    append_broadcast("matmul", {"a", a}, batch_rank(a), {"b", b}, batch_rank(b), spec);
    if (a.rank >= 2) spec.append(left.rows);
    if (b.rank >= 2) spec.append(right.columns);
    return spec;
}

void matmul(const ConstTensor& a, const ConstTensor& b, const Method& method, double multiplier,
            const Tensor& out) {
    if (out.size() == 0) return;
    const Matmul& kernels = *active_mitchell_matmul_kernels().matmul[a.dtype];
    const Parameters method_parameters = parameters("matmul", a.dtype, method);
    const Matrix left = matrix_of(a, true);
    const Matrix right = matrix_of(b, false);
    // The result as a matrix: an axis that a one-dimensional operand lacks has length 1.
    int axis = out.rank;
    Matrix target{out.mutable_data(), out.dtype, left.rows, right.columns, 0, 0};
    if (b.rank >= 2) target.column_stride = out.strides[--axis];
    if (a.rank >= 2) target.row_stride = out.strides[--axis];
    const int batch_axes = axis;
    int64_t batches = 1;
    for (int i = 0; i < batch_axes; ++i) batches *= out.shape[i];

    // Products of 2^20 multiplications or more split themselves over the threads; a batch of
    // smaller ones is split here, and the pool runs what is nested serially.
    const double products = static_cast<double>(left.rows) * static_cast<double>(left.columns) *
                            static_cast<double>(right.columns);
    const int64_t grain =
        products >= 1 << 20
            ? 1
            : std::max<int64_t>(1, static_cast<int64_t>((1 << 20) / (products + 1)));
    const auto multiply_batches = [&](int64_t begin, int64_t end) {
        for (int64_t batch = begin; batch < end; ++batch) {
            Matrix a_matrix = left;
            Matrix b_matrix = right;
            Matrix out_matrix = target;
            int64_t rest = batch;
            for (int i = batch_axes - 1; i >= 0; --i) {
                const int64_t index = rest % out.shape[i];
                rest /= out.shape[i];
                const auto step = [&](Matrix& matrix, const ConstTensor& tensor,
                                      int tensor_batch_axes) {
                    const int own = i - (batch_axes - tensor_batch_axes);
                    if (own < 0 || tensor.shape[own] == 1) return;
                    matrix.data = static_cast<char*>(matrix.data) +
                                  index * tensor.strides[own] * item_size(tensor.dtype);
                };
                step(a_matrix, a, batch_rank(a));
                step(b_matrix, b, batch_rank(b));
                step(out_matrix, out, batch_axes);
            }
            multiply_matrices(kernels, a_matrix, b_matrix, method_parameters, multiplier,
                              out_matrix);
        }
    };
    // A batch too short to occupy the threads runs one product after another, each on all of them.
    if (batches < 2 * num_threads() && products >= 1 << 20) {
        multiply_batches(0, batches);
    } else {
        parallel_for(batches, grain, multiply_batches);
    }
}

}  // namespace slipstick::cpu::mitchell
