// Attention over several disjoint sets of keys, from what it gave for each; the formulas stand in
// merge.cpp. Shares and statistics are float64, a row to a thread; then each element of the result
// is the sum of the parts' in their order.
#include <cmath>

#include "attention/cuda.hpp"
#include "attention/elements.cuh"
#include "attention/prepare.cuh"
#include "attention/view.hpp"
#include "core/launch.cuh"
#include "core/upload.cuh"

namespace slipstick::cuda::attention {
namespace {

constexpr const char* kFunction = "merge_attention";
constexpr int kThreads = 256;

struct MergePart {
    Operand out;
    Operand lse;
    Operand entropy;
    Operand max_logit;
};

struct Merge {
    const MergePart* parts;
    int64_t count;
    int64_t batch;
    int64_t heads;
    int64_t queries;
    int64_t columns;
    Target out;
    Target lse;
    Target entropy;
    Target max_logit;
    void* weights;  // count x rows, of the accumulator's type; negative where the part has no keys

    __host__ __device__ int64_t rows() const { return batch * heads * queries; }
};

struct RowPlace {
    int64_t batch;
    int64_t head;
    int64_t query;
};
__device__ __forceinline__ RowPlace place_of(const Merge& merge, int64_t row) {
    return {row / merge.queries / merge.heads, row / merge.queries % merge.heads,
            row % merge.queries};
}

template <class Acc>
__device__ __forceinline__ double statistic(const Operand& operand, const RowPlace& at) {
    return *operand.at<const Acc>(at.batch, at.head, at.query);
}

template <class Acc>
__global__ void __launch_bounds__(kThreads) weigh_parts(Merge merge) {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    const int64_t rows = merge.rows();
    const int64_t row = int64_t{blockIdx.x} * kThreads + threadIdx.x;
    if (row >= rows) return;
    const RowPlace at = place_of(merge, row);
    double largest = -infinity;    // of the log-sum-exps; NaN if one is
    double max_logit = -infinity;  // +inf before NaN, as in attention
    for (int64_t p = 0; p < merge.count; ++p) {
        const double lse = statistic<Acc>(merge.parts[p].lse, at);
        if (lse == -infinity) continue;
        const double top = statistic<Acc>(merge.parts[p].max_logit, at);
        if (lse != lse || lse > largest) largest = lse;
        const bool higher = top != top || top > max_logit;
        if (top == infinity || (higher && max_logit != infinity)) max_logit = top;
    }
    double sum = 0;
    for (int64_t p = 0; p < merge.count; ++p) {
        const double lse = statistic<Acc>(merge.parts[p].lse, at);
        if (lse != -infinity) sum += std::exp(lse - largest);
    }
    const double log_sum = std::log(sum);
    double entropy = 0;
    for (int64_t p = 0; p < merge.count; ++p) {
        Acc& share = static_cast<Acc*>(merge.weights)[p * rows + row];
        const double lse = statistic<Acc>(merge.parts[p].lse, at);
        share = -1;
        if (lse == -infinity) continue;
        const double below = lse - largest;
        const double weight = std::exp(below) / sum;
        share = static_cast<Acc>(weight);
        // 0 ln 0 = 0: the weight is 0 before `below` could be -inf.
        entropy += weight * (statistic<Acc>(merge.parts[p].entropy, at) + (log_sum - below));
    }
    const bool empty = largest == -infinity;
    *merge.lse.at<Acc>(at.batch, at.head, at.query) =
        static_cast<Acc>(empty ? -infinity : largest + log_sum);
    *merge.entropy.at<Acc>(at.batch, at.head, at.query) = static_cast<Acc>(empty ? 0.0 : entropy);
    *merge.max_logit.at<Acc>(at.batch, at.head, at.query) = static_cast<Acc>(max_logit);
}

template <class T>
__global__ void __launch_bounds__(kThreads) add_parts(Merge merge) {
    using Acc = AccOf<T>;
    const int64_t rows = merge.rows();
    const int64_t index = int64_t{blockIdx.x} * kThreads + threadIdx.x;
    if (index >= rows * merge.columns) return;
    const int64_t row = index / merge.columns;
    const int64_t column = index % merge.columns;
    const RowPlace at = place_of(merge, row);
    const Acc* weight = static_cast<const Acc*>(merge.weights) + row;
    Acc sum = 0;
    for (int64_t p = 0; p < merge.count; ++p, weight += rows) {
        if (*weight < 0) continue;
        sum +=
            *weight * widened(*merge.parts[p].out.at<const T>(at.batch, at.head, at.query, column));
    }
    *merge.out.at<T>(at.batch, at.head, at.query, column) = rounded<T>(sum);
}

template <class T>
void run(const Context& context, Merge merge) {
    using Acc = AccOf<T>;
    merge.weights = context.memory->allocate_array<Acc>(merge.count * merge.rows());
    const auto blocks = [](int64_t threads) {
        return dim3(static_cast<unsigned>(ceil_div(threads, kThreads)));
    };
    launch(context, kFunction, &weigh_parts<Acc>, blocks(merge.rows()), dim3(kThreads), 0, merge);
    if (merge.columns == 0) return;
    launch(context, kFunction, &add_parts<T>, blocks(merge.rows() * merge.columns), dim3(kThreads),
           0, merge);
}

}  // namespace

void merge(const Context& context, const std::vector<Part>& parts, const Tensor& out,
           const Stats& stats) {
    if (stats.lse.size() == 0) return;
    const DeviceGuard guard(context, kFunction);
    std::vector<MergePart> views;
    for (const Part& part : parts) {
        views.push_back({operand_of(part.out), row_operand_of(part.lse),
                         row_operand_of(part.entropy), row_operand_of(part.max_logit)});
    }
    const slipstick::attention::View<4> shape(out);
    const Merge problem{upload(context, kFunction, views),
                        static_cast<int64_t>(parts.size()),
                        shape.shape[0],
                        shape.shape[1],
                        shape.shape[2],
                        shape.shape[3],
                        target_of(out),
                        row_target_of(stats.lse),
                        row_target_of(stats.entropy),
                        row_target_of(stats.max_logit),
                        nullptr};
    dispatch<float, double, Float16, BFloat16>(out.dtype,
                                               [&]<class T>() { run<T>(context, problem); });
}

}  // namespace slipstick::cuda::attention
