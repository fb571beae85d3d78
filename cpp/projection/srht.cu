// The block SRHT and its adjoint: a block of 4096 numbers lies in shared memory from its reading to
// the sample.
//
// x is read once for every 4096 components, 16 KiB of a row for each block of features. On an H100
// that takes 1130 clocks of a multiprocessor's share of the memory; the signs are 64 Philox blocks,
// the transform three passes and the sample up to 4096 gathers, together 1300 clocks of shared
// memory's 128 bytes a clock for k = 4096, 1050 for k = 256: several blocks of threads overlap
// them.
#include <algorithm>

#include "core/launch.cuh"
#include "projection/srht.cuh"
#include "projection/srht_blocks.cuh"
#include "projection/transform.cuh"

namespace slipstick::cuda::projection {
namespace {

using slipstick::projection::kSrhtStages;
using slipstick::projection::Law;

constexpr int kThreads = kSrhtThreads;
constexpr int64_t kMostBlocks = int64_t{1} << 30;
// Blocks that are to fit a multiprocessor at once, so that one computes while another loads.
template <class Acc>
constexpr int kResident = sizeof(Acc) == 4 ? 3 : 2;

// As store_scaled (core/store.cpp): scaled in float64, rounded once.
template <class T, class Acc>
__device__ __forceinline__ T scaled(Acc sum, double scale) {
    const double value = static_cast<double>(sum) * scale;
    if constexpr (sizeof(T) == 2) {
        return narrow<T>(to_float_odd(value));
    } else {
        return static_cast<T>(value);
    }
}

template <class T>
__global__ void __launch_bounds__(kThreads, kResident<AccOf<T>>)
    sample_vectors(const Vectors vectors, const Sketch sketch, int64_t groups) {
    using Acc = AccOf<T>;
    __shared__ VectorPlaces places;
    __shared__ Signs signs;
    auto* const numbers = dynamic_shared<Acc>();
    Acc* const sums = numbers + padded(kSrhtBlock);  // each is one thread's alone
    const auto thread = static_cast<int>(threadIdx.x);
    for (int64_t at = blockIdx.x; at < groups * vectors.count; at += gridDim.x) {
        const auto group = static_cast<uint32_t>(at % groups);
        const int64_t left = sketch.components - int64_t{group} * kSrhtBlock;
        const int components = left < kSrhtBlock ? static_cast<int>(left) : kSrhtBlock;
        const uint16_t* const rows = sketch.rows + int64_t{group} * kSrhtBlock;
        locate(vectors, at / groups, 1, places);
        for (int i = thread; i < kSrhtBlock; i += kThreads) sums[i] = 0;
        for (int64_t feature = 0; feature < sketch.features;) {
            const Part part = part_at(sketch, feature);
            draw_signs(sketch, group, part.block, signs);
            __syncthreads();
            // The shortest transform that holds the features: row r of the whole one is row r
            // modulo its length of this.
            int stages = 0;
            while (1 << stages < part.first + part.count) ++stages;
            const int length = 1 << stages;
            load<T>(vectors, places.source, 1, part.begin, part.count,
                    [&](int, int number, Acc value) {
                        const int place = part.first + number;
                        numbers[padded(place)] = turned(value, signs.input, place);
                    });
            for (int i = thread; i < length - part.count; i += kThreads)
                numbers[padded(i < part.first ? i : i + part.count)] = 0;
            __syncthreads();
            transform(numbers, {1, 0, 0, 1, stages}, StageScales{});
            for (int i = thread; i < components; i += kThreads)
                sums[i] += turned(numbers[padded(rows[i] & (length - 1))], signs.output, i);
            __syncthreads();
            feature = part.begin + part.count;
        }
        auto* const target = static_cast<ResultOf<T>*>(vectors.out) + places.target[0];
        for (int i = thread; i < components; i += kThreads) {
            target[(int64_t{group} * kSrhtBlock + i) * vectors.out_step] =
                scaled<ResultOf<T>>(sums[i], sketch.scale);
        }
        __syncthreads();
    }
}

// The transpose: whole blocks of features, of which every group of components gives a part. Always
// the whole transform: a shorter one would add in another order, and the bits of a feature would
// depend on those beside it.
template <class T>
__global__ void __launch_bounds__(kThreads, kResident<AccOf<T>>)
    spread_vectors(const Vectors vectors, const Sketch sketch, int64_t blocks) {
    using Acc = AccOf<T>;
    __shared__ VectorPlaces places;
    __shared__ Signs signs;
    auto* const numbers = dynamic_shared<Acc>();
    Acc* const sums = numbers + padded(kSrhtBlock);  // each is one thread's alone
    const auto thread = static_cast<int>(threadIdx.x);
    const auto skipped = static_cast<int64_t>(sketch.first_feature % kSrhtBlock);
    for (int64_t at = blockIdx.x; at < blocks * vectors.count; at += gridDim.x) {
        const int64_t feature = at % blocks * kSrhtBlock - skipped;
        const Part part = part_at(sketch, feature < 0 ? 0 : feature);
        locate(vectors, at / blocks, 1, places);
        for (int i = thread; i < kSrhtBlock; i += kThreads) sums[i] = 0;
        for (int64_t first = 0; first < sketch.components; first += kSrhtBlock) {
            const auto group = static_cast<uint32_t>(first / kSrhtBlock);
            const int64_t left = sketch.components - first;
            const int components = left < kSrhtBlock ? static_cast<int>(left) : kSrhtBlock;
            const uint16_t* const rows = sketch.rows + first;
            draw_signs(sketch, group, part.block, signs);
            for (int i = thread; i < kSrhtBlock; i += kThreads) numbers[padded(i)] = 0;
            __syncthreads();
            load<T>(vectors, places.source, 1, first, components, [&](int, int number, Acc value) {
                numbers[padded(rows[number])] = turned(value, signs.output, number);
            });
            __syncthreads();
            transform(numbers, {1, 0, 0, 1, kSrhtStages}, StageScales{});
            for (int i = thread; i < kSrhtBlock; i += kThreads)
                sums[i] += turned(numbers[padded(i)], signs.input, i);
            __syncthreads();
        }
        auto* const target = static_cast<ResultOf<T>*>(vectors.out) + places.target[0];
        for (int i = thread; i < part.count; i += kThreads) {
            target[(part.begin + i) * vectors.out_step] =
                scaled<ResultOf<T>>(sums[part.first + i], sketch.scale);
        }
        __syncthreads();
    }
}

unsigned blocks_of(int64_t blocks) { return static_cast<unsigned>(std::min(blocks, kMostBlocks)); }

template <class Acc>
constexpr size_t kSharedBytes = static_cast<size_t>(padded(kSrhtBlock) + kSrhtBlock) * sizeof(Acc);

Sketch make_sketch(const Context& context, const char* function, const Law& law,
                   uint64_t first_feature, int64_t features, int64_t components) {
    const auto groups = static_cast<uint64_t>(ceil_div(components, kSrhtBlock));
    return {law.seed,   first_feature, features,
            components, law.scale,     sampled_rows(context, function, law.seed, 0, groups)};
}

}  // namespace

void project_srht(const Context& context, const ConstTensor& x, const Law& law,
                  uint64_t first_feature, const Tensor& out) {
    const char* const function = "project";
    const int axis = x.rank - 1;
    const Vectors vectors = make_vectors(x, out, axis);
    const Sketch sketch =
        make_sketch(context, function, law, first_feature, x.shape[axis], out.shape[out.rank - 1]);
    const int64_t groups = ceil_div(sketch.components, kSrhtBlock);
    dispatch_numbers(x.dtype, [&]<class T>() {
        launch(context, function, sample_vectors<T>, blocks_of(groups * vectors.count), kThreads,
               kSharedBytes<AccOf<T>>, vectors, sketch, groups);
    });
}

void back_project_srht(const Context& context, const ConstTensor& y, const Law& law,
                       uint64_t first_feature, const Tensor& out) {
    const char* const function = "back_project";
    const int axis = y.rank - 1;
    const Vectors vectors = make_vectors(y, out, axis);
    const Sketch sketch =
        make_sketch(context, function, law, first_feature, out.shape[out.rank - 1], y.shape[axis]);
    const auto skipped = static_cast<int64_t>(first_feature % kSrhtBlock);
    const int64_t blocks = ceil_div(skipped + sketch.features, kSrhtBlock);
    dispatch_numbers(y.dtype, [&]<class T>() {
        launch(context, function, spread_vectors<T>, blocks_of(blocks * vectors.count), kThreads,
               kSharedBytes<AccOf<T>>, vectors, sketch, blocks);
    });
}

}  // namespace slipstick::cuda::projection
