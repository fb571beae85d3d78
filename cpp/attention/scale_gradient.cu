// The gradient of the scale from that of each row's lambda, in an order that depends on the shapes
// alone.
#include "attention/device_kernels.cuh"
#include "core/launch.cuh"
#include "core/ptx.cuh"

namespace slipstick::cuda::attention {
namespace {

constexpr int kWarps = 8;
constexpr int64_t kChunk = 4096;  // rows that a warp adds up: 128 a lane

// An entry of the target, or two of them for an affine law, sums the rows along the axes (batch,
// heads, queries) that it lacks.
struct Sums {
    int64_t shape[3];    // entries
    int64_t reduced[3];  // rows of each along the axes
    int64_t chunks;      // of each
    bool affine;

    __host__ __device__ int64_t entries() const { return shape[0] * shape[1] * shape[2]; }
    __host__ __device__ int64_t rows() const { return reduced[0] * reduced[1] * reduced[2]; }
};

// sums[entry, chunk] = the sums of dlambda ln n (affine laws) and dlambda, by a warp.
__global__ void sum_rows(Problem problem, Sums sums, const double* grad_factor, double* target) {
    const int64_t at = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
    if (at >= sums.entries() * sums.chunks) return;
    const int64_t entry = at / sums.chunks;
    const int64_t first = at % sums.chunks * kChunk;
    const int64_t last = first + kChunk < sums.rows() ? first + kChunk : sums.rows();
    const int64_t* const shape = sums.shape;
    const int64_t* const reduced = sums.reduced;
    double weighted = 0;
    double plain = 0;
    for (int64_t row = first + threadIdx.x % kWarp; row < last; row += kWarp) {
        // One of the two numbers of an axis is 1.
        const int64_t query = entry % shape[2] + row % reduced[2];
        const int64_t head = entry / shape[2] % shape[1] + row / reduced[2] % reduced[1];
        const int64_t number = entry / shape[2] / shape[1] + row / reduced[2] / reduced[1];
        const double grad =
            grad_factor[((number * problem.kv_heads + head / problem.group) * problem.queries +
                         query) *
                            problem.group +
                        head % problem.group];
        plain += grad;
        if (!sums.affine) continue;
        const int64_t n = count_of(problem, sequence_of(problem, number), number, head, query);
        weighted += grad * log(static_cast<double>(n < 1 ? 1 : n));
    }
    for (int mask = 1; mask < kWarp; mask *= 2) {
        weighted += shuffle_xor(weighted, mask);
        plain += shuffle_xor(plain, mask);
    }
    if (threadIdx.x % kWarp != 0) return;
    target[2 * at] = weighted;
    target[2 * at + 1] = plain;
}

__device__ __forceinline__ void store_rounded(void* data, Dtype dtype, int64_t index,
                                              double value) {
    switch (dtype) {
        case Dtype::kFloat64:
            static_cast<double*>(data)[index] = value;
            break;
        case Dtype::kFloat32:
            static_cast<float*>(data)[index] = static_cast<float>(value);
            break;
        case Dtype::kFloat16:
            static_cast<Float16*>(data)[index] = to_float16(to_float_odd(value));
            break;
        default:
            static_cast<BFloat16*>(data)[index] = to_bfloat16(to_float_odd(value));
    }
}

// The chunks of an entry in their order, by a thread.
__global__ void store_sums(Sums sums, const double* chunks, Target target, Dtype dtype) {
    const int64_t entry = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (entry >= sums.entries()) return;
    double weighted = 0;
    double plain = 0;
    for (int64_t chunk = entry * sums.chunks; chunk < (entry + 1) * sums.chunks; ++chunk) {
        weighted += chunks[2 * chunk];
        plain += chunks[2 * chunk + 1];
    }
    const int64_t query = entry % sums.shape[2];
    const int64_t head = entry / sums.shape[2] % sums.shape[1];
    const int64_t batch = entry / sums.shape[2] / sums.shape[1];
    const int64_t place = batch * target.batch + head * target.head;
    if (sums.affine) {
        store_rounded(target.data, dtype, place, weighted);
        store_rounded(target.data, dtype, place + target.row, plain);
    } else {
        store_rounded(target.data, dtype, place + query * target.row, plain);
    }
}

}  // namespace

void scale_gradient(const Context& context, const BackwardProblem& backward,
                    const double* grad_factor, const Target& target, const int64_t* target_shape,
                    Dtype target_dtype) {
    const Problem& problem = backward.forward;
    const bool affine = problem.law != Law::kGiven;
    const int64_t all[3] = {problem.sequences, problem.heads, problem.queries};
    Sums sums{};
    sums.affine = affine;
    for (int axis = 0; axis < 3; ++axis) {
        sums.shape[axis] = affine ? (axis == 1 ? problem.heads : 1) : target_shape[axis];
        sums.reduced[axis] = all[axis] / sums.shape[axis];
    }
    sums.chunks = ceil_div(sums.rows(), kChunk);
    const int64_t count = sums.entries() * sums.chunks;
    double* const chunks = context.memory->allocate_array<double>(2 * count);
    launch(context, problem.function, &sum_rows,
           dim3(static_cast<unsigned>(ceil_div(count, kWarps))), dim3(kWarps * kWarp), 0, problem,
           sums, grad_factor, chunks);
    constexpr int threads = 256;
    launch(context, problem.function, &store_sums,
           dim3(static_cast<unsigned>(ceil_div(sums.entries(), threads))), dim3(threads), 0, sums,
           static_cast<const double*>(chunks), target, target_dtype);
}

}  // namespace slipstick::cuda::attention
