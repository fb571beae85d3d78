// Signs times a dense array on tensor cores: mode="fast" of project.
//
// A float32 is exactly the sum of three bfloat16, its bits 1 to 8, 9 to 16 and 17 to 24, and +-1 is
// one: three products of 16 bits add up what one of float32 would, and only the sums round. Cut off
// and not rounded, the parts do not overflow. Below 2^-110 the third part would be a subnormal too
// small for bfloat16: rows whose numbers all lie below 2^-100 are multiplied by 2^100, in a second
// pass of the tile, which other data never needs.
//
// Tensor cores round sums towards zero, so no chain of theirs is longer than 256 features; the
// chains are added in float32.
//
// Work of a warp for 16 features of 32 rows and 64 columns of float32: 48 products m16n8k16, 192
// clocks of its quarter of an H100 at the 2048 multiplications a clock and multiprocessor that the
// tensor cores' peak is, and 76 other instructions: 40 make the signs from the bits, 6 load x. An
// element is split once for all columns of the tile, in about 8 instructions. With 64 columns the
// floor is reading x: 0.27 clocks an element at 3.35 TB/s, where the products take 0.094 at the
// peak.
#include <algorithm>

#include "core/launch.cuh"
#include "core/ptx.cuh"
#include "projection/entry.hpp"
#include "projection/rows.cuh"
#include "projection/tensor_cores.cuh"

namespace slipstick::cuda::projection {
namespace {

using slipstick::projection::kRademacherTag;
using slipstick::projection::words_of;

constexpr int kThreads = 256;
constexpr int kRows = 128;
constexpr int kStep = 32;          // features
constexpr int kChain = 256;        // features, one Philox block a thread
constexpr int kPitch = kStep + 8;  // 80 bytes: 8 rows lie in different banks
constexpr int kPart = kRows * kPitch;
constexpr int kElements = kRows * kStep / kThreads;  // of x that a thread brings

constexpr float kTiny = 0x1p-100f;
constexpr float kEnlarged = 0x1p+100f;

// What x is made of: the elements of the fragments, and how many of them.
template <class T>
struct Parts {
    using Element = T;
    static constexpr int kCount = 1;
};
template <>
struct Parts<float> {
    using Element = BFloat16;
    static constexpr int kCount = 3;
};

struct SignProblem {
    uint64_t seed;
    const void* x;
    int64_t x_stride;
    Rows x_rows;
    bool in_pieces;  // rows start at multiples of 16 bytes, their elements side by side
    int64_t features;
    uint64_t first_feature;
    ScaledTarget out;
};

// Two warps side by side, four below each other: 32 rows and half of the columns each.
template <class T, int columns>
struct alignas(16) Memory {
    static constexpr int kTiles = columns / 16;  // of 8 columns, of a warp
    uint16_t x[Parts<T>::kCount][kPart];
    float totals[2 * kTiles * 4][kThreads];
    uint32_t words[kChain][4];  // of 128 components of a feature
    uint32_t largest[kRows];    // the bits of each row's largest |x|
    uint32_t has_tiny_row;
};

// --- x ---

template <class T>
struct Held {
    T element[kElements];

