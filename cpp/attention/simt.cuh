// Tiles of products on the multiprocessors' own multiply-adds, for the kernels of float32 and
// float64: 256 threads multiply lines of two operands (scores), and weights with lines of a third.
//
// A warp owns kWarpRows rows of a tile and all its kKeys keys: 2 x 16 threads, of which each holds
// kThreadRows x kThreadKeys scores, and of the weighted sums kThreadRows x 4 or 8 columns. The
// lowest bit of a lane is that of its rows, so that in each half of a warp neighbours read the same
// 16 bytes of keys: such loads from shared memory take two passes and not four.
//
// Multiply-adds to a load of 16 bytes (float32): 128 to 12 for scores, 64 to 4 for weighted sums.
#pragma once

#include "attention/problem.cuh"
#include "core/ptx.cuh"

namespace slipstick::cuda::attention {

template <class Acc>
struct Tile {
    static constexpr int kVector = 16 / sizeof(Acc);
    static constexpr int kWarps = 8;
    static constexpr int kThreads = kWarps * kWarp;
    static constexpr int kThreadRows = 2 * kVector;
    static constexpr int kThreadKeys = 4;
    static constexpr int kWarpRows = 2 * kThreadRows;
    static constexpr int kRows = kWarps * kWarpRows;  // 128 (float64: 64)
    static constexpr int kKeys = 16 * kThreadKeys;
    // Scores take the operands' columns in steps of 64 bytes. Lines are 16 bytes longer, so that
    // eight keys lie in different banks.
    static constexpr int kDepth = 4 * kVector;
    static constexpr int kPitch = kDepth + kVector;
    // Weighted sums take keys in such steps, and so many columns of all at once: what 256 columns
    // leave of the registers is enough for 64.
    static constexpr int kValueKeys = 4 * kVector;
    static constexpr int kGroup = 16 * kVector;  // columns: 16 bytes a thread
    static constexpr int kSlice = 128;
    static constexpr int slice(int columns) { return columns > 128 ? 64 : columns; }
    // Weights lie key by key, so that those of a thread's rows are two loads.
    static constexpr int kWeightPitch = 6 * kVector;
    static constexpr int kStage = (kRows + kKeys) * kPitch > kValueKeys* kSlice
                                      ? (kRows + kKeys) * kPitch
                                      : kValueKeys * kSlice;
    using Vector = Pack<Acc, kVector>;
    using Scores = Acc[kThreadRows][kThreadKeys];

    __device__ static int warp() { return static_cast<int>(threadIdx.x) / kWarp; }
    __device__ static int lane() { return static_cast<int>(threadIdx.x) % kWarp; }
    // A thread's keys are column() + 16 j; its columns kVector (column() + 16 g) + e.
    __device__ static int column() { return lane() / 2; }
    // In its warp, row i of a thread; kVector of them lie side by side.
    __device__ static int row(int i) {
        return i / kVector * 2 * kVector + lane() % 2 * kVector + i % kVector;
    }
};

template <class Acc>
__device__ __forceinline__ Acc fused(Acc a, Acc b, Acc c) {
    if constexpr (sizeof(Acc) == 4) {
        return fmaf(a, b, c);
    } else {
        return fma(a, b, c);
    }
}
template <class Acc>
__device__ __forceinline__ Acc exponential(Acc x) {
    if constexpr (sizeof(Acc) == 4) {
        return expf(x);
    } else {
        return exp(x);
    }
}
// The other one where one is NaN.
template <class Acc>
__device__ __forceinline__ Acc larger(Acc a, Acc b) {
    if constexpr (sizeof(Acc) == 4) {
        return fmaxf(a, b);
    } else {
        return fmax(a, b);
    }
}
template <class Acc>
inline constexpr Acc kInfinity = std::numeric_limits<Acc>::infinity();
// e^t is 0 or nearly so below this; t is kept above it where it is multiplied with e^t.
template <class Acc>
inline constexpr Acc kLowestExponent =
    static_cast<Acc>((std::numeric_limits<Acc>::min_exponent - 1) * 0.69314718055994530942);

// Lines of an operand: `count` of them, each of `width` elements. The element k of line i is at
// data[place(i) + k * column].
template <class Acc>
struct Lines {
    const Acc* data;
    bool direct;  // in pieces of 16 bytes
    int width;
    int count;
    int64_t column;
    const int64_t* starts;  // of each line; or null: place(i) = first + i * step
    int64_t first;
    int64_t step;

