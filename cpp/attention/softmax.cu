// The softmax of given scores along any axis: three passes over a row, of which the first finds n
// and the largest score, the second the sum, and the third writes the weights. The passes behind
// the first find a row in a cache. A thread writes only what it alone has read, so the result may
// take the scores' place.
#include <algorithm>
#include <cmath>
#include <vector>

#include "attention/cuda.hpp"
#include "attention/elements.cuh"
#include "attention/numbers.hpp"
#include "attention/rules.hpp"
#include "core/launch.cuh"
#include "core/ptx.cuh"
#include "core/upload.cuh"

namespace slipstick::cuda::attention {
namespace {

using slipstick::attention::Law;

constexpr const char* kFunction = "softmax";
constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarp;

// How the threads of a block share rows. Score j belongs to chain j % kThreads of its row, whoever
// computes that: chain 32 w + r is
//   kBlock  thread 32 w + r's, and the row its block's
//   kWarp   lane r's, who has eight chains
//   kLane   warp w's, in the lane of the row, who has 32 of them: for rows whose scores lie apart,
//           and for short ones
// The chains of each r are added up in the order of w, then those sums as a tree: so a row has the
// same bits in every layout.
enum class Shares { kBlock, kWarp, kLane };

struct Axis {
    int64_t length;
    int64_t source;  // steps of the scores, of the result, and of what lambda is made of
    int64_t target;
    int64_t scale;
};

struct Softmax {
    const void* source;
    void* target;
    int64_t rows;
    int64_t count;  // of a row
    int64_t source_step;
    int64_t target_step;
    int rank;             // of the rows
    Axis axes[kMaxRank];  // the last one runs fastest
    Shares shares;
    Law law;
    const double* parameters;  // or null
    double numbers[4];         // where all rows have the same
    const void* given;         // lambda, or null
    Dtype given_dtype;
};

struct RowPlace {
    int64_t source;
    int64_t target;
    int64_t scale;
};

__device__ __forceinline__ RowPlace place_of(const Softmax& softmax, int64_t row) {
    RowPlace place{};
    for (int i = softmax.rank - 1; i >= 0; --i) {
        const Axis& axis = softmax.axes[i];
        const int64_t position = i == 0 ? row : row % axis.length;
        row /= axis.length;
        place.source += position * axis.source;
        place.target += position * axis.target;
        place.scale += position * axis.scale;
    }
    return place;
}

__device__ __forceinline__ double number_at(const void* data, Dtype dtype, int64_t index) {
    switch (dtype) {
        case Dtype::kFloat32:
            return static_cast<const float*>(data)[index];
        case Dtype::kFloat64:
            return static_cast<const double*>(data)[index];
        case Dtype::kFloat16:
            return to_float(static_cast<const Float16*>(data)[index]);
        default:
            return to_float(static_cast<const BFloat16*>(data)[index]);
    }
}

__device__ __forceinline__ double factor_of(const Softmax& softmax, const RowPlace& place,
                                            int64_t n) {
    if (softmax.law == Law::kGiven) {
        return softmax.given == nullptr
                   ? softmax.numbers[0]
                   : number_at(softmax.given, softmax.given_dtype, place.scale);
    }
    const double* const numbers =
        softmax.parameters == nullptr ? softmax.numbers : softmax.parameters + place.scale;
    return slipstick::attention::factor(softmax.law, numbers, n);
}

// What a thread knows of its row, and then all who share the row.
template <class Acc>
struct Extremes {
    Acc least;  // of the scores above -inf; NaNs are counted but not compared
    Acc most;
    int64_t count;
};
template <class Acc>
__device__ __forceinline__ Extremes<Acc> joined(const Extremes<Acc>& a, const Extremes<Acc>& b) {
    return {b.least < a.least ? b.least : a.least, b.most > a.most ? b.most : a.most,
            a.count + b.count};
}

template <class Acc>
__device__ __forceinline__ Extremes<Acc> from_lane(const Extremes<Acc>& value, int mask) {
    return {shuffle_xor(value.least, mask), shuffle_xor(value.most, mask),
            shuffle_xor(value.count, mask)};
}

// Of all who share the row.
template <class Acc>
__device__ __forceinline__ Extremes<Acc> joined_by_all(Extremes<Acc> own, Shares shares,
                                                       Extremes<Acc> (&places)[kWarps][kWarp]) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    if (shares != Shares::kLane) {
#pragma unroll 1
        for (int distance = 1; distance < kWarp; distance *= 2)
            own = joined(own, from_lane(own, distance));
    }
    if (shares == Shares::kWarp) return own;
    places[threadIdx.x / kWarp][lane] = own;
    __syncthreads();
    own = places[0][lane];
    for (int warp = 1; warp < kWarps; ++warp) own = joined(own, places[warp][lane]);
    return own;
}

__device__ __forceinline__ double sum_of_warps(double own, double (&places)[kWarps][kWarp]) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    __syncthreads();
    places[threadIdx.x / kWarp][lane] = own;
    __syncthreads();
    double sum = places[0][lane];
    for (int warp = 1; warp < kWarps; ++warp) sum += places[warp][lane];
    return sum;
}