    __device__ __forceinline__ void load(const SignProblem& p, int64_t offset, bool row_exists,
                                         int64_t feature) {
        constexpr int piece = 16 / static_cast<int>(sizeof(T));
        const T* const source = static_cast<const T*>(p.x) + offset + feature * p.x_stride;
        if (p.in_pieces && row_exists && feature + kElements <= p.features) {
#pragma unroll
            for (int e = 0; e < kElements; e += piece) {
                const auto pack = *reinterpret_cast<const Pack<T, piece>*>(source + e);
#pragma unroll
                for (int i = 0; i < piece; ++i) element[e + i] = pack.element[i];
            }
            return;
        }
#pragma unroll
        for (int e = 0; e < kElements; ++e) {
            const bool exists = row_exists && feature + e < p.features;
            element[e] = exists ? source[e * p.x_stride] : T{};
        }
    }
};

__device__ __forceinline__ uint32_t upper_halves(float low, float high) {
    return bits::of(low) >> 16 | (bits::of(high) & 0xffff0000u);
}
// What a number is beyond its first 8 bits; exact, and 0 beyond an infinity.
__device__ __forceinline__ float beyond(float number) {
    const uint32_t pattern = bits::of(number);
    const float rest = number - bits::as_float(pattern & 0xffff0000u);
    return (pattern & 0x7fffffffu) == 0x7f800000u ? 0.0f : rest;
}

// Splits what a thread holds, two elements to a word.
__device__ __forceinline__ void store_parts(const Held<float>& held, float factor, uint16_t* target,
                                            uint32_t& largest) {
    auto* const words = reinterpret_cast<uint32_t*>(target);
#pragma unroll
    for (int e = 0; e < kElements; e += 2) {
        float low = held.element[e];
        float high = held.element[e + 1];
        const uint32_t of_low = bits::of(low) & 0x7fffffffu;
        const uint32_t of_high = bits::of(high) & 0x7fffffffu;
        largest = of_low > largest ? of_low : largest;
        largest = of_high > largest ? of_high : largest;
        low *= factor;
        high *= factor;
#pragma unroll
        for (int part = 0; part < 3; ++part) {
            words[part * (kPart / 2) + e / 2] = upper_halves(low, high);
            low = beyond(low);
            high = beyond(high);
        }
    }
}
template <class T>
__device__ __forceinline__ void store_parts(const Held<T>& held, float, uint16_t* target,
                                            uint32_t&) {
    auto* const words = reinterpret_cast<uint32_t*>(target);
#pragma unroll
    for (int e = 0; e < kElements; e += 2)
        words[e / 2] = held.element[e].bits | uint32_t{held.element[e + 1].bits} << 16;
}

// --- Signs ---

template <class Element>
inline constexpr uint32_t kOnes = 0x3f803f80u;  // two of 1.0
template <>
inline constexpr uint32_t kOnes<Float16> = 0x3c003c00u;

// The fragments of B for 16 columns: of two features, whose bits of the columns are the halves of
// `both`, lane / 4 first.
template <class Element>
__device__ __forceinline__ void two_signs(uint32_t both, int shift, uint32_t& first,
                                          uint32_t& second) {
    const uint32_t shifted = both << shift;  // column lane / 4 + 8 has its bits at 15 and 31
    first = (shifted << 8 & 0x80008000u) | kOnes<Element>;
    second = (shifted & 0x80008000u) | kOnes<Element>;
}

// Adds 16 features from `depth` of the chain and `at` of the step on.
template <class T, int columns>
__device__ __forceinline__ void add_sixteen(const Memory<T, columns>& memory, int depth, int at,
                                            float (&sums)[2][columns / 16][4]) {
    using Element = typename Parts<T>::Element;
    constexpr int parts = Parts<T>::kCount;
    const auto lane = static_cast<int>(threadIdx.x % kWarp);
    const auto warp = static_cast<int>(threadIdx.x / kWarp);
    uint32_t x[2][parts][4];
#pragma unroll
    for (int m = 0; m < 2; ++m) {
        const int row = warp / 2 * 32 + 16 * m + lane % 16;
#pragma unroll
        for (int part = 0; part < parts; ++part)
            load_matrices(x[m][part], &memory.x[part][row * kPitch + at + lane / 16 * 8]);
    }
    const int feature = depth + 2 * (lane % 4);
    const int shift = 7 - lane / 4;
#pragma unroll
    for (int word = 0; word < columns / 64; ++word) {
        const int which = columns / 64 * (warp % 2) + word;
        uint32_t of_feature[4];  // 2 pair, 2 pair + 1, 2 pair + 8, 2 pair + 9
#pragma unroll
        for (int i = 0; i < 4; ++i)
            of_feature[i] = memory.words[feature + i % 2 + i / 2 * 8][which];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            uint32_t b[2][2];  // of 8 columns, of two features
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const uint32_t low = of_feature[2 * i];
                const uint32_t high = of_feature[2 * i + 1];
                const uint32_t both =
                    half == 0 ? (low & 0xffffu) | high << 16 : low >> 16 | (high & 0xffff0000u);
                two_signs<Element>(both, shift, b[0][i], b[1][i]);
            }
#pragma unroll
            for (int tile = 0; tile < 2; ++tile) {
#pragma unroll
                for (int part = 0; part < parts; ++part) {
#pragma unroll
                    for (int m = 0; m < 2; ++m) {
                        multiply_add<Element>(sums[m][4 * word + 2 * half + tile], x[m][part],
                                              b[tile][0], b[tile][1]);
                    }
                }
            }
        }
    }
}

