// The register-tiled micro-kernel that every matrix product of the package stands on, generic in
// how it multiplies and accumulates and in where its operands come from. Included by *.simd.cpp
// alone.
//
//   acc[i][j] (+)= sum over k of left[i][k] (x) right[k][j]
//
// A Mac says what (x) and the sum are:
//   struct Mac {
//       using Left = ...;    // what a packed element of the left operand is
//       using Right = ...;   // the same on the right; as wide as Acc, so that lanes match
//       using Acc = ...;     // float, double, or an integer: what a chain is summed in
//       using Total = ...;   // as wide as Acc: what the chains are added up in
//       Vec<Acc> operator()(Vec<Acc> acc, Left left, Vec<Right> right) const;
//       Vec<Total> finish(Vec<Acc> chain) const;
//       static constexpr bool kHeavy = ...;  // many instructions a product: loops stay rolled
//   };
// Operands are packed into panels: the left one kTileRows rows high, the right one
// kTileColumns<Acc> columns wide, both running along k. Padding is zeros, and the accumulator has
// room for whole tiles, so the inner loop knows no edges. Within one call each element is one chain
// over increasing k that starts at +0; `accumulate` adds the finished chain to what was there.
// Hence a result does not depend on the blocking.
#pragma once

#include "core/matmul.hpp"
#include "core/simd.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

// 16 registers: 6 x 2 accumulators, 2 for the right operand, 1 or 2 for the left one and the
// product. 32 registers: 12 x 2 accumulators.
constexpr int kTileRows = kVectorRegisters == 32 ? 12 : 6;
constexpr int kTileVectors = 2;
template <class Acc>
constexpr int kTileColumns = kTileVectors * kLanes<Acc>;

template <class Mac>
SLIPSTICK_INLINE void store_tile_row(const Mac& mac, const Vec<typename Mac::Acc>* sums,
                                     typename Mac::Total* target, bool accumulate) {
    using V = Vec<typename Mac::Total>;
    constexpr int lanes = kLanes<typename Mac::Acc>;
#pragma GCC unroll 2
    for (int v = 0; v < kTileVectors; ++v) {
        const V chain = mac.finish(sums[v]);
        store(target + v * lanes, accumulate ? load<V>(target + v * lanes) + chain : chain);
    }
}