// weight(j) of all of the row, by its chains: the thread's begin at first, first + step, ...
template <int chains, class Weight>
__device__ __forceinline__ void add_chains(int64_t count, int64_t first, int64_t step,
                                           const Weight& weight, double (&sums)[chains]) {
#pragma unroll
    for (double& sum : sums) sum = 0;
    for (int64_t begin = first; begin < count; begin += kThreads) {
#pragma unroll
        for (int i = 0; i < chains; ++i)
            if (begin + i * step < count) sums[i] += static_cast<double>(weight(begin + i * step));
    }
}

template <class Weight>
__device__ __forceinline__ double row_sum(Shares shares, int64_t count, int64_t first,
                                          const Weight& weight, double (&places)[kWarps][kWarp]) {
    double sum = 0;
    if (shares == Shares::kLane) {
        double sums[kWarp];
        add_chains(count, first, 1, weight, sums);
#pragma unroll
        for (double& chain : sums) chain = sum_of_warps(chain, places);
#pragma unroll
        for (int distance = 1; distance < kWarp; distance *= 2) {
#pragma unroll
            for (int i = 0; i < kWarp; i += 2 * distance) sums[i] += sums[i + distance];
        }
        return sums[0];
    }
    if (shares == Shares::kWarp) {
        double sums[kWarps];
        add_chains(count, first, kWarp, weight, sums);
        sum = sums[0];
#pragma unroll
        for (int i = 1; i < kWarps; ++i) sum += sums[i];
    } else {
        double sums[1];
        add_chains(count, first, 0, weight, sums);
        sum = sum_of_warps(sums[0], places);
    }
#pragma unroll
    for (int distance = 1; distance < kWarp; distance *= 2) sum += shuffle_xor(sum, distance);
    return sum;
}

template <class T>
__global__ void __launch_bounds__(kThreads) weigh_rows(Softmax softmax) {
    using Acc = AccOf<T>;
    constexpr Acc infinity = std::numeric_limits<Acc>::infinity();
    __shared__ Extremes<Acc> extremes[kWarps][kWarp];
    __shared__ double sums[kWarps][kWarp];
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    int64_t row = blockIdx.x;
    int64_t first = threadIdx.x;
    int64_t step = kThreads;  // from a chain of the thread to its next
    int chains = 1;
    if (softmax.shares == Shares::kWarp) {
        row = row * kWarps + warp;
        first = lane;
        step = kWarp;
        chains = kWarps;
    } else if (softmax.shares == Shares::kLane) {
        row = row * kWarp + lane;
        first = warp * kWarp;
        step = 1;
        chains = kWarp;
    }
    // Those without a row come along to the barriers.
    const int64_t count = row < softmax.rows ? softmax.count : 0;
    const RowPlace place = place_of(softmax, row < softmax.rows ? row : 0);
    const T* const scores = static_cast<const T*>(softmax.source) + place.source;
    const auto for_own = [&](auto use) {
        for (int64_t begin = first; begin < count; begin += kThreads) {
            const int64_t end = begin + chains * step < count ? begin + chains * step : count;
            for (int64_t j = begin; j < end; j += step) use(j);
        }
    };

    Extremes<Acc> seen{infinity, -infinity, 0};
    for_own([&](int64_t j) {
        const Acc score = widened(scores[j * softmax.source_step]);
        if (score != -infinity) seen = joined(seen, {score, score, 1});
    });
    seen = joined_by_all(seen, softmax.shares, extremes);
    const auto factor = static_cast<Acc>(factor_of(softmax, place, seen.count));
    const auto scaled = [&](int64_t j) {
        const Acc score = widened(scores[j * softmax.source_step]);
        return score == -infinity ? score : score * factor;
    };
    // The products' largest: rounding keeps their order. Without one any finite number will do.
    Acc reference = factor * (factor < 0 ? seen.least : seen.most);
    if (seen.count == 0 || reference == -infinity) reference = 0;
    const auto weight = [&](int64_t j) { return std::exp(scaled(j) - reference); };

    const double total = row_sum(softmax.shares, count, first, weight, sums);
    const auto divisor = static_cast<Acc>(seen.count == 0 ? 1.0 : total);
    T* const target = static_cast<T*>(softmax.target) + place.target;
    for_own([&](int64_t j) { target[j * softmax.target_step] = rounded<T>(weight(j) / divisor); });
}

