// Gradients of matrix products. Along axes that an operand was stretched over, its gradient is a
// sum: they are joined to the depth of the product, in front, as if the batch were one long matrix.
#include "mitchell/cuda.hpp"

#include <algorithm>

#include "mitchell/factors.cuh"
#include "mitchell/stack.hpp"
#include "mitchell/sum_products.cuh"

namespace slipstick::cuda::mitchell {
namespace {

using slipstick::mitchell::FactorRules;
using slipstick::mitchell::Stack;

constexpr const char* kFunction = "matmul_backward";

// One side of a product: lines of so many terms, in every matrix of a stack.
struct Side {
    const ConstTensor* tensor;
    const Range* range;
    const int64_t* steps;
    int64_t lines;
    int64_t line;  // steps in elements
    int64_t terms;
    int64_t term;
};

struct Place {
    const Tensor* tensor;
    Stack stack;
};

// The axes in front of the matrices, and which of them the gradient has.
struct Axes {
    int count;
    const int64_t* sizes;
    const bool* kept;
};

// --- Depths ---

constexpr int kTapThreads = 256;

__global__ void __launch_bounds__(kTapThreads) taps_kernel(Batches joined, Tap* left, Tap* right) {
    const int64_t step = int64_t{gridDim.x} * kTapThreads;
    int64_t index = int64_t{blockIdx.x} * kTapThreads + threadIdx.x;
    for (; index < joined.count; index += step) {
        const Places places = places_of(joined, index);
        left[index] = {places.left, 0, 0};
        right[index] = {places.right, 0, 0};
    }
}

// Sets where the terms of both operands lie, and returns how many there are.
int64_t join_depth(const Context& context, const Axes& axes, const Side& left, const Side& right,
                   Operand& left_operand, Operand& right_operand) {
    Batches joined{};
    for (int axis = 0; axis < axes.count; ++axis) {
        if (!axes.kept[axis])
            joined.append(axes.sizes[axis], left.steps[axis], right.steps[axis], 0);
    }
    joined.append(left.terms, left.term, right.term, 0);
    if (joined.rank <= 1 || joined.count == 0) {
        left_operand.depth = joined.left[0];
        right_operand.depth = joined.right[0];
        return joined.count;
    }
    Tap* const taps = context.memory->allocate_array<Tap>(2 * joined.count);
    left_operand.taps = taps;
    right_operand.taps = taps + joined.count;
    const int64_t blocks = std::min<int64_t>(ceil_div(joined.count, kTapThreads), 1 << 16);
    launch(context, kFunction, taps_kernel, static_cast<unsigned>(blocks), kTapThreads, 0, joined,
           taps, taps + joined.count);
    return joined.count;
}

// What a problem of either kind knows of its operands; returns the depth.
template <class Problem>
int64_t set_operands(const Context& context, Problem& problem, const Axes& axes, const Side& left,
                     const Side& right, Operand& left_operand, Operand& right_operand,
                     const Place& out, const Batches& batches) {
    problem.rows = left.lines;
    problem.columns = right.lines;
    left_operand.data = left.tensor->data;
    left_operand.line = left.line;
    right_operand.data = right.tensor->data;
    right_operand.line = right.line;
    const int64_t depth = join_depth(context, axes, left, right, left_operand, right_operand);
    const Dtype dtype = left.tensor->dtype;
    set_access(left_operand, dtype, left.lines, depth, batches, batches.left);
    set_access(right_operand, dtype, right.lines, depth, batches, batches.right);
    problem.out.data = out.tensor->mutable_data();
    problem.out.dtype = dtype;
    problem.out.scale = 1;
    return depth;
}

// --- Products of two operands ---

void multiply(const Context& context, Product product, const Axes& axes, const Side& left,
              const Side& right, const Place& out) {
    SumProblem problem{};
    for (int axis = 0; axis < axes.count; ++axis) {
        if (!axes.kept[axis]) continue;
        problem.batches.append(axes.sizes[axis], left.steps[axis], right.steps[axis],
                               out.stack.steps[axis]);
    }
    product.depth = set_operands(context, problem, axes, left, right, problem.left, problem.right,
                                 out, problem.batches);
    problem.out.row = out.stack.row_step;
    problem.out.column = out.stack.column_step;
    problem.product = product;
    problem.choices =
        choose_kernels(context, kFunction, product, {*left.tensor, 0, false, left.range},
                       {*right.tensor, 0, false, right.range}, 0, nullptr);
    sum_products(context, kFunction, problem);
}

// --- Products of three ---

// The sums go to `out` where the partners lie in `own`, row by row of `grad`.
void multiply_by_factors(const Context& context, const FactorRules& rules, const Axes& axes,
                         const Side& grad, const Side& other, const Side& own, const Place& out,
                         int64_t out_row, int64_t out_column) {
    FactorProblem problem{};
    problem.rules = rules;
    problem.other_range = other.range;
    problem.own_range = own.range;
    problem.dtype = grad.tensor->dtype;
    problem.own = own.tensor->data;
    problem.own_row = own.line;
    problem.own_column = own.term;
    problem.out.row = out_row;
    problem.out.column = out_column;
    Batches batches{};
    for (int axis = 0; axis < axes.count; ++axis) {
        if (!axes.kept[axis]) continue;
        batches.append(axes.sizes[axis], grad.steps[axis], other.steps[axis], 0);
        const int64_t steps[4] = {grad.steps[axis], other.steps[axis], own.steps[axis],
                                  out.stack.steps[axis]};
        for (int i = 0; i < 4; ++i) problem.step[i][problem.rank] = steps[i];
        problem.size[problem.rank++] = axes.sizes[axis];
    }
    problem.depth = set_operands(context, problem, axes, grad, other, problem.grad, problem.other,
                                 out, batches);
    multiply_factors(context, kFunction, problem);
}

}  // namespace

void matmul_backward(const Context& context, const ConstTensor& grad, const ConstTensor& a,
                     const ConstTensor& b, const Method& method, Gradient gradient,
                     const Derivative& derivative, const Tensor& grad_a, const Tensor& grad_b) {
    using slipstick::mitchell::Path;
    const DeviceGuard guard(context, kFunction);
    const bool has_rows = a.rank >= 2;
    const bool has_columns = b.rank >= 2;
    const int batch_axes = grad.rank - (has_rows ? 1 : 0) - (has_columns ? 1 : 0);
    const auto stack = [&](const ConstTensor& tensor, bool rows, bool columns) {
        return slipstick::mitchell::stack_of(tensor, rows, columns, batch_axes, grad.shape);
    };
    const Stack stack_g = stack(grad, has_rows, has_columns);
    const Stack stack_a = stack(a, has_rows, true);
    const Stack stack_b = stack(b, true, has_columns);
    const Place out_a{&grad_a, stack(grad_a, has_rows, true)};
    const Place out_b{&grad_b, stack(grad_b, true, has_columns)};
    const Axes for_a{batch_axes, grad.shape, stack_a.has};
    const Axes for_b{batch_axes, grad.shape, stack_b.has};

    const bool exact = gradient == Gradient::kExact;
    const bool mimic = gradient == Gradient::kMimic;
    const auto range = [&](const ConstTensor& tensor) {
        return ranges_of(context, kFunction, {tensor});
    };
    const Range* const range_g = mimic ? range(grad) : nullptr;
    const Range* const range_a = exact || mimic ? range(a) : nullptr;
    const Range* const range_b = exact || mimic ? range(b) : nullptr;
    const auto by_rows = [](const ConstTensor& tensor, const Range* seen, const Stack& s) {
        return Side{&tensor, seen, s.steps, s.rows, s.row_step, s.columns, s.column_step};
    };
    const auto by_columns = [](const ConstTensor& tensor, const Range* seen, const Stack& s) {
        return Side{&tensor, seen, s.steps, s.columns, s.column_step, s.rows, s.row_step};
    };
    const Side g_rows = by_rows(grad, range_g, stack_g);
    const Side g_columns = by_columns(grad, range_g, stack_g);
    const Side a_rows = by_rows(a, range_a, stack_a);
    const Side a_columns = by_columns(a, range_a, stack_a);
    const Side b_rows = by_rows(b, range_b, stack_b);
    const Side b_columns = by_columns(b, range_b, stack_b);

    if (exact) {
        const FactorRules rules = slipstick::mitchell::factor_rules(a.dtype, derivative);
        if (grad_a.size() > 0) {
            multiply_by_factors(context, rules, for_a, g_rows, b_rows, a_rows, out_a,
                                out_a.stack.row_step, out_a.stack.column_step);
        }
        if (grad_b.size() > 0) {
            multiply_by_factors(context, rules, for_b, g_columns, a_columns, b_columns, out_b,
                                out_b.stack.column_step, out_b.stack.row_step);
        }
        return;
    }
    const slipstick::mitchell::Method& description = method.description;
    Product product{};
    product.dtype = a.dtype;
    product.path = Path::kExact;
    if (mimic) {
        product.kind = description.kind;
        product.width = description.width;
        product.bias = description.bias;
        product.parameters = device_parameters(context, kFunction, a.dtype, method);
        product.path = Path::kAuto;
    }
    if (grad_a.size() > 0) multiply(context, product, for_a, g_rows, b_rows, out_a);
    if (grad_b.size() > 0) multiply(context, product, for_b, a_columns, g_columns, out_b);
}

}  // namespace slipstick::cuda::mitchell
