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
//       using Acc = ...;     // float, double, or an integer
//       Vec<Acc> operator()(Vec<Acc> acc, Left left, Vec<Right> right) const;
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
SLIPSTICK_INLINE void multiply_tile(const Mac& mac, int64_t depth, const typename Mac::Left* left,
                                    const typename Mac::Right* right, typename Mac::Acc* acc,
                                    int64_t acc_stride, bool accumulate) {
    using V = Vec<typename Mac::Acc>;
    constexpr int lanes = kLanes<typename Mac::Acc>;
    V sums[kTileRows][kTileVectors] = {};
    for (int64_t k = 0; k < depth; ++k) {
        Vec<typename Mac::Right> columns[kTileVectors];
#pragma GCC unroll 2
        for (int v = 0; v < kTileVectors; ++v) {
            columns[v] = load<Vec<typename Mac::Right>>(right + (k * kTileVectors + v) * lanes);
        }
#pragma GCC unroll 12
        for (int i = 0; i < kTileRows; ++i) {
#pragma GCC unroll 2
            for (int v = 0; v < kTileVectors; ++v) {
                sums[i][v] = mac(sums[i][v], left[k * kTileRows + i], columns[v]);
            }
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < kTileRows; ++i) {
#pragma GCC unroll 2
        for (int v = 0; v < kTileVectors; ++v) {
            typename Mac::Acc* target = acc + i * acc_stride + v * lanes;
            store(target, accumulate ? load<V>(target) + sums[i][v] : sums[i][v]);
        }
    }
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
            multiply_tile(local, depth, static_cast<const typename Mac::Left*>(left) + i * depth,
                          static_cast<const typename Mac::Right*>(right) + j * depth,
                          static_cast<typename Mac::Acc*>(acc) + i * acc_stride + j, acc_stride,
                          accumulate);
        }
    }
}

// Packs `count` rows (or columns) of `depth` elements from strided memory into panels `height`
// high, zeros behind the last. convert(T) gives the packed element; its value for padding is
// Packed{}.
template <int height, class Packed, class T, class Convert>
SLIPSTICK_INLINE void pack_panels(const T* source, int64_t stride, int64_t depth_stride,
                                  int64_t count, int64_t depth, Packed* packed, Convert convert) {
    for (int64_t first = 0; first < count; first += height, packed += height * depth) {
        const T* panel = source + first * stride;
        const int64_t used = count - first < height ? count - first : height;
        if (used == height && stride == 1) {
            for (int64_t k = 0; k < depth; ++k) {
                for (int i = 0; i < height; ++i)
                    packed[k * height + i] = convert(panel[k * depth_stride + i]);
            }
            continue;
        }
        for (int64_t i = 0; i < height; ++i) {
            for (int64_t k = 0; k < depth; ++k) {
                packed[k * height + i] =
                    i < used ? convert(panel[i * stride + k * depth_stride]) : Packed{};
            }
        }
    }
}

// The exact product, for kernels whose operands are ordinary numbers. Fused: rounds alike
// everywhere.
template <class T>
struct ExactMac {
    using Left = T;
    using Right = T;
    using Acc = T;
    SLIPSTICK_INLINE Vec<T> operator()(Vec<T> acc, T left, Vec<T> right) const {
        return fma(broadcast(left), right, acc);
    }
};

// The same as fast as the level can: bits may differ between levels, unless the products are exact.
template <class T>
struct FastMac {
    using Left = T;
    using Right = T;
    using Acc = T;
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
    .acc_bytes = sizeof(typename Mac::Acc),
};

}  // namespace
}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