Shares shares_of(int64_t count, int64_t source_step, int64_t target_step) {
    if (count <= kWarps || source_step != 1 || target_step != 1) return Shares::kLane;
    return count > 1024 ? Shares::kBlock : Shares::kWarp;
}

int64_t magnitude(int64_t step) { return step < 0 ? -step : step; }

// The scores' axes without that which is normalised. The order of rows is free: neighbours in
// memory come one after another.
void add_axes(Softmax& softmax, const ConstTensor& scores, const Tensor& out, const Scale& scale,
              int normalised) {
    const ConstTensor& values = scale.values;
    const bool is_given = scale.law == Law::kGiven;
    const int rows_rank = scores.rank - 1;
    softmax.rows = 1;
    for (int i = 0, own = 0; i < scores.rank; ++i) {
        if (i == normalised) continue;
        Axis axis{scores.shape[i], scores.strides[i], out.strides[i], 0};
        const int of_values = own - (rows_rank - values.rank);
        if (is_given && of_values >= 0 && values.shape[of_values] > 1)
            axis.scale = values.strides[of_values];
        if (!is_given && own == rows_rank - 2 && values.shape[0] > 1)
            axis.scale = values.strides[0];
        ++own;
        softmax.rows *= axis.length;
        if (axis.length != 1) softmax.axes[softmax.rank++] = axis;
    }
    std::stable_sort(softmax.axes, softmax.axes + softmax.rank, [](const Axis& a, const Axis& b) {
        return magnitude(a.source) > magnitude(b.source);
    });
}

// The elements of an array on the host, row by row.
std::vector<double> numbers_of(const ConstTensor& tensor) {
    std::vector<double> numbers;
    for (int64_t number = 0; number < tensor.size(); ++number) {
        int64_t offset = 0;
        int64_t rest = number;
        for (int i = tensor.rank - 1; i >= 0; --i) {
            offset += rest % tensor.shape[i] * tensor.strides[i];
            rest /= tensor.shape[i];
        }
        numbers.push_back(slipstick::attention::float_at(tensor.data, tensor.dtype, offset));
    }
    return numbers;
}

std::vector<int64_t> contiguous_strides(const ConstTensor& tensor) {
    std::vector<int64_t> strides(static_cast<size_t>(tensor.rank));
    int64_t step = 1;
    for (int i = tensor.rank - 1; i >= 0; --i) {
        strides[static_cast<size_t>(i)] = step;
        step *= tensor.shape[i];
    }
    return strides;
}

}  // namespace

void softmax(const Context& context, const ConstTensor& scores, const Scale& scale,
             bool scale_on_device, int64_t axis, const Tensor& out) {
    if (out.size() == 0) return;
    const DeviceGuard guard(context, kFunction);
    const int normalised = static_cast<int>(axis < 0 ? axis + scores.rank : axis);
    Softmax problem{};
    problem.source = scores.data;
    problem.target = out.mutable_data();
    problem.count = scores.shape[normalised];
    problem.source_step = scores.strides[normalised];
    problem.target_step = out.strides[normalised];
    problem.shares = shares_of(problem.count, problem.source_step, problem.target_step);
    problem.law = scale.law;

    Scale device_scale = scale;
    ConstTensor& values = device_scale.values;
    const std::vector<int64_t> strides = contiguous_strides(values);
    const bool is_given = scale.law == Law::kGiven;
    if (!scale_on_device) {
        const std::vector<double> numbers = numbers_of(values);
        values.dtype = Dtype::kFloat64;
        values.strides = strides.data();
        // What all rows have travels in the problem.
        if (values.size() == (is_given ? 1 : values.shape[1])) {
            std::copy(numbers.begin(), numbers.end(), problem.numbers);
            values.data = nullptr;
        } else {
            values.data = upload(context, kFunction, numbers);
        }
    }
    if (is_given) {
        problem.given = values.data;
        problem.given_dtype = values.dtype;
    } else {
        problem.parameters = values.as<double>();
    }
    add_axes(problem, scores, out, device_scale, normalised);

    const int64_t rows_a_block = problem.shares == Shares::kBlock  ? 1
                                 : problem.shares == Shares::kWarp ? kWarps
                                                                   : kWarp;
    const dim3 blocks(static_cast<unsigned>(ceil_div(problem.rows, rows_a_block)));
    dispatch<float, double, Float16, BFloat16>(scores.dtype, [&]<class T>() {
        launch(context, kFunction, &weigh_rows<T>, blocks, dim3(kThreads), 0, problem);
    });
}

}  // namespace slipstick::cuda::attention
