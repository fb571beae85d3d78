// Hamming distances of packed codes, broadcast against each other: one thread a distance.
#include <algorithm>

#include "core/launch.cuh"
#include "core/nest.hpp"
#include "projection/codes.cuh"
#include "projection/cuda.hpp"

namespace slipstick::cuda::projection {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostBlocks = int64_t{1} << 30;

struct Pairs {
    int rank;
    int64_t shape[kMaxRank];
    int64_t stride[kMaxRank][3];  // of the result and of both operands' rows, in bytes
    int64_t count;
    const uint8_t* a;
    const uint8_t* b;
    int64_t a_step;
    int64_t b_step;
    int64_t bytes;
    char* out;
};

__global__ void __launch_bounds__(kThreads) pair_distances(const Pairs pairs) {
    for (int64_t at = int64_t{blockIdx.x} * kThreads + threadIdx.x; at < pairs.count;
         at += int64_t{gridDim.x} * kThreads) {
        int64_t offset[3] = {0, 0, 0};
        int64_t rest = at;
        for (int axis = pairs.rank; axis-- > 0;) {
            const int64_t index = rest % pairs.shape[axis];
            rest /= pairs.shape[axis];
            for (int i = 0; i < 3; ++i) offset[i] += index * pairs.stride[axis][i];
        }
        const uint8_t* const a = pairs.a + offset[1];
        const uint8_t* const b = pairs.b + offset[2];
        int32_t distance = 0;
        for (int64_t byte = 0; byte < pairs.bytes; ++byte) {
            distance +=
                population(static_cast<uint32_t>(a[byte * pairs.a_step]) ^ b[byte * pairs.b_step]);
        }
        *reinterpret_cast<int32_t*>(pairs.out + offset[0]) = distance;
    }
}

}  // namespace

void hamming_distance(const Context& context, const ConstTensor& a, const ConstTensor& b,
                      const Tensor& out) {
    if (out.size() == 0) return;
    const DeviceGuard guard(context, "hamming_distance");
    const auto rows_of = [](const ConstTensor& codes) {
        return ConstTensor{codes.data, codes.dtype, codes.rank - 1, codes.shape, codes.strides};
    };
    const ConstTensor a_rows = rows_of(a);
    const ConstTensor b_rows = rows_of(b);
    const Nest nest = make_nest(out, {&a_rows, &b_rows});
    Pairs pairs{};
    pairs.rank = nest.rank;
    for (int axis = 0; axis < nest.rank; ++axis) {
        const Nest::Axis& own = nest.axes[static_cast<size_t>(axis)];
        pairs.shape[axis] = own.size;
        std::copy(own.stride.begin(), own.stride.end(), pairs.stride[axis]);
    }
    pairs.count = out.size();
    pairs.a = a.as<uint8_t>();
    pairs.b = b.as<uint8_t>();
    pairs.a_step = a.strides[a.rank - 1];
    pairs.b_step = b.strides[b.rank - 1];
    pairs.bytes = a.shape[a.rank - 1];
    pairs.out = static_cast<char*>(out.mutable_data());
    launch(context, "hamming_distance", pair_distances,
           static_cast<unsigned>(std::min(ceil_div(pairs.count, kThreads), kMostBlocks)), kThreads,
           0, pairs);
}

}  // namespace slipstick::cuda::projection