// --- A tile ---

template <class T, int columns>
__device__ __forceinline__ void add_chain(Memory<T, columns>& memory, bool is_first,
                                          float (&sums)[2][columns / 16][4]) {
    constexpr int tiles = columns / 16;
#pragma unroll
    for (int n = 0; n < 2 * tiles * 4; ++n) {
        float& sum = sums[n / (4 * tiles)][n / 4 % tiles][n % 4];
        float& total = memory.totals[n][threadIdx.x];
        total = is_first ? sum : total + sum;
        sum = 0;
    }
}

// Returns the largest |x| of what the thread brought.
template <class T, int columns>
__device__ __forceinline__ uint32_t sum_tile(const SignProblem& p, Memory<T, columns>& memory,
                                             int64_t first_row, int64_t first_column,
                                             float factor) {
    const auto thread = static_cast<int>(threadIdx.x);
    const int in_row = thread % 2 * kElements;
    const int64_t row = first_row + thread / 2;
    const bool row_exists = row < p.x_rows.count;
    const int64_t offset = row_exists ? offset_of(p.x_rows, row) : 0;
    uint16_t* const target = memory.x[0] + thread / 2 * kPitch + in_row;
    uint32_t largest = 0;
    float sums[2][columns / 16][4] = {};
    Held<T> held;
    held.load(p, offset, row_exists, in_row);
#pragma unroll 1
    for (int64_t feature = 0; feature < p.features; feature += kStep) {
        const auto depth = static_cast<int>(feature % kChain);
        __syncthreads();  // the step before is computed
        store_parts(held, factor, target, largest);
        if (depth == 0) {
            const PhiloxWords words =
                words_of(p.seed, kRademacherTag, static_cast<uint64_t>(first_column) / 128,
                         p.first_feature + static_cast<uint64_t>(feature + thread));
            // The tile's columns come first.
            const int from = static_cast<int>(first_column % 128 / 32);
#pragma unroll
            for (int w = 0; w < 4; ++w) memory.words[thread][(w + 4 - from) % 4] = words.word[w];
        }
        __syncthreads();
        if (feature + kStep < p.features)
            held.load(p, offset, row_exists, feature + kStep + in_row);
#pragma unroll
        for (int at = 0; at < kStep; at += 16) add_sixteen<T>(memory, depth + at, at, sums);
        if (depth + kStep == kChain || feature + kStep >= p.features)
            add_chain(memory, feature < kChain, sums);
    }
    return largest;
}

template <class T, int columns>
__device__ __forceinline__ void store_tile(const SignProblem& p, const Memory<T, columns>& memory,
                                           int64_t first_row, int64_t first_column, bool enlarged) {
    constexpr int tiles = columns / 16;
    const auto lane = static_cast<int>(threadIdx.x % kWarp);
    const auto warp = static_cast<int>(threadIdx.x / kWarp);
#pragma unroll 1
    for (int i = 0; i < 4; ++i) {  // 8 rows below each other
        const int in_tile = warp / 2 * 32 + 8 * i + lane / 4;
        const int64_t row = first_row + in_tile;
        if (row >= p.x_rows.count) continue;
        const uint32_t largest = memory.largest[in_tile];
        const double factor = enlarged && largest < bits::of(kTiny) ? double{1 / kEnlarged} : 1.0;
        const int64_t line = offset_of(p.out.rows, row);
#pragma unroll 1
        for (int n = 0; n < 2 * tiles; ++n) {
            const int64_t column =
                first_column + warp % 2 * (columns / 2) + n / 2 * 8 + lane % 4 * 2 + n % 2;
            if (column >= p.out.columns) continue;
            const int place = (i / 2 * tiles + n / 2) * 4 + i % 2 * 2 + n % 2;
            p.out.store(line + column * p.out.column_stride,
                        double{memory.totals[place][threadIdx.x]} * factor);
        }
    }
}

