#include "mitchell/ranges.cuh"

#include <algorithm>

#include "mitchell/elementwise.cuh"
#include "mitchell/operands.hpp"

namespace slipstick::cuda::mitchell {
namespace {

// --- Scans ---

constexpr int kScanThreads = 256;
constexpr int kScanBlocks = 5;  // that fit a multiprocessor

// The axes of a batch, and the steps of its operands along them.
struct Batch {
    int rank;
    int64_t size[kMaxRank];
    int64_t step[2][kMaxRank];
};

__device__ __forceinline__ int64_t place_in(const Batch& batch, int operand, int64_t index) {
    int64_t place = 0;
#pragma unroll 1
    for (int axis = batch.rank - 1; axis >= 0; --axis) {
        const int64_t outer = index / batch.size[axis];
        place += (index - outer * batch.size[axis]) * batch.step[operand][axis];
        index = outer;
    }
    return place;
}

// Bits is the unsigned type of an element's width; `above` are the bits of magnitudes.
template <class Bits>
__global__ void __launch_bounds__(kScanThreads, kScanBlocks)
    scan_kernel(Walk walk, Batch batch, int64_t arrays, uint32_t above, uint32_t smallest,
                Range* ranges) {
    constexpr int elements = 16 / static_cast<int>(sizeof(Bits));
    __shared__ uint32_t seen[3];
    const int64_t step = int64_t{gridDim.x} * kScanThreads;
    for (int64_t array = blockIdx.y; array < arrays; array += gridDim.y) {
        if (threadIdx.x < 3) seen[threadIdx.x] = 0;
        __syncthreads();
        const int64_t offset = place_in(batch, 0, array);
        uint32_t lowest = above;
        uint32_t highest = 0;
        uint32_t zeros = 0;
        int64_t index = int64_t{blockIdx.x} * kScanThreads + threadIdx.x;
        for (; index < walk.packs; index += step) {
            Place place = place_of<1, elements>(walk, index);
            place.data[0] += offset;
            Pack<Bits, elements> pack;
            load_pack(walk, place, 0, pack);
#pragma unroll
            for (int i = 0; i < elements; ++i) {
                if (i >= place.used) continue;
                const uint32_t magnitude = pack.element[i] & above;
                const bool zero = magnitude < smallest;
                const uint32_t nonzero = zero ? above : magnitude;
                lowest = nonzero < lowest ? nonzero : lowest;
                highest = magnitude > highest ? magnitude : highest;
                zeros |= zero ? 1u : 0u;
            }
        }
        atomicMax(&seen[0], ~lowest);
        atomicMax(&seen[1], highest);
        if (zeros != 0) atomicOr(&seen[2], zeros);
        __syncthreads();
        if (threadIdx.x == 0) {
            atomicMax(&ranges[array].not_lowest, seen[0]);
            atomicMax(&ranges[array].highest, seen[1]);
            if (seen[2] != 0) atomicOr(&ranges[array].zeros, seen[2]);
        }
        __syncthreads();
    }
}

// A tensor without the axes along which it repeats itself.
struct Distinct {
    int64_t shape[kMaxRank];
    explicit Distinct(const ConstTensor& tensor) {
        for (int axis = 0; axis < tensor.rank; ++axis)
            shape[axis] = tensor.strides[axis] == 0 ? std::min<int64_t>(1, tensor.shape[axis])
                                                    : tensor.shape[axis];
    }
};

int64_t count_of(const Arrays& arrays) {
    int64_t count = 1;
    for (int axis = 0; axis < arrays.batch_axes; ++axis) count *= arrays.tensor.shape[axis];
    return count;
}

template <class Bits>
void scan(const Context& context, const char* function, const Arrays& arrays, Range* ranges) {
    const ConstTensor& tensor = arrays.tensor;
    const auto& format = slipstick::mitchell::float_format(tensor.dtype);
    const int axes = arrays.batch_axes;
    Batch batch{};
    batch.rank = axes;
    for (int axis = 0; axis < axes; ++axis) {
        batch.size[axis] = tensor.shape[axis];
        batch.step[0][axis] = tensor.strides[axis] * item_size(tensor.dtype);
    }
    const Distinct distinct(tensor);
    const Tensor one{{tensor.data, tensor.dtype, tensor.rank - axes, distinct.shape + axes,
                      tensor.strides + axes}};
    constexpr int elements = 16 / static_cast<int>(sizeof(Bits));
    Walk walk = make_walk(one, {}, elements);
    for (int axis = 0; axis < axes; ++axis)
        walk.packed[0] &= batch.step[0][axis] % 16 == 0 || batch.size[axis] == 1;
    const int64_t count = count_of(arrays);
    const int64_t parts = ceil_div(resident_blocks(context, kScanBlocks, function), count);
    const dim3 grid(static_cast<unsigned>(std::min(ceil_div(walk.packs, kScanThreads), parts)),
                    static_cast<unsigned>(std::min<int64_t>(count, 65535)));
    launch(context, function, scan_kernel<Bits>, grid, kScanThreads, 0, walk, batch, count,
           static_cast<uint32_t>(format.sign - 1), static_cast<uint32_t>(format.smallest), ranges);
}

// --- Choices ---

constexpr int kChoiceThreads = 64;

// Where the ranges of a product's operands lie; null: they hold whatever their dtype can.
struct Operands {
    const Range* ranges[2];
    bool padded[2];
};

__global__ void __launch_bounds__(kChoiceThreads)
    choose_kernel(Product product, Operands operands, Batch batch, int64_t count, Choice* choices) {
    const int64_t step = int64_t{gridDim.x} * kChoiceThreads;
    int64_t index = int64_t{blockIdx.x} * kChoiceThreads + threadIdx.x;
    for (; index < count; index += step) {
        Magnitudes magnitudes[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            magnitudes[i] = operands.ranges[i] == nullptr
                                ? slipstick::mitchell::limits_of(product.dtype)
                                : operands.ranges[i][place_in(batch, i, index)].magnitudes();
            magnitudes[i].zeros |= operands.padded[i];
        }
        choices[index] = slipstick::mitchell::choose(product, magnitudes[0], magnitudes[1]);
    }
}

}  // namespace

const Range* ranges_of(const Context& context, const char* function, const Arrays& arrays) {
    const int64_t count = count_of(arrays);
    Range* const ranges = context.memory->allocate_array<Range>(count);
    check(
        cudaMemsetAsync(ranges, 0, static_cast<size_t>(count) * sizeof(Range), stream_of(context)),
        function);
    if (arrays.tensor.size() == 0) return ranges;
    if (item_size(arrays.tensor.dtype) == 2) {
        scan<uint16_t>(context, function, arrays, ranges);
    } else {
        scan<uint32_t>(context, function, arrays, ranges);
    }
    return ranges;
}

Choices choose_kernels(const Context& context, const char* function, const Product& product,
                       const Arrays& a, const Arrays& b, int batch_axes,
                       const int64_t* batch_shape) {
    using slipstick::mitchell::Path;
    const bool looks = slipstick::mitchell::is_float(product.dtype) && product.path != Path::kExact;
    Operands operands{};
    Batch batch{};
    batch.rank = batch_axes;
    int64_t count = 1;
    for (int axis = 0; axis < batch_axes; ++axis) {
        batch.size[axis] = batch_shape[axis];
        count *= batch_shape[axis];
    }
    const Arrays* arrays[2] = {&a, &b};
    bool one = true;
    for (int i = 0; i < 2; ++i) {
        operands.padded[i] = arrays[i]->padded;
        if (!looks) continue;
        operands.ranges[i] = arrays[i]->known != nullptr ? arrays[i]->known
                                                         : ranges_of(context, function, *arrays[i]);
        int64_t step = 1;
        for (int axis = arrays[i]->batch_axes - 1; axis >= 0; --axis) {
            const int64_t size = arrays[i]->tensor.shape[axis];
            if (size > 1) batch.step[i][axis + batch_axes - arrays[i]->batch_axes] = step;
            one &= size == 1;
            step *= size;
        }
    }
    if (one) count = std::min<int64_t>(count, 1);
    Choice* const choices = context.memory->allocate_array<Choice>(count);
    if (count == 0) return {choices, 0};
    const int64_t blocks = std::min<int64_t>(ceil_div(count, kChoiceThreads), 1 << 16);
    launch(context, function, choose_kernel, static_cast<unsigned>(blocks), kChoiceThreads, 0,
           product, operands, batch, count, choices);
    return {choices, one ? 0 : 1};
}

}  // namespace slipstick::cuda::mitchell