    __device__ __forceinline__ int64_t place(int line) const {
        return starts != nullptr ? starts[line] : first + line * step;
    }
};

// Whether rows of an operand of `width` columns can be copied in pieces of 16 bytes (host).
template <class Acc>
bool is_direct(const Operand& operand, int width) {
    constexpr int64_t vector = Tile<Acc>::kVector;
    return width % vector == 0 && (operand.column == 1 || width <= 1) &&
           operand.batch % vector == 0 && operand.head % vector == 0 && operand.row % vector == 0 &&
           reinterpret_cast<uintptr_t>(operand.data) % 16 == 0;
}

// Begins to copy `lines` lines from `first` on, `pieces` pieces of 16 bytes from `column` on, to
// target[line * pitch]. Zeros stand for what is not there.
template <class Acc, int lines, int pieces>
__device__ __forceinline__ void copy_lines(const Lines<Acc>& source, int first, int column,
                                           Acc* target, int pitch) {
    constexpr int vector = Tile<Acc>::kVector;
    constexpr int rounds = lines * pieces / Tile<Acc>::kThreads;
    constexpr int step = Tile<Acc>::kThreads / pieces;  // lines of a round
    static_assert(rounds * Tile<Acc>::kThreads == lines * pieces);
    const int own = static_cast<int>(threadIdx.x) / pieces;
    const int at = static_cast<int>(threadIdx.x) % pieces * vector;
    const int k = column + at;
    target += own * pitch + at;
    if (source.direct) {
#pragma unroll
        for (int round = 0; round < rounds; ++round) {
            const int line = first + own + round * step;
            const bool valid = line < source.count && k < source.width;
            const void* const from = valid ? source.data + source.place(line) + k : source.data;
            copy_async(target + round * step * pitch, from, valid);
        }
        return;
    }
#pragma unroll 1
    for (int line = first + own; line < first + lines; line += step, target += step * pitch) {
        const bool valid = line < source.count;
        const Acc* const from = source.data + (valid ? source.place(line) : 0);
        for (int e = 0; e < vector; ++e) {
            target[e] = valid && k + e < source.width ? from[(k + e) * source.column] : Acc{0};
        }
    }
}

// Whether the pieces that this thread copied are finite.
template <class Acc, int lines, int pieces>
__device__ __forceinline__ bool is_finite(const Acc* target) {
    using Vector = typename Tile<Acc>::Vector;
    Acc zero = 0;  // 0 times anything else is NaN, which stays
#pragma unroll
    for (int round = 0; round < lines * pieces; round += Tile<Acc>::kThreads) {
        const Vector piece =
            reinterpret_cast<const Vector*>(target)[round + static_cast<int>(threadIdx.x)];
#pragma unroll
        for (const Acc x : piece.element) zero = fused(x, Acc{0}, zero);
    }
    return zero == 0;
}

// Steps, of which each is copied while the one before it is computed.
template <class Acc>
class Pipeline {
public:
    using T = Tile<Acc>;
    struct Shared {
        alignas(16) Acc stage[2][T::kStage];
        // Whether the lines of a weighted sum are not all finite: of this step, the last, the next.
        int poisoned[3];
    };

