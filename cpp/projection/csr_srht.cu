// The block SRHT of sparse rows: the nonzeros of a block of features are spread over zeros, blocks
// without one are passed over.
#include <algorithm>

#include "core/launch.cuh"
#include "projection/csr.cuh"
#include "projection/srht.cuh"
#include "projection/srht_blocks.cuh"
#include "projection/transform.cuh"

namespace slipstick::cuda::projection {
namespace {

constexpr int64_t kMostBlocks = int64_t{1} << 30;

template <class Sum>
__global__ void __launch_bounds__(kSrhtThreads)
    sample_rows(const SparseRows x, const Sketch sketch, const ScaledTarget out, int64_t groups) {
    __shared__ Signs signs;
    __shared__ unsigned wrong;
    auto* const numbers = dynamic_shared<Sum>();
    Sum* const sums = numbers + padded(kSrhtBlock);  // each is one thread's alone
    const auto thread = static_cast<int>(threadIdx.x);
    const uint64_t last_feature = x.first_feature + static_cast<uint64_t>(x.features - 1);
    for (int64_t at = blockIdx.x; at < groups * x.rows; at += gridDim.x) {
        const auto group = static_cast<uint32_t>(at % groups);
        const int64_t row = at / groups;
        const int64_t left = sketch.components - int64_t{group} * kSrhtBlock;
        const int components = left < kSrhtBlock ? static_cast<int>(left) : kSrhtBlock;
        const uint16_t* const rows = sketch.rows + int64_t{group} * kSrhtBlock;
        const Span span = span_of(x, row);
        if (thread == 0) wrong = span.valid ? 0 : 1;
        for (int i = thread; i < components; i += kSrhtThreads) sums[i] = 0;
        __syncthreads();
        for (int64_t i = span.begin + thread; i < span.end; i += kSrhtThreads)
            if (!is_in_order(x, span, i)) wrong = 1;
        __syncthreads();
        const bool valid = wrong == 0;
        for (int64_t begin = span.begin; valid && begin < span.end;) {
            const uint64_t block =
                (x.first_feature + static_cast<uint64_t>(x.column(begin))) / kSrhtBlock;
            // Columns increase: by bisection the first element of a later block.
            int64_t end = begin + 1;
            for (int64_t high = span.end; end < high;) {
                const int64_t middle = end + (high - end) / 2;
                const uint64_t feature = x.first_feature + static_cast<uint64_t>(x.column(middle));
                (feature / kSrhtBlock == block ? end : high) =
                    feature / kSrhtBlock == block ? middle + 1 : middle;
            }
            // As for dense rows the shortest transform that holds the features there are.
            const int reach = block == last_feature / kSrhtBlock
                                  ? static_cast<int>(last_feature % kSrhtBlock) + 1
                                  : kSrhtBlock;
            int stages = 0;
            while (1 << stages < reach) ++stages;
            const int length = 1 << stages;
            draw_signs(sketch, group, block, signs);
            for (int i = thread; i < length; i += kSrhtThreads) numbers[padded(i)] = 0;
            __syncthreads();
            for (int64_t i = begin + thread; i < end; i += kSrhtThreads) {
                const auto place = static_cast<int>(
                    (x.first_feature + static_cast<uint64_t>(x.column(i))) % kSrhtBlock);
                numbers[padded(place)] =
                    turned(static_cast<const Sum*>(x.values)[i], signs.input, place);
            }
            __syncthreads();
            transform(numbers, {1, 0, 0, 1, stages}, StageScales{});
            for (int i = thread; i < components; i += kSrhtThreads)
                sums[i] += turned(numbers[padded(rows[i] & (length - 1))], signs.output, i);
            __syncthreads();
            begin = end;
        }
        for (int i = thread; i < components; i += kSrhtThreads) {
            out.store(
                offset_of(out.rows, row) + (int64_t{group} * kSrhtBlock + i) * out.column_stride,
                valid ? sums[i] : std::numeric_limits<Sum>::quiet_NaN());
        }
        __syncthreads();
    }
}

}  // namespace

void project_srht(const Context& context, const SparseRows& x, const Law& law, const Tensor& out) {
    const ScaledTarget target(out, law.scale);
    const int64_t groups = ceil_div(target.columns, kSrhtBlock);
    const Sketch sketch{
        law.seed,   x.first_feature,
        x.features, target.columns,
        law.scale,  sampled_rows(context, "project", law.seed, 0, static_cast<uint64_t>(groups))};
    const auto blocks = static_cast<unsigned>(std::min(groups * x.rows, kMostBlocks));
    const auto run = [&]<class Sum>() {
        const auto bytes = static_cast<size_t>(padded(kSrhtBlock) + kSrhtBlock) * sizeof(Sum);
        launch(context, "project", sample_rows<Sum>, blocks, kSrhtThreads, bytes, x, sketch, target,
               groups);
    };
    out.dtype == Dtype::kFloat64 ? run.operator()<double>() : run.operator()<float>();
}

}  // namespace slipstick::cuda::projection
