#include "mitchell/backward.hpp"

#include <algorithm>
#include <vector>

#include "core/store.hpp"
#include "mitchell/backward_kernels.hpp"
#include "mitchell/mitchell.hpp"
#include "mitchell/operands.hpp"
#include "mitchell/plan.hpp"
#include "mitchell/ranges.hpp"
#include "mitchell/stack.hpp"

namespace slipstick::cpu::mitchell {
namespace {

constexpr const char* kFunction = "matmul_backward";
constexpr int64_t kSplitProducts = 1 << 20;  // 50 us: worth splitting one product of matrices
constexpr int64_t kFactorRows = 96;      // rows and columns of a task of the three-operand product:
constexpr int64_t kFactorColumns = 128;  // 0.3 MiB of packed float32

int64_t round_up(int64_t value, int64_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

Matrix transposed(const Matrix& m) {
    return {m.data, m.dtype, m.columns, m.rows, m.column_stride, m.row_stride};
}
Matrix moved(Matrix m, int64_t elements) {
    m.data = static_cast<char*>(m.data) + elements * item_size(m.dtype);
    return m;
}

Matrix matrix_of(const ConstTensor& tensor, const Stack& stack) {
    return {const_cast<void*>(tensor.data),
            tensor.dtype,
            stack.rows,
            stack.columns,
            stack.row_step,
            stack.column_step};
}

// One gradient: for every index of the axes that its operand has, products summed over those along
// which the operand was stretched.
struct Batches {
    struct Offsets {
        int64_t grad, other, own, out;
    };
    std::vector<Offsets> kept;
    std::vector<int64_t> summed_grad;  // added to `grad` and `other`
    std::vector<int64_t> summed_other;
};

// `own` is the stack of the operand.
Batches batches_of(const int64_t* sizes, int batch_axes, const Stack& grad, const Stack& other,
                   const Stack& own, const Stack& out) {
    Batches batches{{{0, 0, 0, 0}}, {0}, {0}};
    for (int i = 0; i < batch_axes; ++i) {
        const int64_t size = sizes[i];
        if (own.has[i]) {
            std::vector<Batches::Offsets> next;
            for (const Batches::Offsets& at : batches.kept) {
                for (int64_t index = 0; index < size; ++index) {
                    next.push_back({at.grad + index * grad.steps[i],
                                    at.other + index * other.steps[i],
                                    at.own + index * own.steps[i], at.out + index * out.steps[i]});
                }
            }
            batches.kept = std::move(next);
        } else {
            const auto extend = [&](std::vector<int64_t>& offsets, int64_t step) {
                std::vector<int64_t> next;
                for (const int64_t at : offsets)
                    for (int64_t index = 0; index < size; ++index)
                        next.push_back(at + index * step);
                offsets = std::move(next);
            };
            extend(batches.summed_grad, grad.steps[i]);
            extend(batches.summed_other, other.steps[i]);
        }
    }
    return batches;
}

// Packs [first, first + count) of the rows of `matrix`, elements [k, k + depth) of the
// concatenation of its rows at all `offsets`.
void pack_joined(PackFn pack, const Packing& packing, int64_t panel, int64_t bytes,
                 const Matrix& matrix, const std::vector<int64_t>& offsets, int64_t first,
                 int64_t count, int64_t k, int64_t depth, void* packed) {
    const int64_t length = matrix.columns * packing.terms;
    const auto pack_part = [&](int64_t row, int64_t rows, int64_t at, int64_t part, char* target) {
        const int64_t element = offsets[static_cast<size_t>(at / length)] +
                                row * matrix.row_stride +
                                at % length / packing.terms * matrix.column_stride;
        pack(packing, moved(matrix, element).data, matrix.row_stride, matrix.column_stride, rows,
             part, target);
    };
    auto* target = static_cast<char*>(packed);
    if (depth == 0) return;
    if (k / length == (k + depth - 1) / length) return pack_part(first, count, k, depth, target);
    for (int64_t i = 0; i < count; i += panel) {
        for (int64_t at = k; at < k + depth;) {
            const int64_t part = std::min(k + depth, (at / length + 1) * length) - at;
            pack_part(first + i, std::min(panel, count - i), at, part,
                      target + (i * depth + (at - k) * panel) * bytes);
            at += part;
        }
    }
}

// out = sum over the offsets of left @ right.
void multiply_joined(const Plan& plan, const Matrix& left, const std::vector<int64_t>& left_offsets,
                     const Matrix& right, const std::vector<int64_t>& right_offsets,
                     const Matrix& out) {
    const MatmulPath& path = *plan.path;
    const Matrix columns = transposed(right);
    const MatmulProblem problem{
        .rows = left.rows,
        .depth = left.columns * plan.left.terms * static_cast<int64_t>(left_offsets.size()),
        .columns = right.columns};
    cpu::matmul(
        path.kernel, &plan.mac, problem,
        [&](int64_t row, int64_t rows, int64_t k, int64_t depth, void* packed) {
            pack_joined(path.pack_left, plan.left, path.kernel.tile_rows, path.kernel.left_bytes,
                        left, left_offsets, row, rows, k, depth, packed);
        },
        [&](int64_t column, int64_t count, int64_t k, int64_t depth, void* packed) {
            pack_joined(path.pack_right, plan.right, path.kernel.tile_columns,
                        path.kernel.right_bytes, columns, right_offsets, column, count, k, depth,
                        packed);
        },
        [&](int64_t row, int64_t rows, int64_t column, int64_t count, const void* acc,
            int64_t acc_stride) {
            store_scaled(acc, acc_stride, rows, count, 1.0, out, row, column);
        });
}

// --- Products of three operands ---

struct Factors {
    FactorConstants constants;
    FactorSumsFn sums;
    KeepOnesFn keep_ones;
    int64_t terms;    // leading ones that are left of an operand; 0: all
    MatmulPath path;  // packs elements as they are
};

Factors make_factors(Dtype dtype, const Derivative& derivative, const ConstTensor& other,
                     const ConstTensor& own) {
    const FactorRules rules = factor_rules(dtype, derivative);
    Factors factors{};
    factors.constants = rules.constants;
    factors.terms = rules.terms;
    factors.path = active_mitchell_matmul_kernels().matmul[dtype]->exact;

    const bool finite = rules.all_finite(magnitudes_of(other).highest, magnitudes_of(own).highest);
    const BackwardKernels& kernels = active_mitchell_backward_kernels();
    const Backward& backward = dtype == Dtype::kFloat64 ? kernels.wide : kernels.narrow;
    factors.sums = finite ? backward.finite : backward.general;
    factors.keep_ones = backward.keep_ones;
    return factors;
}

struct FactorTask {
    Matrix grad;   // rows x depth
    Matrix other;  // columns x depth
    Matrix own;    // rows x columns
    Matrix out;
    int64_t row, rows, column, columns;
};

void sum_factors(const Factors& factors, const Batches& batches, const FactorTask& task) {
    const MatmulPath& path = factors.path;
    const int64_t bytes = path.kernel.acc_bytes;
    const int64_t height = round_up(task.rows, path.kernel.tile_rows);
    const int64_t width = round_up(task.columns, path.kernel.tile_columns);
    const int64_t depth = task.grad.columns * static_cast<int64_t>(batches.summed_grad.size());
    const int64_t block = std::min(depth, kDepthBlock);
    const Packing plain;
    const Scratch left(height * block * bytes);
    const Scratch right(width * block * bytes);
    const Scratch own(width * task.rows * bytes);
    const Scratch acc(task.rows * width * bytes);
    pack_joined(path.pack_right, plain, path.kernel.tile_columns, bytes, transposed(task.own), {0},
                task.column, task.columns, task.row, task.rows, own.as());
    for (int64_t k = 0; k == 0 || k < depth; k += kDepthBlock) {
        const int64_t length = std::min(depth - k, kDepthBlock);
        pack_joined(path.pack_left, plain, path.kernel.tile_rows, bytes, task.grad,
                    batches.summed_grad, task.row, task.rows, k, length, left.as());
        pack_joined(path.pack_right, plain, path.kernel.tile_columns, bytes, task.other,
                    batches.summed_other, task.column, task.columns, k, length, right.as());
        if (factors.terms > 0) factors.keep_ones(factors.terms, width * length, right.as());
        factors.sums(factors.constants, task.rows, length, width, left.as(), right.as(), own.as(),
                     task.rows, acc.as(), width, k > 0);
    }
    store_scaled(acc.as(), width, task.rows, task.columns, 1.0, task.out, task.row, task.column);
}

void multiply_factors(const Factors& factors, const Batches& batches, const Matrix& grad,
                      const Matrix& other, const Matrix& own, const Matrix& out) {
    const int64_t row_blocks = (out.rows + kFactorRows - 1) / kFactorRows;
    const int64_t column_blocks = (out.columns + kFactorColumns - 1) / kFactorColumns;
    const int64_t blocks = row_blocks * column_blocks;
    const double products = static_cast<double>(std::min(out.rows, kFactorRows)) *
                            static_cast<double>(std::min(out.columns, kFactorColumns)) *
                            static_cast<double>(grad.columns + 1) *
                            static_cast<double>(batches.summed_grad.size());
    parallel_for(static_cast<int64_t>(batches.kept.size()) * blocks,
                 std::max<int64_t>(1, static_cast<int64_t>(kSplitProducts / products)),
                 [&](int64_t begin, int64_t end) {
                     for (int64_t i = begin; i < end; ++i) {
                         const auto& at = batches.kept[static_cast<size_t>(i / blocks)];
                         const int64_t row = i % blocks / column_blocks * kFactorRows;
                         const int64_t column = i % column_blocks * kFactorColumns;
                         sum_factors(
                             factors, batches,
                             {moved(grad, at.grad), moved(other, at.other), moved(own, at.own),
                              moved(out, at.out), row, std::min(kFactorRows, out.rows - row),
                              column, std::min(kFactorColumns, out.columns - column)});
                     }
                 });
}

// products(begin, end) for parts of `count` products of matrices: one after another, each on all
// threads, or shared out among them.
template <class Products>
void for_products(int64_t count, double size, Products products) {
    if (size >= kSplitProducts && count < 2 * num_threads()) return products(0, count);
    const double grain = kSplitProducts / (size + 1);
    parallel_for(count, std::max<int64_t>(1, static_cast<int64_t>(grain)), products);
}

}  // namespace

void check_matmul_backward(const ConstTensor& grad, const ConstTensor& a, const ConstTensor& b,
                           const Method& method) {
    check_matmul_backward(grad, a, b, method, cpu_sums());
}

void matmul_backward(const ConstTensor& grad, const ConstTensor& a, const ConstTensor& b,
                     const Method& method, Gradient gradient, const Derivative& derivative,
                     const Tensor& grad_a, const Tensor& grad_b) {
    const bool has_rows = a.rank >= 2;
    const bool has_columns = b.rank >= 2;
    const int batch_axes = grad.rank - (has_rows ? 1 : 0) - (has_columns ? 1 : 0);
    const auto stack = [&](const ConstTensor& tensor, bool rows, bool columns) {
        return stack_of(tensor, rows, columns, batch_axes, grad.shape);
    };
    const Stack stack_g = stack(grad, has_rows, has_columns);
    const Stack stack_a = stack(a, has_rows, true);
    const Stack stack_b = stack(b, true, has_columns);
    const Stack out_a = stack(grad_a, has_rows, true);
    const Stack out_b = stack(grad_b, true, has_columns);
    const auto for_a = batches_of(grad.shape, batch_axes, stack_g, stack_b, stack_a, out_a);
    const auto for_b = batches_of(grad.shape, batch_axes, stack_g, stack_a, stack_b, out_b);
    const Matrix gm = matrix_of(grad, stack_g);
    const Matrix am = matrix_of(a, stack_a);
    const Matrix bm = matrix_of(b, stack_b);
    const Matrix am_out = matrix_of(grad_a, out_a);
    const Matrix bm_out = matrix_of(grad_b, out_b);

    if (gradient == Gradient::kExact) {
        if (grad_a.size() > 0) {
            multiply_factors(make_factors(a.dtype, derivative, b, a), for_a, gm, bm, am, am_out);
        }
        if (grad_b.size() > 0) {
            multiply_factors(make_factors(a.dtype, derivative, a, b), for_b, transposed(gm),
                             transposed(am), transposed(bm), transposed(bm_out));
        }
        return;
    }
    const auto plan_of = [&](const ConstTensor& left, const ConstTensor& right, int64_t depth) {
        return gradient == Gradient::kStraightThrough
                   ? make_exact_plan(a.dtype)
                   : make_plan(a.dtype, method, magnitudes_of(left), magnitudes_of(right), depth,
                               Path::kAuto, kFunction);
    };
    const double size = static_cast<double>(gm.rows) * static_cast<double>(gm.columns) *
                        static_cast<double>(am.columns);
    const auto run = [&](const Batches& batches, auto&& product) {
        for_products(static_cast<int64_t>(batches.kept.size()),
                     size * static_cast<double>(batches.summed_grad.size()),
                     [&](int64_t begin, int64_t end) {
                         for (int64_t i = begin; i < end; ++i)
                             product(batches.kept[static_cast<size_t>(i)]);
                     });
    };
    if (grad_a.size() > 0) {
        const Plan plan = plan_of(grad, b, kDepthBlock);
        run(for_a, [&](const Batches::Offsets& at) {
            multiply_joined(plan, moved(gm, at.grad), for_a.summed_grad,
                            moved(transposed(bm), at.other), for_a.summed_other,
                            moved(am_out, at.out));
        });
    }
    if (grad_b.size() > 0) {
        const Plan plan = plan_of(a, grad, kDepthBlock);
        run(for_b, [&](const Batches::Offsets& at) {
            multiply_joined(plan, moved(transposed(am), at.other), for_b.summed_other,
                            moved(gm, at.grad), for_b.summed_grad, moved(bm_out, at.out));
        });
    }
}

}  // namespace slipstick::cpu::mitchell
