// project and back_project of dense arrays.
#include <algorithm>

#include "core/error.hpp"
#include "projection/hashed.cuh"
#include "projection/product.cuh"
#include "projection/srht.cuh"
#include "projection/tensor_cores.cuh"

namespace slipstick::cuda::projection {
namespace {

using Wide = Tile<float, 8, 8>;      // 256 x 64
using Medium = Tile<float, 8, 4>;    // 256 x 32, for 32 columns or less
using Narrow = Tile<float, 8, 2>;    // 256 x 16, for 16 columns or less
using Few = Tile<float, 1, 8>;       // 32 x 64, for few rows
using Doubles = Tile<double, 4, 8>;  // 128 x 64

// So many rows are two tiles of Few, or a quarter of another.
constexpr int64_t kFewRows = 64;

// --- Few tiles: the chains go to different blocks, and are added in order afterwards ---

constexpr int kThreads = 256;
constexpr int64_t kSliceBytes = int64_t{128} << 20;  // of chains that wait to be added

// Adds `slices` chains to totals, which the first call starts and the last one stores.
template <class Sum>
__global__ void __launch_bounds__(kThreads)
    add_slices_kernel(const Sum* chains, int64_t slices, Sum* totals, int64_t count, bool is_first,
                      bool is_last, ScaledTarget out) {
    // Of signs a thread has the columns of a byte.
    const bool signs = out.dtype == Dtype::kUInt8;
    const int width = signs ? 8 : 1;
    const int64_t across = (out.columns + width - 1) / width;
    const int64_t tasks = count / out.columns * across;
    const int64_t step = int64_t{gridDim.x} * kThreads;
    for (int64_t task = int64_t{blockIdx.x} * kThreads + threadIdx.x; task < tasks; task += step) {
        const int64_t row = task / across;
        const int64_t column = (task - row * across) * width;
        const int64_t line = offset_of(out.rows, row);
        unsigned byte = 0;
        for (int i = 0; i < width && column + i < out.columns; ++i) {
            const int64_t n = row * out.columns + column + i;
            Sum total = is_first ? chains[n] : totals[n] + chains[n];
            for (int64_t slice = 1; slice < slices; ++slice) total += chains[slice * count + n];
            byte |= static_cast<unsigned>(total >= Sum{0}) << i;
            if (!is_last) {
                totals[n] = total;
            } else if (!signs) {
                out.store(line + column * out.column_stride, total);
            }
        }
        if (is_last && signs)
            static_cast<uint8_t*>(out.data)[line + column / 8] = static_cast<uint8_t>(byte);
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

ProductProblem problem_of(const ConstTensor& x, const Law& law, uint64_t first_depth,
                          const ScaledTarget& out) {
    ProductProblem problem{};
    problem.law = law;
    problem.x = x.data;
    problem.dtype = x.dtype;
    problem.depth = x.shape[x.rank - 1];
    problem.x_stride = x.strides[x.rank - 1];
    problem.x_rows = Rows(x);
    problem.in_pieces = in_pieces(x, problem.x_rows, first_depth);
    problem.first_depth = first_depth;
    problem.columns = out.columns;
    problem.out = out;
    return problem;
}

// The context's device is current.
void multiply(const Context& context, const char* function, const ProductProblem& problem) {
    const bool signs = problem.out.dtype == Dtype::kUInt8;  // a thread's eight columns are a byte
    if (!sums_in_float(problem.dtype)) {
        run<Doubles>(context, function, problem);
    } else if (problem.x_rows.count <= kFewRows) {
        run<Few>(context, function, problem);
    } else if (!signs && problem.columns <= Narrow::kColumns) {
        run<Narrow>(context, function, problem);
    } else if (!signs && problem.columns <= Medium::kColumns) {
        run<Medium>(context, function, problem);
    } else {
        run<Wide>(context, function, problem);
    }
}

}  // namespace

void project(const Context& context, const ConstTensor& x, const Law& law, uint64_t first_feature,
             bool fast, const Tensor& out) {
    const char* const function = "project";
    if (out.size() == 0) return;
    const DeviceGuard guard(context, function);
    if (law.kind == Kind::kSrht) return project_srht(context, x, law, first_feature, out);
    if (is_hashed(law.kind)) return project_hashed(context, x, law, first_feature, out);
    if (fast && law.kind == Kind::kRademacher && tensor_cores_serve(context, x, out))
        return project_on_tensor_cores(context, x, law, first_feature, out);
    multiply(context, function, problem_of(x, law, first_feature, ScaledTarget(out, law.scale)));
}

void back_project(const Context& context, const ConstTensor& y, const Law& law,
                  uint64_t first_feature, const Tensor& out) {
    const char* const function = "back_project";
    if (out.size() == 0) return;
    const DeviceGuard guard(context, function);
    if (law.kind == Kind::kSrht) return back_project_srht(context, y, law, first_feature, out);
    if (is_hashed(law.kind)) return back_project_hashed(context, y, law, first_feature, out);
    ProductProblem problem = problem_of(y, law, 0, ScaledTarget(out, law.scale));
    problem.adjoint = true;
    problem.first_column = first_feature;
    multiply(context, function, problem);
}

void gaussian_signs(const Context& context, const ConstTensor& x, uint64_t seed, int64_t n_bits,
                    const Tensor& codes) {
    const char* const function = "SimHash.hash";
    if (codes.size() == 0) return;
    const DeviceGuard guard(context, function);
    ScaledTarget out(codes, 1);
    out.columns = n_bits;
    multiply(context, function, problem_of(x, {Kind::kGaussian, seed}, 0, out));
}

}  // namespace slipstick::cuda::projection
