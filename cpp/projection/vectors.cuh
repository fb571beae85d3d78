// The vectors of a transform: where each begins in x and in the result, and how a block reads and
// writes several of them.
#pragma once

#include <type_traits>

#include "core/cuda.cuh"
#include "core/tensor.hpp"
#include "projection/rows.cuh"

namespace slipstick::cuda::projection {

// All axes but that of the vectors, which are moved along in steps of elements.
struct Vectors {
    int64_t count;
    int rank;
    int64_t shape[kMaxRank];
    int64_t source[kMaxRank];
    int64_t target[kMaxRank];

    const void* x;
    void* out;
    Dtype x_dtype;
    int64_t x_step;
    int64_t out_step;
    // Neighbouring vectors are neighbours in memory, numbers of a vector are not.
    bool x_across;
    bool out_across;
    // Every vector begins at a multiple of 16 bytes, and its numbers are neighbours.
    bool x_packed;
    bool out_packed;
};

Vectors make_vectors(const ConstTensor& x, const Tensor& out, int axis);

inline constexpr int kMostVectors = 256;  // of a block

struct VectorPlaces {
    int64_t source[kMostVectors];
    int64_t target[kMostVectors];
};

// By all threads of a block; a barrier has to follow.
__device__ __forceinline__ void locate(const Vectors& vectors, int64_t first, int count,
                                       VectorPlaces& places) {
    for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x)) {
        int64_t rest = first + i;
        int64_t source = 0;
        int64_t target = 0;
        for (int axis = vectors.rank; axis-- > 0;) {
            const int64_t at = rest % vectors.shape[axis];
            rest /= vectors.shape[axis];
            source += at * vectors.source[axis];
            target += at * vectors.target[axis];
        }
        places.source[i] = source;
        places.target[i] = target;
    }
}

// What numbers of a type are computed in.
template <class T>
using AccOf = std::conditional_t<std::is_same_v<T, float> || sizeof(T) == 2, float, double>;

// Integers and bools, of any type that the dtype says.
struct AnyInteger {
    int64_t unused;
};

template <class Acc, class T>
__device__ __forceinline__ Acc widen(T value) {
    if constexpr (sizeof(T) == 2) {
        return to_float(value);
    } else {
        return static_cast<Acc>(value);
    }
}

template <class T, class Acc>
__device__ __forceinline__ T narrow(Acc value) {
    if constexpr (std::is_same_v<T, Float16>) {
        return to_float16(value);
    } else if constexpr (std::is_same_v<T, BFloat16>) {
        return to_bfloat16(value);
    } else {
        return static_cast<T>(value);
    }
}

// A number of x as what it is computed in.
template <class T>
__device__ __forceinline__ AccOf<T> read(const Vectors& vectors, int64_t index) {
    if constexpr (std::is_same_v<T, AnyInteger>) {
        return load_number<double>(vectors.x, vectors.x_dtype, index);
    } else {
        return widen<AccOf<T>>(static_cast<const T*>(vectors.x)[index]);
    }
}

// Calls put(vector, number, value) for the numbers [begin, begin + length) of `count` vectors,
// where vector v begins at element starts[v].
template <class T, class Put>
__device__ __forceinline__ void load(const Vectors& vectors, const int64_t* starts, int count,
                                     int64_t begin, int length, Put put) {
    const auto thread = static_cast<int>(threadIdx.x);
    const auto threads = static_cast<int>(blockDim.x);
    if constexpr (!std::is_same_v<T, AnyInteger>) {
        constexpr int kPack = 16 / static_cast<int>(sizeof(T));
        if (vectors.x_packed && length % kPack == 0 && begin % kPack == 0) {
            // Four loads under way before the first is used: 64 bytes a thread.
            constexpr int kTogether = 4;
            const int packs = length / kPack;
            const auto* const data = static_cast<const T*>(vectors.x);
            for (int first = thread; first < count * packs; first += kTogether * threads) {
                Pack<T, kPack> pack[kTogether];
#pragma unroll
                for (int i = 0; i < kTogether; ++i) {
                    const int at = first + i * threads;
                    if (at >= count * packs) continue;
                    const int vector = count == 1 ? 0 : at / packs;
                    pack[i] = *reinterpret_cast<const Pack<T, kPack>*>(
                        data + starts[vector] + begin + (at - vector * packs) * kPack);
                }
#pragma unroll
                for (int i = 0; i < kTogether; ++i) {
                    const int at = first + i * threads;
                    if (at >= count * packs) continue;
                    const int vector = count == 1 ? 0 : at / packs;
#pragma unroll
                    for (int j = 0; j < kPack; ++j) {
                        put(vector, (at - vector * packs) * kPack + j,
                            widen<AccOf<T>>(pack[i].element[j]));
                    }
                }
            }
            return;
        }
    }
#pragma unroll 4
    for (int at = thread; at < count * length; at += threads) {
        const int vector = vectors.x_across ? at % count : at / length;
        const int number = vectors.x_across ? at / count : at - vector * length;
        put(vector, number, read<T>(vectors, starts[vector] + (begin + number) * vectors.x_step));
    }
}

// The same for the result: get(vector, number) is rounded once. T is the result's type.
template <class T, class Get>
__device__ __forceinline__ void store(const Vectors& vectors, const int64_t* starts, int count,
                                      int64_t begin, int length, Get get) {
    constexpr int kPack = 16 / static_cast<int>(sizeof(T));
    const auto thread = static_cast<int>(threadIdx.x);
    const auto threads = static_cast<int>(blockDim.x);
    auto* const data = static_cast<T*>(vectors.out);
    if (vectors.out_packed && length % kPack == 0 && begin % kPack == 0) {
        const int packs = length / kPack;
        for (int at = thread; at < count * packs; at += threads) {
            const int vector = count == 1 ? 0 : at / packs;
            const int number = (at - vector * packs) * kPack;
            Pack<T, kPack> pack;
#pragma unroll
            for (int j = 0; j < kPack; ++j) pack.element[j] = narrow<T>(get(vector, number + j));
            *reinterpret_cast<Pack<T, kPack>*>(data + starts[vector] + begin + number) = pack;
        }
        return;
    }
    for (int at = thread; at < count * length; at += threads) {
        const int vector = vectors.out_across ? at % count : at / length;
        const int number = vectors.out_across ? at / count : at - vector * length;
        data[starts[vector] + (begin + number) * vectors.out_step] = narrow<T>(get(vector, number));
    }
}

// What the result of numbers of a type is of.
template <class T>
using ResultOf = std::conditional_t<std::is_same_v<T, AnyInteger>, double, T>;

// f.operator()<T>() for the type of x's numbers.
template <class F>
void dispatch_numbers(Dtype dtype, F&& f) {
    switch (dtype) {
        case Dtype::kFloat32:
            return f.template operator()<float>();
        case Dtype::kFloat64:
            return f.template operator()<double>();
        case Dtype::kFloat16:
            return f.template operator()<Float16>();
        case Dtype::kBFloat16:
            return f.template operator()<BFloat16>();
        default:
            return f.template operator()<AnyInteger>();
    }
}

}  // namespace slipstick::cuda::projection
