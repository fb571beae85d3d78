// The kernel of every elementwise function: strided, broadcast operands, in packs of 16 bytes where
// they lie so.
#pragma once

#include <algorithm>
#include <type_traits>

#include "core/launch.cuh"
#include "core/nest.hpp"

namespace slipstick::cuda::mitchell {

constexpr int kElementwiseThreads = 256;

// What a thread needs to find its elements: the axes of a Nest, the last one cut into packs, and
// which operands can be moved in packs.
struct Walk {
    int64_t packs;      // in all
    int64_t row_packs;  // in a row, the last axis; the last of them may be part of one
    int64_t row;        // the length of a row
    int outer_rank;
    bool packed[kMaxOperands];
    char* data[kMaxOperands];
    int64_t step[kMaxOperands];  // in bytes, as all strides
    int64_t size[kMaxRank];
    int64_t stride[kMaxOperands][kMaxRank];
};

// `elements` is the length of a pack.
inline Walk make_walk(const Tensor& out, std::initializer_list<const ConstTensor*> inputs,
                      int elements) {
    const Nest nest = make_nest(out, inputs);
    const Nest::Axis row =
        nest.rank > 0 ? nest.axes[static_cast<size_t>(nest.rank - 1)] : Nest::Axis{1, {}};
    Walk walk{};
    walk.row = row.size;
    walk.row_packs = ceil_div(row.size, elements);
    walk.packs = out.size() / row.size * walk.row_packs;
    walk.outer_rank = std::max(0, nest.rank - 1);
    for (int axis = 0; axis < walk.outer_rank; ++axis)
        walk.size[axis] = nest.axes[static_cast<size_t>(axis)].size;
    const ConstTensor* tensors[kMaxOperands] = {&out};
    std::copy(inputs.begin(), inputs.end(), tensors + 1);
    for (size_t operand = 0; operand < static_cast<size_t>(nest.operands); ++operand) {
        const int64_t item = item_size(tensors[operand]->dtype);
        const int64_t bytes = item * elements;
        walk.data[operand] = static_cast<char*>(const_cast<void*>(tensors[operand]->data));
        walk.step[operand] = row.stride[operand];
        bool packed = row.stride[operand] == item &&
                      reinterpret_cast<intptr_t>(walk.data[operand]) % bytes == 0;
        for (int axis = 0; axis < walk.outer_rank; ++axis) {
            const int64_t stride = nest.axes[static_cast<size_t>(axis)].stride[operand];
            walk.stride[operand][axis] = stride;
            packed &= stride % bytes == 0;
        }
        walk.packed[operand] = packed;
    }
    return walk;
}

// Where a pack lies in each operand, and how many of its elements the row has.
struct Place {
    char* data[kMaxOperands];
    int used;
};
template <int operands, int elements>
__device__ __forceinline__ Place place_of(const Walk& walk, int64_t pack) {
    int64_t row = pack / walk.row_packs;
    const int64_t first = (pack - row * walk.row_packs) * elements;
    Place place;
    place.used = static_cast<int>(walk.row - first < elements ? walk.row - first : elements);
#pragma unroll
    for (int i = 0; i < operands; ++i) place.data[i] = walk.data[i] + first * walk.step[i];
#pragma unroll 1
    for (int axis = walk.outer_rank - 1; axis >= 0; --axis) {
        const int64_t outer = row / walk.size[axis];
        const int64_t position = row - outer * walk.size[axis];
#pragma unroll
        for (int i = 0; i < operands; ++i) place.data[i] += position * walk.stride[i][axis];
        row = outer;
    }
    return place;
}

template <int elements, class T>
__device__ __forceinline__ void load_pack(const Walk& walk, const Place& place, int operand,
                                          Pack<T, elements>& pack) {
    const char* const data = place.data[operand];
    if (walk.packed[operand] && place.used == elements) {
        pack = *reinterpret_cast<const Pack<T, elements>*>(data);
        return;
    }
#pragma unroll
    for (int i = 0; i < elements; ++i) {
        if (i < place.used)
            pack.element[i] = *reinterpret_cast<const T*>(data + i * walk.step[operand]);
    }
}

template <int elements, class T>
__device__ __forceinline__ void store_pack(const Walk& walk, const Place& place,
                                           const Pack<T, elements>& pack) {
    char* const data = place.data[0];
    if (walk.packed[0] && place.used == elements) {
        *reinterpret_cast<Pack<T, elements>*>(data) = pack;
        return;
    }
#pragma unroll
    for (int i = 0; i < elements; ++i) {
        if (i < place.used) *reinterpret_cast<T*>(data + i * walk.step[0]) = pack.element[i];
    }
}

// What an Operation says: `In` and `Out`, the types of elements; `kInputs`, 1 or 2; kHeavy, whether
// arithmetic and not memory takes its time: packs are short then, which compiles in a third of the
// time; the function. An input may be the result's memory: every thread reads its elements before
// it writes them.
template <class Operation>
inline constexpr int kPackElements =
    Operation::kHeavy ? 2
                      : 16 / static_cast<int>(std::max(sizeof(typename Operation::In),
                                                       sizeof(typename Operation::Out)));

template <class Operation>
__global__ void __launch_bounds__(kElementwiseThreads)
    elementwise_kernel(Operation operation, Walk walk) {
    using In = typename Operation::In;
    using Out = typename Operation::Out;
    constexpr int elements = kPackElements<Operation>;
    const int64_t step = int64_t{gridDim.x} * kElementwiseThreads;
    int64_t index = int64_t{blockIdx.x} * kElementwiseThreads + threadIdx.x;
    for (; index < walk.packs; index += step) {
        const Place place = place_of<1 + Operation::kInputs, elements>(walk, index);
        Pack<In, elements> a{};
        Pack<In, elements> b{};
        Pack<Out, elements> out;
        load_pack(walk, place, 1, a);
        if constexpr (Operation::kInputs == 2) load_pack(walk, place, 2, b);
#pragma unroll
        for (int i = 0; i < elements; ++i) {
            if constexpr (Operation::kInputs == 2) {
                out.element[i] = operation(a.element[i], b.element[i]);
            } else {
                out.element[i] = operation(a.element[i]);
            }
        }
        store_pack(walk, place, out);
    }
}

// Launches operation(a) or operation(a, b) over the whole result.
template <class Operation>
void run_elementwise(const Context& context, const char* function, const Operation& operation,
                     std::initializer_list<const ConstTensor*> inputs, const Tensor& out) {
    constexpr int elements = kPackElements<Operation>;
    if (out.size() == 0) return;
    constexpr int64_t kMostBlocks = int64_t{1} << 20;
    const Walk walk = make_walk(out, inputs, elements);
    const int64_t blocks = ceil_div(walk.packs, kElementwiseThreads);
    const dim3 grid(static_cast<unsigned>(std::min(blocks, kMostBlocks)));
    launch(context, function, elementwise_kernel<Operation>, grid, kElementwiseThreads, 0,
           operation, walk);
}

}  // namespace slipstick::cuda::mitchell