template <class T, int columns>
__global__ void __launch_bounds__(kThreads, 2) sign_kernel(SignProblem p) {
    auto& memory = *dynamic_shared<Memory<T, columns>>();
    const int64_t across = (p.out.columns + columns - 1) / columns;
    const int64_t down = (p.x_rows.count + kRows - 1) / kRows;
    const auto thread = static_cast<int>(threadIdx.x);
    for (int64_t n = blockIdx.x; n < across * down; n += gridDim.x) {
        const int64_t first_row = n / across * kRows;
        const int64_t first_column = (n - n / across * across) * columns;
        if (thread < kRows) memory.largest[thread] = 0;
        if (thread == 0) memory.has_tiny_row = 0;
        bool enlarged = false;
#pragma unroll 1
        for (float factor = 1;;) {
            const uint32_t largest = sum_tile<T>(p, memory, first_row, first_column, factor);
            if (enlarged || !std::is_same_v<T, float>) break;
            atomicMax(&memory.largest[thread / 2], largest);
            __syncthreads();
            const uint32_t of_row = memory.largest[thread / 2];
            const bool is_tiny = of_row != 0 && of_row < bits::of(kTiny);
            if (is_tiny) atomicOr(&memory.has_tiny_row, 1u);
            __syncthreads();
            if (memory.has_tiny_row == 0) break;
            enlarged = true;
            factor = is_tiny ? kEnlarged : 1;
        }
        store_tile<T>(p, memory, first_row, first_column, enlarged);
        __syncthreads();
    }
}

template <class T, int columns>
void run(const Context& context, const SignProblem& problem) {
    // What a block of compute capability 8.6, 8.9 or 12.0 can have.
    static_assert(sizeof(Memory<T, columns>) <= 99 * 1024);
    constexpr int64_t kMostBlocks = int64_t{1} << 30;
    const int64_t tiles =
        ceil_div(problem.x_rows.count, kRows) * ceil_div(problem.out.columns, columns);
    launch(context, "project", sign_kernel<T, columns>,
           dim3(static_cast<unsigned>(std::min(tiles, kMostBlocks))), kThreads,
           sizeof(Memory<T, columns>), problem);
}

}  // namespace

bool tensor_cores_serve(const Context& context, const ConstTensor& x, const Tensor& out) {
    if (out.dtype == Dtype::kFloat64) return false;
    const int64_t columns = out.shape[out.rank - 1];
    const int64_t rows = Rows(x).count;
    const int64_t tiles = ceil_div(rows, kRows) * ceil_div(columns, columns <= 64 ? 64 : 128);
    // A multiprocessor does a tile here in the time in which three do it the exact way, whose
    // chains all of them can share.
    return columns > 16 && 3 * tiles > resident_blocks(context, 1, "project");
}

void project_on_tensor_cores(const Context& context, const ConstTensor& x, const Law& law,
                             uint64_t first_feature, const Tensor& out) {
    SignProblem problem{};
    problem.seed = law.seed;
    problem.x = x.data;
    problem.x_stride = x.strides[x.rank - 1];
    problem.x_rows = Rows(x);
    problem.features = x.shape[x.rank - 1];
    problem.first_feature = first_feature;
    problem.out = ScaledTarget(out, law.scale);
    const int64_t piece = 16 / item_size(x.dtype);
    problem.in_pieces = reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && problem.x_stride == 1;
    for (int axis = 0; axis < problem.x_rows.rank; ++axis)
        problem.in_pieces &= problem.x_rows.strides[axis] % piece == 0;
    dispatch<float, Float16, BFloat16>(x.dtype, [&]<class T>() {
        problem.out.columns <= 64 ? run<T, 64>(context, problem) : run<T, 128>(context, problem);
    });
}

}  // namespace slipstick::cuda::projection
