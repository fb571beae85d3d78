// Rotations of vectors that a block's shared memory holds: read once, written once.
#include "projection/rotation.cuh"

#include <algorithm>
#include <cmath>

#include "core/launch.cuh"

namespace slipstick::cuda::projection {
namespace {

using slipstick::projection::kRotateTag;

constexpr int kMostThreads = 512;
// A block takes several short vectors.
constexpr int64_t kNumbersTogether = 4096;

template <class Acc>
struct SharedVectors {
    Acc* numbers;
    uint32_t* signs;
};

template <class Acc>
__device__ __forceinline__ void flip(const SharedVectors<Acc>& shared, int count, int size) {
    for (int at = static_cast<int>(threadIdx.x); at < count * size;
         at += static_cast<int>(blockDim.x)) {
        Acc& number = shared.numbers[padded(at)];
        number = turned(number, shared.signs, count == 1 ? at : at % size);
    }
    __syncthreads();
}

// H of a round, or its transpose: the transform of a power of two is its own.
template <class Acc>
__device__ __forceinline__ void orthogonal(Acc* numbers, const Rotation& rotation, int count) {
    const auto size = static_cast<int>(rotation.size);
    if (rotation.overlap == 0) {
        transform(numbers, {count, size, 0, rotation.mixed, rotation.log2n}, rotation.scales);
        if (rotation.mixed == 1) return;
        const int columns = 1 << rotation.log2n;
        for (int at = static_cast<int>(threadIdx.x); at < count * columns;
             at += static_cast<int>(blockDim.x)) {
            const int first = (at >> rotation.log2n) * size + (at & (columns - 1));
            mix_column<Acc>(rotation, [&](int line) -> Acc& {
                return numbers[padded(first + (line << rotation.log2n))];
            });
        }
        __syncthreads();
        return;
    }
    const auto overlap = static_cast<int>(rotation.overlap);
    const int first = rotation.inverse ? overlap : 0;
    transform(numbers, {count, size, first, 1, rotation.log2n}, rotation.scales);
    transform(numbers, {count, size, overlap - first, 1, rotation.log2n}, rotation.scales);
}

template <class T>
__global__ void __launch_bounds__(kMostThreads)
    rotate_in_shared_memory(const Vectors vectors, const Rotation rotation, int together) {
    using Acc = AccOf<T>;
    __shared__ VectorPlaces places;
    const auto size = static_cast<int>(rotation.size);
    auto* const numbers = dynamic_shared<Acc>();
    const SharedVectors<Acc> shared{numbers,
                                    reinterpret_cast<uint32_t*>(numbers + padded(together * size))};
    for (int64_t first = int64_t{blockIdx.x} * together; first < vectors.count;
         first += int64_t{gridDim.x} * together) {
        const int64_t left = vectors.count - first;
        const int count = left < together ? static_cast<int>(left) : together;
        locate(vectors, first, count, places);
        __syncthreads();
        load<T>(vectors, places.source, count, 0, size, [&](int vector, int number, Acc value) {
            numbers[padded(vector * size + number)] = value;
        });
        __syncthreads();
        for (int64_t done = 0; done < rotation.rounds; ++done) {
            if (rotation.has_signs) {
                const int64_t round = rotation.inverse ? rotation.rounds - 1 - done : done;
                sign_words(shared.signs, size, rotation.seed, static_cast<uint32_t>(round), 0,
                           kRotateTag);
                __syncthreads();
            }
            if (rotation.has_signs && !rotation.inverse) flip(shared, count, size);
            orthogonal(numbers, rotation, count);
            if (rotation.has_signs && rotation.inverse) flip(shared, count, size);
        }
        store<ResultOf<T>>(vectors, places.target, count, 0, size, [&](int vector, int number) {
            return numbers[padded(vector * size + number)];
        });
        __syncthreads();
    }
}

}  // namespace

StageScales orthonormal_scales(int log2n, int mixed, bool in_float) {
    StageScales scales{};
    scales.any = true;
    std::fill(std::begin(scales.factor), std::end(scales.factor), 1.0);
    for (int stage = 0; stage < log2n; stage += kPassStages)
        scales.factor[stage / kPassStages] =
            std::ldexp(1.0, -std::min(kPassStages, log2n - stage) / 2);
    const double root = std::sqrt(1.0 / (mixed * (log2n % 2 == 0 ? 1 : 2)));
    scales.factor[0] *= in_float ? static_cast<double>(static_cast<float>(root)) : root;
    return scales;
}

void rotate_vectors(const Context& context, const char* function, const Vectors& vectors,
                    const Rotation& rotation) {
    dispatch_numbers(vectors.x_dtype, [&]<class T>() {
        const int64_t item = sizeof(AccOf<T>);
        const int64_t places = sizeof(VectorPlaces);
        const int64_t most =
            device_attribute(context, cudaDevAttrMaxSharedMemoryPerBlockOptin, function) - places;
        const int64_t together = std::clamp<int64_t>(
            std::min(vectors.count, kNumbersTogether / rotation.size), 1, kMostVectors);
        const int64_t all = together * rotation.size;
        const int64_t bytes =
            (all + all / 16) * item + (rotation.has_signs ? ceil_div(rotation.size, 128) * 16 : 0);
        if (bytes > most) return rotate_long_vectors(context, function, vectors, rotation);
        const int64_t threads = std::clamp<int64_t>(ceil_div(all, 16 * 32) * 32, 64, kMostThreads);
        constexpr int64_t kMostBlocks = int64_t{1} << 30;
        launch(context, function, rotate_in_shared_memory<T>,
               static_cast<unsigned>(std::min(ceil_div(vectors.count, together), kMostBlocks)),
               static_cast<unsigned>(threads), static_cast<size_t>(bytes), vectors, rotation,
               static_cast<int>(together));
    });
}

}  // namespace slipstick::cuda::projection