    __device__ explicit Pipeline(Shared& shared) : shared_(shared) {
        if (threadIdx.x == 0) shared.poisoned[0] = shared.poisoned[1] = shared.poisoned[2] = 0;
    }
    // copy(stage) begins to copy the first step, and from then on always the next one. Barriers lie
    // between the constructor and next().
    template <class Copy>
    __device__ void start(const Copy& copy) {
        copy(shared_.stage[0]);
        commit_copies();
    }
    // The operands of the next step, which has kValueKeys lines of `columns` for a weighted sum, or
    // is of scores where `columns` is 0.
    template <int columns, class Copy>
    __device__ __forceinline__ const Acc* next(const Copy& copy) {
        wait_for_copies<0>();
        Acc* const stage = shared_.stage[number_ % 2];
        if constexpr (columns > 0) {
            if (!is_finite<Acc, T::kValueKeys, columns / T::kVector>(stage))
                shared_.poisoned[number_ % 3] = 1;
        }
        __syncthreads();
        // Others may still read that of this step, and nobody writes that of the next but one
        // before another barrier.
        if (threadIdx.x == 0) shared_.poisoned[(number_ + 2) % 3] = 0;
        ++number_;
        copy(shared_.stage[number_ % 2]);
        commit_copies();
        return stage;
    }
    // Of the step that next() gave.
    __device__ bool is_poisoned() const { return shared_.poisoned[(number_ - 1) % 3] != 0; }

private:
    Shared& shared_;
    int number_ = 0;
};

// scores += left right^T over the columns of a step. The products of a step are a chain of their
// own, which is then added: at 128 columns the error of a score is 0.4 of that of one chain. Every
// kernel of the family for these dtypes adds in this order, so that the backward pass finds the
// scores that the forward pass made its statistics of.
template <class Acc>
__device__ __forceinline__ void multiply_lines(const Acc* stage,
                                               typename Tile<Acc>::Scores& scores) {
    using T = Tile<Acc>;
    using Vector = typename T::Vector;
    const Acc* const left = stage + T::warp() * T::kWarpRows * T::kPitch;
    const Acc* const right = stage + (T::kRows + T::column()) * T::kPitch;
    typename T::Scores chains = {};
#pragma unroll
    for (int k = 0; k < T::kDepth; k += T::kVector) {
        Vector key[T::kThreadKeys];
#pragma unroll
        for (int j = 0; j < T::kThreadKeys; ++j)
            key[j] = *reinterpret_cast<const Vector*>(right + 16 * j * T::kPitch + k);
#pragma unroll
        for (int i = 0; i < T::kThreadRows; ++i) {
            const Vector row = *reinterpret_cast<const Vector*>(left + T::row(i) * T::kPitch + k);
#pragma unroll
            for (int e = 0; e < T::kVector; ++e) {
#pragma unroll
                for (int j = 0; j < T::kThreadKeys; ++j)
                    chains[i][j] = fused(row.element[e], key[j].element[e], chains[i][j]);
            }
        }
    }
#pragma unroll
    for (int i = 0; i < T::kThreadRows; ++i) {
#pragma unroll
        for (int j = 0; j < T::kThreadKeys; ++j) scores[i][j] += chains[i][j];
    }
}

// What hides a key from a row, as a weight: it adds nothing to a sum, and differs from the weight 0
// of a key that is seen.
template <class Acc>
inline constexpr Acc kHidden = static_cast<Acc>(-0.0);

template <class Acc>
__device__ __forceinline__ bool is_hidden(Acc weight) {
    return bits::of(weight) == bits::of(kHidden<Acc>);
}

// sums += weights * lines over the keys of a step, `groups` groups of columns. `careful`: lines
// that are not finite reach only rows that see them.
template <class Acc, int groups, bool careful>
__device__ __forceinline__ void multiply_weights(
    const Acc* weights, const Acc* lines,
    Acc (&sums)[Tile<Acc>::kThreadRows][groups][Tile<Acc>::kVector]) {
    using T = Tile<Acc>;
    using Vector = typename T::Vector;
    weights += T::row(0);
    lines += T::column() * T::kVector;
#pragma unroll(careful ? 1 : 4)
    for (int key = 0; key < T::kValueKeys; ++key) {
        Vector weight[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            weight[half] = *reinterpret_cast<const Vector*>(weights + key * T::kWeightPitch +
                                                            half * 2 * T::kVector);
        }
#pragma unroll
        for (int g = 0; g < groups; ++g) {
            const Vector value =
                *reinterpret_cast<const Vector*>(lines + (key * groups + g) * T::kGroup);
#pragma unroll
            for (int i = 0; i < T::kThreadRows; ++i) {
                const Acc own = weight[i / T::kVector].element[i % T::kVector];
                if (careful && is_hidden(own)) continue;
#pragma unroll
                for (int e = 0; e < T::kVector; ++e)
                    sums[i][g][e] = fused(own, value.element[e], sums[i][g][e]);
            }
        }
    }
}

// A score's or weight's place among those of its warp.
template <class Acc>
__device__ __forceinline__ int slot_of(int i, int j) {
    return (Tile<Acc>::column() + 16 * j) * Tile<Acc>::kWeightPitch + Tile<Acc>::row(i);
}

template <class Acc>
__device__ __forceinline__ void put_scores(const typename Tile<Acc>::Scores& scores, Acc* slots) {
    using T = Tile<Acc>;
    using Vector = typename T::Vector;
#pragma unroll
    for (int j = 0; j < T::kThreadKeys; ++j) {
#pragma unroll
        for (int i = 0; i < T::kThreadRows; i += T::kVector) {
            Vector some;
#pragma unroll
            for (int e = 0; e < T::kVector; ++e) some.element[e] = scores[i + e][j];
            *reinterpret_cast<Vector*>(slots + slot_of<Acc>(i, j)) = some;
        }
    }
}
template <class Acc>
__device__ __forceinline__ void take_scores(const Acc* slots, typename Tile<Acc>::Scores& scores) {
    using T = Tile<Acc>;
    using Vector = typename T::Vector;
#pragma unroll
    for (int j = 0; j < T::kThreadKeys; ++j) {
#pragma unroll
        for (int i = 0; i < T::kThreadRows; i += T::kVector) {
            const Vector some = *reinterpret_cast<const Vector*>(slots + slot_of<Acc>(i, j));
#pragma unroll
            for (int e = 0; e < T::kVector; ++e) scores[i + e][j] = some.element[e];
        }
    }
}

// What is rare happens in each thread's own slots, in a loop: unrolled it would be most of a
// kernel's code.
//
// scores = tanh(scores / softcap)
template <class Acc>
__device__ __forceinline__ void bend_scores(typename Tile<Acc>::Scores& scores, Acc softcap,
                                            Acc* slots) {
    using T = Tile<Acc>;
    put_scores(scores, slots);
#pragma unroll 1
    for (int n = 0; n < T::kThreadRows * T::kThreadKeys; ++n) {
        Acc& score = slots[slot_of<Acc>(n / T::kThreadKeys, n % T::kThreadKeys)];
        score = tanh(score / softcap);
    }
    take_scores(slots, scores);
}
// slots = bias(i, j), for a thread's rows and keys
template <class Acc, class Bias>
__device__ __forceinline__ void put_bias(Acc* slots, const Bias& bias) {
    using T = Tile<Acc>;
#pragma unroll 1
    for (int n = 0; n < T::kThreadRows * T::kThreadKeys; ++n) {
        const int i = n / T::kThreadKeys;
        const int j = n % T::kThreadKeys;
        slots[slot_of<Acc>(i, j)] = bias(i, j);
    }
}

// The sum or maximum of what the 16 threads of a row have.
template <class Acc>
__device__ __forceinline__ Acc sum_of_row(Acc value) {
    for (int mask = 2; mask < kWarp; mask *= 2) value += shuffle_xor(value, mask);
    return value;
}
template <class Acc>
__device__ __forceinline__ Acc largest_of_row(Acc value) {
    for (int mask = 2; mask < kWarp; mask *= 2) value = larger(value, shuffle_xor(value, mask));
    return value;
}

}  // namespace slipstick::cuda::attention
