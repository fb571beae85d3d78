// project and back_project of dense arrays.
#include <algorithm>

#include "core/error.hpp"
#include "projection/product.cuh"
#include "projection/srht.cuh"
#include "projection/tensor_cores.cuh"

namespace slipstick::cuda::projection {
namespace {

using Wide = Tile<float, 8, 8>;      // 256 x 64
using Narrow = Tile<float, 8, 2>;    // 256 x 16, for 16 columns or less
using Few = Tile<float, 1, 8>;       // 32 x 64, for 32 rows or less
using Doubles = Tile<double, 4, 8>;  // 128 x 64

// --- Few tiles: the chains go to different blocks, and are added in order afterwards ---

constexpr int kThreads = 256;
constexpr int64_t kSliceBytes = int64_t{128} << 20;  // of chains that wait to be added

// Adds `slices` chains to totals, which the first call starts and the last one stores.
template <class Sum>
__global__ void __launch_bounds__(kThreads)
    add_slices_kernel(const Sum* chains, int64_t slices, Sum* totals, int64_t count, bool is_first,
                      bool is_last, ScaledTarget out) {
    const int64_t step = int64_t{gridDim.x} * kThreads;
    for (int64_t n = int64_t{blockIdx.x} * kThreads + threadIdx.x; n < count; n += step) {
        Sum total = is_first ? chains[n] : totals[n] + chains[n];
        for (int64_t slice = 1; slice < slices; ++slice) total += chains[slice * count + n];
        if (is_last) {
            const int64_t row = n / out.columns;
            out.store(offset_of(out.rows, row) + (n - row * out.columns) * out.column_stride,
                      total);
        } else {
            totals[n] = total;
        }
    }
}

template <class T>
void run(const Context& context, const char* function, ProductProblem problem) {
    using Sum = typename T::Sum;
    const auto origin = static_cast<int64_t>(problem.first_depth % kDepthBlock);
    const int64_t chains = ceil_div(origin + problem.depth, kDepthBlock);
    const int64_t tiles =
        ceil_div(problem.columns, T::kColumns) * ceil_div(problem.x_rows.count, T::kRows);
    problem.first_chain = 0;
    problem.chains = chains;
    problem.slice_chains = chains;
    const int64_t resident = resident_blocks(context, 2, function);
    if (chains == 1 || 2 * tiles > resident) {
        launch_product<T>(context, function, problem);
        return;
    }
    const int64_t count = problem.x_rows.count * problem.columns;
    const int64_t most =
        std::max<int64_t>(1, kSliceBytes / (count * static_cast<int64_t>(sizeof(Sum))));
    const int64_t together = std::min(chains, most);
    Sum* const slices = context.memory->allocate_array<Sum>(together * count);
    Sum* const totals = together < chains ? context.memory->allocate_array<Sum>(count) : nullptr;
    problem.slices = slices;
    problem.slice_chains = 1;
    const auto blocks = static_cast<unsigned>(std::min(ceil_div(count, kThreads), 8 * resident));
    for (int64_t first = 0; first < chains; first += together) {
        problem.first_chain = first;
        problem.chains = std::min(together, chains - first);
        launch_product<T>(context, function, problem);
        launch(context, function, add_slices_kernel<Sum>, dim3(blocks), kThreads, 0, slices,
               problem.chains, totals, count, first == 0, first + together >= chains, problem.out);
    }
}

// Whether every row of x can be read in pieces of 16 bytes from its first element on, and from the
// starts of chains.
bool in_pieces(const ConstTensor& x, const Rows& rows, uint64_t first_depth) {
    if (x.dtype != Dtype::kFloat32 && x.dtype != Dtype::kFloat64) return false;
    const int64_t piece = 16 / item_size(x.dtype);
    bool aligned = reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && first_depth % kSignGroup == 0 &&
                   x.strides[x.rank - 1] == 1;
    for (int axis = 0; axis < rows.rank; ++axis) aligned &= rows.strides[axis] % piece == 0;
    return aligned;
}

void check_kind(const char* function, Kind kind) {
    if (static_cast<int>(kind) >= slipstick::projection::kProductKinds) {
        refuse_value(function,
                     "`kind` must be 'rademacher', 'gaussian', 'sparse' or 'srht' on CUDA, got '",
                     name(kind), "'");
    }
}

// The context's device is current.
void multiply(const Context& context, const char* function, const ConstTensor& x, const Law& law,
              bool adjoint, uint64_t first_depth, uint64_t first_column, const Tensor& out) {
    ProductProblem problem{};
    problem.law = law;
    problem.adjoint = adjoint;
    problem.x = x.data;
    problem.dtype = x.dtype;
    problem.depth = x.shape[x.rank - 1];
    problem.x_stride = x.strides[x.rank - 1];
    problem.x_rows = Rows(x);
    problem.in_pieces = in_pieces(x, problem.x_rows, first_depth);
    problem.first_depth = first_depth;
    problem.first_column = first_column;
    problem.columns = out.shape[out.rank - 1];
    problem.out = ScaledTarget(out, law.scale);
    if (out.dtype == Dtype::kFloat64) {
        run<Doubles>(context, function, problem);
    } else if (problem.x_rows.count <= Few::kRows) {
        run<Few>(context, function, problem);
    } else if (problem.columns <= Narrow::kColumns) {
        run<Narrow>(context, function, problem);
    } else {
        run<Wide>(context, function, problem);
    }
}

}  // namespace

void project(const Context& context, const ConstTensor& x, const Law& law, uint64_t first_feature,
             bool fast, const Tensor& out) {
    const char* const function = "project";
    if (law.kind != Kind::kSrht) check_kind(function, law.kind);
    if (out.size() == 0) return;
    const DeviceGuard guard(context, function);
    if (law.kind == Kind::kSrht) return project_srht(context, x, law, first_feature, out);
    if (fast && law.kind == Kind::kRademacher && tensor_cores_serve(context, x, out))
        return project_on_tensor_cores(context, x, law, first_feature, out);
    multiply(context, function, x, law, false, first_feature, 0, out);
}

void back_project(const Context& context, const ConstTensor& y, const Law& law,
                  uint64_t first_feature, const Tensor& out) {
    const char* const function = "back_project";
    if (law.kind != Kind::kSrht) check_kind(function, law.kind);
    if (out.size() == 0) return;
    const DeviceGuard guard(context, function);
    if (law.kind == Kind::kSrht) return back_project_srht(context, y, law, first_feature, out);
    multiply(context, function, y, law, true, 0, first_feature, out);
}

}  // namespace slipstick::cuda::projection
