// Elements of the caller's dtype as numbers of the type they are accumulated in, singly, in vectors
// and in panels of rows. Included by *.simd.cpp alone.
#pragma once

#include "attention/kernels.hpp"
#include "core/simd.hpp"
#include "core/tile.hpp"
#include "core/transpose.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

using attention::AccOf;

static_assert(kTileColumns<float> <= attention::kMostLanes);

template <class T>
SLIPSTICK_INLINE AccOf<T> widened(T value) {
    if constexpr (sizeof(T) == 2) {
        return to_float(value);
    } else {
        return value;
    }
}
template <class T>
SLIPSTICK_INLINE Vec<AccOf<T>> load_widened(const T* source) {
    if constexpr (sizeof(T) == 2) {
        return widen(zero_extend(load<VecLike<uint16_t, float>>(source)), T{});
    } else {
        return load<Vec<T>>(source);
    }
}
// `count` elements, less than a vector, or up to one, and zeros behind them.
template <class T>
SLIPSTICK_INLINE Vec<AccOf<T>> load_some(const T* source, int64_t count) {
    T some[kLanes<AccOf<T>>] = {};
    for (int64_t i = 0; i < count; ++i) some[i] = source[i];
    return load_widened(some);
}

template <class T>
SLIPSTICK_INLINE Vec<AccOf<T>> load_up_to(const T* source, int64_t count) {
    return count >= kLanes<AccOf<T>> ? load_widened(source) : load_some(source, count);
}

// Elements that are `stride` apart, as above.
template <class T>
SLIPSTICK_INLINE Vec<AccOf<T>> load_strided(const T* source, int64_t stride, int64_t count) {
    constexpr int lanes = kLanes<AccOf<T>>;
    if (stride == 1) return load_up_to(source, count);
    T some[lanes] = {};
    for (int64_t i = 0; i < lanes && i < count; ++i) some[i] = source[i * stride];
    return load_widened(some);
}

template <class T>
SLIPSTICK_INLINE void store_rounded(T* target, Vec<AccOf<T>> value) {
    if constexpr (sizeof(T) == 2) {
        store(target, narrow(value, T{}));
    } else {
        store(target, value);
    }
}
// The first `count` lanes, at most all, `stride` elements apart.
template <class T>
SLIPSTICK_INLINE void store_some(T* target, int64_t stride, int64_t count, Vec<AccOf<T>> value) {
    constexpr int lanes = kLanes<AccOf<T>>;
    if (stride == 1 && count >= lanes) return store_rounded(target, value);
    T some[lanes];
    store_rounded(some, value);
    for (int64_t i = 0; i < lanes && i < count; ++i) target[i * stride] = some[i];
}

// No infinity and no NaN among `count` numbers.
template <class Acc>
SLIPSTICK_INLINE bool all_finite(const Acc* values, int64_t count) {
    constexpr int lanes = kLanes<Acc>;
    // 0 times anything else is NaN, which stays in a sum.
    Vec<Acc> sums[4] = {};
    const Vec<Acc> zero = {};
    int64_t i = 0;
    for (; i + 4 * lanes <= count; i += 4 * lanes) {
        for (int v = 0; v < 4; ++v)
            sums[v] = mul_add(load<Vec<Acc>>(values + i + v * lanes), zero, sums[v]);
    }
    Acc rest = 0;
    for (; i < count; ++i) rest += values[i] * Acc{0};
    const Vec<Acc> total = (sums[0] + sums[1]) + (sums[2] + sums[3]) + rest;
    return !any(total != zero);
}

// panel[k * kTileColumns + lane] = rows[lane][k * stride], or 0 where the row is null.
template <class T>
void pack_rows(const void* const* rows, int64_t stride, int64_t dim, AccOf<T>* panel) {
    using Acc = AccOf<T>;
    constexpr int lanes = kLanes<Acc>;
    constexpr int columns = kTileColumns<Acc>;
    if (stride != 1) {
        for (int64_t lane = 0; lane < columns; ++lane) {
            const T* row = static_cast<const T*>(rows[lane]);
            for (int64_t k = 0; k < dim; ++k)
                panel[k * columns + lane] = row == nullptr ? Acc{0} : widened(row[k * stride]);
        }
        return;
    }
    for (int64_t first = 0; first < columns; first += lanes) {
        for (int64_t k = 0; k < dim; k += lanes) {
            Vec<Acc> square[lanes];
            for (int i = 0; i < lanes; ++i) {
                const T* row = static_cast<const T*>(rows[first + i]);
                square[i] = row == nullptr ? Vec<Acc>{} : load_up_to(row + k, dim - k);
            }
            transpose<Acc>(square);
            for (int i = 0; i < lanes && k + i < dim; ++i)
                store(panel + (k + i) * columns + first, square[i]);
        }
    }
}

// rows[lane][c * stride] = round(factor[lane] * panel[c * kTileColumns + lane]), the way back.
template <class T>
void unpack_rows(const AccOf<T>* panel, const Vec<AccOf<T>>* factor, int64_t dim, void* const* rows,
                 int64_t count, int64_t stride) {
    using Acc = AccOf<T>;
    constexpr int lanes = kLanes<Acc>;
    constexpr int columns = kTileColumns<Acc>;
    for (int64_t first = 0; first < count; first += lanes) {
        for (int64_t c = 0; c < dim; c += lanes) {
            Vec<Acc> square[lanes] = {};
            for (int i = 0; i < lanes && c + i < dim; ++i) {
                square[i] =
                    load<Vec<Acc>>(panel + (c + i) * columns + first) * factor[first / lanes];
            }
            transpose<Acc>(square);
            for (int i = 0; i < lanes && first + i < count; ++i)
                store_some(static_cast<T*>(rows[first + i]) + c * stride, stride, dim - c,
                           square[i]);
        }
    }
}

}  // namespace
}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