template <class Mac>
SLIPSTICK_INLINE void multiply_tile(const Mac& mac, int64_t depth, const typename Mac::Left* left,
                                    const typename Mac::Right* right, typename Mac::Total* acc,
                                    int64_t acc_stride, bool accumulate) {
    using V = Vec<typename Mac::Acc>;
    using W = Vec<typename Mac::Right>;
    constexpr int lanes = kLanes<typename Mac::Acc>;
    if constexpr (Mac::kHeavy) {
#pragma GCC unroll 1
        for (int i = 0; i < kTileRows; ++i) {
            V sums[kTileVectors] = {};
#pragma GCC unroll 1
            for (int64_t k = 0; k < depth; ++k) {
#pragma GCC unroll 2
                for (int v = 0; v < kTileVectors; ++v) {
                    sums[v] = mac(sums[v], left[k * kTileRows + i],
                                  load<W>(right + (k * kTileVectors + v) * lanes));
                }
            }
            store_tile_row(mac, sums, acc + i * acc_stride, accumulate);
        }
        return;
    }
    V sums[kTileRows][kTileVectors] = {};
    // Unrolled: at 6 x 2 with two instructions a product the loop's own three would cost 6 %.
#pragma GCC unroll 4
    for (int64_t k = 0; k < depth; ++k) {
        W columns[kTileVectors];
#pragma GCC unroll 2
        for (int v = 0; v < kTileVectors; ++v)
            columns[v] = load<W>(right + (k * kTileVectors + v) * lanes);
#pragma GCC unroll 12
        for (int i = 0; i < kTileRows; ++i) {
#pragma GCC unroll 2
            for (int v = 0; v < kTileVectors; ++v)
                sums[i][v] = mac(sums[i][v], left[k * kTileRows + i], columns[v]);
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < kTileRows; ++i)
        store_tile_row(mac, sums[i], acc + i * acc_stride, accumulate);
}

// All tiles of a block. Right panels outside: one of them (16 KiB at depth 256) stays in the first
// cache while the left panels stream past it.
template <class Mac>
void multiply_block(const void* mac, int64_t rows, int64_t depth, int64_t columns, const void* left,
                    const void* right, void* acc, int64_t acc_stride, bool accumulate) {
    constexpr int width = kTileColumns<typename Mac::Acc>;
    const Mac local = *static_cast<const Mac*>(mac);
    for (int64_t j = 0; j < columns; j += width) {
        for (int64_t i = 0; i < rows; i += kTileRows) {
            auto* const tile = static_cast<typename Mac::Total*>(acc) + i * acc_stride + j;
            // The sums so far lie in the third cache: fetched while the products run, they cost no
            // wait.
            for (int row = 0; row < kTileRows && !Mac::kHeavy; ++row) {
                __builtin_prefetch(tile + row * acc_stride, 1);
                __builtin_prefetch(tile + row * acc_stride + width - 1, 1);
            }
            multiply_tile(local, depth, static_cast<const typename Mac::Left*>(left) + i * depth,
                          static_cast<const typename Mac::Right*>(right) + j * depth, tile,
                          acc_stride, accumulate);
        }
    }
}

// packed[k * step + i] = lines[i][k] for `width` lines of up to kPackDepth elements, four or two of
// 4 bytes, two of 8: a transposition in registers, since single stores would bind packing to one
// element a cycle.
constexpr int64_t kPackDepth = 256;
template <int width, class Packed>
SLIPSTICK_INLINE void interleave_lines(const Packed (*lines)[kPackDepth], int64_t depth,
                                       Packed* packed, int64_t step) {
    typedef Packed Quad __attribute__((vector_size(16)));
    constexpr int lanes = 16 / static_cast<int>(sizeof(Packed));
    int64_t k = 0;
    for (; k + lanes <= depth; k += lanes) {
        Quad row[width];
        for (int i = 0; i < width; ++i) row[i] = load<Quad>(lines[i] + k);
        if constexpr (width == 4) {
            const Quad low01 = __builtin_shufflevector(row[0], row[1], 0, 4, 1, 5);
            const Quad low23 = __builtin_shufflevector(row[2], row[3], 0, 4, 1, 5);
            const Quad high01 = __builtin_shufflevector(row[0], row[1], 2, 6, 3, 7);
            const Quad high23 = __builtin_shufflevector(row[2], row[3], 2, 6, 3, 7);
            store(packed + k * step, __builtin_shufflevector(low01, low23, 0, 1, 4, 5));
            store(packed + (k + 1) * step, __builtin_shufflevector(low01, low23, 2, 3, 6, 7));
            store(packed + (k + 2) * step, __builtin_shufflevector(high01, high23, 0, 1, 4, 5));
            store(packed + (k + 3) * step, __builtin_shufflevector(high01, high23, 2, 3, 6, 7));
        } else if constexpr (lanes == 4) {
            typedef uint64_t Pairs __attribute__((vector_size(16)));
            const auto low = bit_cast<Pairs>(__builtin_shufflevector(row[0], row[1], 0, 4, 1, 5));
            const auto high = bit_cast<Pairs>(__builtin_shufflevector(row[0], row[1], 2, 6, 3, 7));
            store(packed + k * step, low[0]);
            store(packed + (k + 1) * step, low[1]);
            store(packed + (k + 2) * step, high[0]);
            store(packed + (k + 3) * step, high[1]);
        } else {
            store(packed + k * step, __builtin_shufflevector(row[0], row[1], 0, 2));
            store(packed + (k + 1) * step, __builtin_shufflevector(row[0], row[1], 1, 3));
        }
    }
    for (; k < depth; ++k) {
        for (int i = 0; i < width; ++i) packed[k * step + i] = lines[i][k];
    }
}

// Packs `count` rows (or columns) of `depth` elements from strided memory into panels `height`
// high, `padding` behind the last. convert(T) gives the packed element. Where an element becomes
// several terms, `terms` of them, the panels are as many times as deep, and one call fills every
// terms-th line, from `packed` on.
template <int height, class Packed, class T, class Convert>
SLIPSTICK_INLINE void pack_panels(const T* source, int64_t stride, int64_t depth_stride,
                                  int64_t count, int64_t depth, Packed* packed, Convert convert,
                                  Packed padding = Packed{}, int64_t terms = 1) {
    const int64_t step = terms * height;
    int64_t first = 0;
    if (stride == 1) {
        // A few lines of all full panels before the next few: a line of one panel alone is often
        // one cache line of a page of its own. Converted in vectors, then cut.
        constexpr int64_t lines = 16;
        constexpr int64_t piece = kPackDepth / height * height;
        const int64_t full = count - count % height;
        for (int64_t k0 = 0; k0 < depth; k0 += lines) {
            const int64_t end = depth - k0 < lines ? depth : k0 + lines;
            for (int64_t column = 0; column < full; column += piece) {
                const int64_t width = full - column < piece ? full - column : piece;
                for (int64_t k = k0; k < end; ++k) {
                    Packed line[piece];
                    const T* const start = source + k * depth_stride + column;
                    for (int64_t i = 0; i < width; ++i) line[i] = convert(start[i]);
                    Packed* target = packed + column * terms * depth + k * step;
                    for (int64_t i = 0; i < width; i += height, target += step * depth)
                        __builtin_memcpy(target, line + i, height * sizeof(Packed));
                }
            }
        }
        first = full;
        packed += full * terms * depth;
    }
    for (; first < count; first += height, packed += step * depth) {
        const T* panel = source + first * stride;
        const int64_t used = count - first < height ? count - first : height;
        int64_t i = 0;
        if constexpr (!__is_class(Packed)) {
            constexpr int lanes = 16 / static_cast<int>(sizeof(Packed));
            const auto pack_lines = [&]<int width>() {
                for (; depth_stride == 1 && i + width <= used; i += width) {
                    for (int64_t k0 = 0; k0 < depth; k0 += kPackDepth) {
                        const int64_t length = depth - k0 < kPackDepth ? depth - k0 : kPackDepth;
                        Packed lines[width][kPackDepth];
                        for (int line = 0; line < width; ++line) {
                            const T* start = panel + (i + line) * stride + k0;
                            Packed* const target = lines[line];
                            for (int64_t k = 0; k < length; ++k) target[k] = convert(start[k]);
                        }
                        interleave_lines<width>(lines, length, packed + k0 * step + i, step);
                    }
                }
            };
            if constexpr (lanes == 4) pack_lines.template operator()<4>();
            pack_lines.template operator()<2>();
        }
        for (; i < height; ++i) {
            for (int64_t k = 0; k < depth; ++k) {
                packed[k * step + i] =
                    i < used ? convert(panel[i * stride + k * depth_stride]) : padding;
            }
        }
    }
}

// What most Macs are: chains in Acc, added up as they are.
template <class L, class R, class A>
struct PlainMac {
    using Left = L;
    using Right = R;
    using Acc = A;
    using Total = A;
    static constexpr bool kHeavy = false;
    SLIPSTICK_INLINE Vec<A> finish(Vec<A> chain) const { return chain; }
};

// The exact product, for kernels whose operands are ordinary numbers. Fused: rounds alike
// everywhere.
template <class T>
struct ExactMac : PlainMac<T, T, T> {
    SLIPSTICK_INLINE Vec<T> operator()(Vec<T> acc, T left, Vec<T> right) const {
        return fma(broadcast(left), right, acc);
    }
};

// The same as fast as the level can: bits may differ between levels, unless the products are exact.
template <class T>
struct FastMac : PlainMac<T, T, T> {
    SLIPSTICK_INLINE Vec<T> operator()(Vec<T> acc, T left, Vec<T> right) const {
        return mul_add(broadcast(left), right, acc);
    }
};

template <class Mac>
constexpr MatmulKernel kMatmulKernel = {
    .multiply = &multiply_block<Mac>,
    .tile_rows = kTileRows,
    .tile_columns = kTileColumns<typename Mac::Acc>,
    .left_bytes = sizeof(typename Mac::Left),
    .right_bytes = sizeof(typename Mac::Right),
    .acc_bytes = sizeof(typename Mac::Total),
    .acc_rows = 1,
};

}  // namespace
}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
