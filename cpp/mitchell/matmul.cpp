#include <algorithm>

#include "core/store.hpp"
#include "mitchell/kernels.hpp"
#include "mitchell/matrices.hpp"
#include "mitchell/mitchell.hpp"
#include "mitchell/operands.hpp"
#include "mitchell/plan.hpp"
#include "mitchell/ranges.hpp"
#include "mitchell/thin.hpp"

namespace slipstick::cpu::mitchell {
namespace {

// The last two axes of an operand as a matrix, a missing one as an axis of length 1.
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

void run(const Plan& plan, const Matrix& a, const Matrix& b, double multiplier, const Matrix& out) {
    const int64_t terms = plan.left.terms;
    const MatmulProblem problem{.rows = a.rows, .depth = a.columns * terms, .columns = b.columns};
    cpu::matmul(
        plan.path->kernel, &plan.mac, problem,
        [&](int64_t row, int64_t rows, int64_t k, int64_t depth, void* packed) {
            plan.path->pack_left(plan.left, address(a, row, k / terms), a.row_stride,
                                 a.column_stride, rows, depth, packed);
        },
        [&](int64_t column, int64_t columns, int64_t k, int64_t depth, void* packed) {
            plan.path->pack_right(plan.right, address(b, k / terms, column), b.column_stride,
                                  b.row_stride, columns, depth, packed);
        },
        [&](int64_t row, int64_t rows, int64_t column, int64_t columns, const void* acc,
            int64_t acc_stride) {
            store_scaled(acc, acc_stride, rows, columns, multiplier, out, row, column);
        });
}

// --- Products that are looked up ---

constexpr int64_t kLookupColumns = 2048;  // sums of sixteen rows: 128 KiB
constexpr int64_t kLookupDepth = 64;      // lines of the right operand that are gathered at once
// Below so many columns the tables cost more to turn round than they save.
constexpr int64_t kLookupFrom = 96;

void run_lookups(const Plan& plan, const Matrix& a, const Matrix& b, const Matrix& out) {
    const LookupKernels& kernels = active_mitchell_lookup_kernels();
    const Table& table = *plan.products;
    const LookupFn lookup = table.is_signed ? kernels.of_signed : kernels.of_unsigned;
    const int64_t row_blocks = (a.rows + kLookupRows - 1) / kLookupRows;
    const int64_t column_blocks = (b.columns + kLookupColumns - 1) / kLookupColumns;
    const int64_t width = std::min(kLookupColumns, b.columns);
    parallel_for(row_blocks * column_blocks, 1, [&](int64_t begin, int64_t end) {
        const Scratch scratch(2 * 256 * kLookupRows * int64_t{sizeof(uint32_t)});
        const Scratch acc(width * kLookupRows * int64_t{sizeof(uint32_t)});
        const Scratch left(kLookupDepth * kLookupRows);
        const Scratch right(kLookupDepth * width);
        auto* const sums = acc.as<uint32_t>();
        for (int64_t task = begin; task < end; ++task) {
            const int64_t row = task / column_blocks * kLookupRows;
            const int64_t rows = std::min<int64_t>(kLookupRows, a.rows - row);
            const int64_t column = task % column_blocks * kLookupColumns;
            const int64_t columns = std::min(kLookupColumns, b.columns - column);
            std::fill_n(sums, columns * kLookupRows, 0u);
            for (int64_t k = 0; k < a.columns; k += kLookupDepth) {
                const int64_t depth = std::min(kLookupDepth, a.columns - k);
                for (int64_t i = 0; i < depth * kLookupRows; ++i) {
                    // Rows beyond the last repeat it: their sums are not stored.
                    const int64_t r = std::min(i % kLookupRows, rows - 1);
                    left.as<uint8_t>()[i] =
                        *static_cast<uint8_t*>(address(a, row + r, k + i / kLookupRows));
                }
                const auto* lines = static_cast<const uint8_t*>(address(b, k, column));
                int64_t stride = b.row_stride;
                if (b.column_stride != 1) {
                    for (int64_t j = 0; j < columns; ++j) {
                        for (int64_t i = 0; i < depth; ++i) {
                            right.as<uint8_t>()[i * width + j] =
                                lines[i * b.row_stride + j * b.column_stride];
                        }
                    }
                    lines = right.as<uint8_t>();
                    stride = width;
                }
                lookup(table.entries.data(), left.as<uint8_t>(), lines, stride, depth, columns,
                       scratch.as<uint32_t>(), sums);
            }
            for (int64_t i = 0; i < rows; ++i) {
                for (int64_t j = 0; j < columns; ++j) {
                    *static_cast<uint32_t*>(address(out, row + i, column + j)) =
                        sums[j * kLookupRows + i];
                }
            }
        }
    });
}

// c^T = b^T a^T, with the table's axes exchanged.
void run_lookups_transposed(const Plan& plan, const Matrix& a, const Matrix& b, const Matrix& out) {
    Plan turned = plan;
    turned.products = exchanged({Kind::kTable, 0, 0, plan.products}).table;
    run_lookups(turned, transposed(b), transposed(a), transposed(out));
}

void multiply_matrices(const Method& method, Path path, const Matrix& a, const Matrix& b,
                       double multiplier, const Matrix& out) {
    if (path == Path::kExact) return run(make_exact_plan(a.dtype), a, b, multiplier, out);
    if (path == Path::kAuto && multiply_thin(method, a, b, multiplier, out)) return;
    const Plan plan =
        make_plan(a.dtype, method, magnitudes_of(a), magnitudes_of(b), a.columns, path);
    if (plan.products != nullptr && path == Path::kAuto) {
        if (b.columns >= kLookupFrom) return run_lookups(plan, a, b, out);
        if (a.rows >= kLookupFrom) return run_lookups_transposed(plan, a, b, out);
    }
    run(plan, a, b, multiplier, out);
}

}  // namespace

ResultSpec result_of_matmul(const ConstTensor& a, const ConstTensor& b, const Method& method,
                            const char* function) {
    return result_of_matmul(a, b, method, function, cpu_sums());
}

void matmul(const ConstTensor& a, const ConstTensor& b, const Method& method, double multiplier,
            const Tensor& out, Path path) {
    if (out.size() == 0) return;
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
            multiply_matrices(method, path, a_matrix, b_matrix, multiplier, out_matrix);
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
