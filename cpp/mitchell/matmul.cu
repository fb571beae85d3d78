// Matrix products, of batches and vectors too.
#include <utility>

#include "mitchell/lookup.cuh"
#include "mitchell/sum_products.cuh"

namespace slipstick::cuda::mitchell {
namespace {

constexpr const char* kFunction = "matmul";

int batch_rank(const ConstTensor& tensor) { return tensor.rank > 2 ? tensor.rank - 2 : 0; }

// How far a tensor moves along a batch axis of the result: 0 where it is broadcast.
int64_t batch_step(const ConstTensor& tensor, int result_axes, int axis) {
    const int own = axis - (result_axes - batch_rank(tensor));
    return own < 0 || tensor.shape[own] == 1 ? 0 : tensor.strides[own];
}

// The step along the last axis but `from_last`; 0 along an axis that a vector lacks.
int64_t step_of(const ConstTensor& tensor, int from_last) {
    const int axis = tensor.rank - 1 - from_last;
    return axis < 0 ? 0 : tensor.strides[axis];
}

// Whether a product of few columns may run as b^T a^T, of few rows. Formula products are not
// symmetric in the rounding of their terms; a table need not be symmetric at all.
bool is_turned(const SumProblem& problem) {
    using slipstick::mitchell::Kind;
    const Kind kind = problem.product.kind;
    return problem.columns <= ThinTile::kRows && problem.rows > problem.columns &&
           kind != Kind::kLMulFormula && kind != Kind::kTable;
}

void turn(SumProblem& problem) {
    std::swap(problem.left, problem.right);
    std::swap(problem.rows, problem.columns);
    std::swap(problem.out.row, problem.out.column);
    std::swap(problem.batches.left, problem.batches.right);
}

}  // namespace

void matmul(const Context& context, const ConstTensor& a, const ConstTensor& b,
            const Method& method, double multiplier, const Tensor& out, Path path) {
    if (out.size() == 0) return;
    const DeviceGuard guard(context, kFunction);
    SumProblem problem{};
    const int64_t depth = a.shape[a.rank - 1];
    problem.rows = a.rank >= 2 ? a.shape[a.rank - 2] : 1;
    problem.columns = b.rank >= 2 ? b.shape[b.rank - 1] : 1;
    problem.left.data = a.data;
    problem.left.line = step_of(a, 1);
    problem.left.depth = step_of(a, 0);
    problem.right.data = b.data;
    problem.right.line = b.rank >= 2 ? step_of(b, 0) : 0;
    problem.right.depth = b.rank >= 2 ? step_of(b, 1) : step_of(b, 0);
    // The result as a matrix: an axis that a one-dimensional operand lacks has length 1.
    int axes = out.rank;
    problem.out.data = out.mutable_data();
    problem.out.dtype = out.dtype;
    problem.out.scale = multiplier;
    if (b.rank >= 2) problem.out.column = out.strides[--axes];
    if (a.rank >= 2) problem.out.row = out.strides[--axes];
    for (int axis = 0; axis < axes; ++axis) {
        problem.batches.append(out.shape[axis], batch_step(a, axes, axis),
                               batch_step(b, axes, axis), out.strides[axis]);
    }
    set_access(problem.left, a.dtype, problem.rows, depth, problem.batches, problem.batches.left);
    set_access(problem.right, a.dtype, problem.columns, depth, problem.batches,
               problem.batches.right);

    const slipstick::mitchell::Method& description = method.description;
    problem.product = {a.dtype,
                       description.kind,
                       description.width,
                       description.bias,
                       device_parameters(context, kFunction, a.dtype, method),
                       depth,
                       path};
    const unsigned lookup = 1u << static_cast<int>(Kernel::kLookup);
    if (slipstick::mitchell::candidates(problem.product) == lookup) {
        const LookupProblem lookups{{problem.left, problem.rows, {problem.out.row, 0, 0}},
                                    {problem.right, problem.columns, {problem.out.column, 0, 0}},
                                    depth,
                                    static_cast<uint32_t*>(out.mutable_data()),
                                    problem.batches};
        return multiply_by_lookup(context, kFunction, a.dtype, description.kind,
                                  problem.product.parameters, lookups);
    }
    Arrays left{a, batch_rank(a)};
    Arrays right{b, batch_rank(b)};
    if (is_turned(problem)) {
        turn(problem);
        std::swap(left, right);
    }
    problem.choices =
        choose_kernels(context, kFunction, problem.product, left, right, axes, out.shape);
    sum_products(context, kFunction, problem);
}

}  // namespace slipstick::cuda::mitchell
