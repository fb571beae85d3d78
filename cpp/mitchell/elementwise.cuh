// The kernel of every elementwise function: strided, broadcast operands, in packs of 16 bytes where
// they lie so.
#pragma once

#include <algorithm>
#include <type_traits>

#include "core/launch.cuh"
#include "core/nest.hpp"

namespace slipstick::cuda::mitchell {

constexpr int kElementwiseThreads = 256;

// What a thread needs to find its elements: a Nest, and which operands can be moved in packs.
struct Walk {
    int64_t count;
    int rank;
    bool whole_packs;  // no pack crosses the end of a row
    bool packed[kMaxOperands];
    char* data[kMaxOperands];
    int64_t size[kMaxRank];
    int64_t stride[kMaxOperands][kMaxRank];  // in bytes
};

// `elements` is the length of a pack; item sizes are those of the operands.
inline Walk make_walk(const Tensor& out, std::initializer_list<const ConstTensor*> inputs,
                      int elements) {
    const Nest nest = make_nest(out, inputs);
    Walk walk{};
    walk.count = out.size();
    walk.rank = nest.rank;
    const int last = nest.rank - 1;
    walk.whole_packs = nest.rank <= 1 || nest.axes[static_cast<size_t>(last)].size % elements == 0;
    const ConstTensor* tensors[kMaxOperands] = {&out};
    std::copy(inputs.begin(), inputs.end(), tensors + 1);
    for (int axis = 0; axis < nest.rank; ++axis)
        walk.size[axis] = nest.axes[static_cast<size_t>(axis)].size;
    for (size_t operand = 0; operand < static_cast<size_t>(nest.operands); ++operand) {
        walk.data[operand] = static_cast<char*>(const_cast<void*>(tensors[operand]->data));
        const int64_t item = item_size(tensors[operand]->dtype);
        bool packed = walk.whole_packs && nest.rank > 0 &&
                      reinterpret_cast<uintptr_t>(walk.data[operand]) %
                              static_cast<uintptr_t>(item * elements) ==
                          0;
        for (int axis = 0; axis < nest.rank; ++axis) {
            const int64_t stride = nest.axes[static_cast<size_t>(axis)].stride[operand];
            walk.stride[operand][axis] = stride;
            packed &= axis == last ? stride == item : stride % (item * elements) == 0;
        }
        walk.packed[operand] = packed;
    }
    return walk;
}

// Where the element `index` of an operand lies, in bytes. Divisions of 64 bits take four times as
// long as those of 32.
__device__ inline int64_t offset_of(const Walk& walk, int operand, int64_t index) {
    if (walk.rank <= 1) return index * walk.stride[operand][0];
    int64_t offset = 0;
    for (int axis = walk.rank - 1; axis >= 0; --axis) {
        const int64_t size = walk.size[axis];
        const int64_t rest = ((index | size) >> 32) == 0
                                 ? int64_t{static_cast<uint32_t>(index) / static_cast<uint32_t>(size)}
                                 : index / size;
        offset += (index - rest * size) * walk.stride[operand][axis];
        index = rest;
    }
    return offset;
}

// `used` elements from `first` on; others are left as they are.
template <int elements, class T>
__device__ void load_elements(const Walk& walk, int operand, int64_t first, int used,
                              Pack<T, elements>& pack) {
    const char* const start = walk.data[operand] + offset_of(walk, operand, first);
    if (walk.packed[operand] && used == elements) {
        pack = *reinterpret_cast<const Pack<T, elements>*>(start);
        return;
    }
    const int64_t step = walk.rank > 0 ? walk.stride[operand][walk.rank - 1] : 0;
#pragma unroll
    for (int i = 0; i < elements; ++i) {
        if (i >= used) break;
        const char* const place =
            walk.whole_packs ? start + i * step
                             : walk.data[operand] +
                                   offset_of(walk, operand, first + i);
        pack.element[i] = *reinterpret_cast<const T*>(place);
    }
}

template <int elements, class T>
__device__ void store_elements(const Walk& walk, int64_t first, int used,
                               const Pack<T, elements>& pack) {
    char* const start = walk.data[0] + offset_of(walk, 0, first);
    if (walk.packed[0] && used == elements) {
        *reinterpret_cast<Pack<T, elements>*>(start) = pack;
        return;
    }
    const int64_t step = walk.rank > 0 ? walk.stride[0][walk.rank - 1] : 0;
#pragma unroll
    for (int i = 0; i < elements; ++i) {
        if (i >= used) break;
        char* const place =
            walk.whole_packs
                ? start + i * step
                : walk.data[0] + offset_of(walk, 0, first + i);
        *reinterpret_cast<T*>(place) = pack.element[i];
    }
}

// What an Operation says: `In` and `Out`, the types of elements; `kInputs`, 1 or 2; the function.
// An input may be the result's memory: every thread reads its elements before it writes them.
template <class Operation>
inline constexpr int kPackElements =
    16 / static_cast<int>(std::max(sizeof(typename Operation::In), sizeof(typename Operation::Out)));

template <class Operation>
__global__ void __launch_bounds__(kElementwiseThreads)
    elementwise_kernel(Operation operation, Walk walk) {
    using In = typename Operation::In;
    using Out = typename Operation::Out;
    constexpr int elements = kPackElements<Operation>;
    const int64_t step = int64_t{gridDim.x} * kElementwiseThreads * elements;
    int64_t first = (int64_t{blockIdx.x} * kElementwiseThreads + threadIdx.x) * elements;
    for (; first < walk.count; first += step) {
        const int64_t rest = walk.count - first;
        const int used = rest < elements ? static_cast<int>(rest) : elements;
        Pack<In, elements> a{};
        Pack<In, elements> b{};
        Pack<Out, elements> out;
        load_elements<elements>(walk, 1, first, used, a);
        if constexpr (Operation::kInputs == 2) load_elements<elements>(walk, 2, first, used, b);
#pragma unroll
        for (int i = 0; i < elements; ++i) {
            if constexpr (Operation::kInputs == 2) {
                out.element[i] = operation(a.element[i], b.element[i]);
            } else {
                out.element[i] = operation(a.element[i]);
            }
        }
        store_elements<elements>(walk, first, used, out);
    }
}

// Launches operation(a) or operation(a, b) over the whole result.
template <class Operation>
void run_elementwise(const Context& context, const char* function, const Operation& operation,
                     std::initializer_list<const ConstTensor*> inputs, const Tensor& out) {
    constexpr int elements = kPackElements<Operation>;
    constexpr int64_t kMostBlocks = int64_t{1} << 20;
    const Walk walk = make_walk(out, inputs, elements);
    if (walk.count == 0) return;
    const int64_t blocks = ceil_div(walk.count, int64_t{kElementwiseThreads} * elements);
    const dim3 grid(static_cast<unsigned>(std::min(blocks, kMostBlocks)));
    launch(context, function, elementwise_kernel<Operation>, grid, kElementwiseThreads, 0, operation,
           walk);
}

}  // namespace slipstick::cuda::mitchell
