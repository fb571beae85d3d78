// The matrix products of the forward kernels, of one step and one panel. Included by
// kernels.simd.cpp and by their microbenchmark.
#pragma once

#include "attention/scores.hpp"
#include "core/simd.hpp"
#include "core/tile.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

using attention::KeyTile;
using attention::Panel;
using attention::Step;

// scores = key * query^T, the sums in chains of kDimChain.
template <class Acc>
SLIPSTICK_INLINE void multiply_keys(const Panel<Acc>& panel, const KeyTile<Acc>& tile,
                                    const Step<Acc>& step) {
    constexpr int lanes = kTileColumns<Acc>;
    for (int64_t j = step.begin; j < step.end; j += kTileRows) {
        int64_t k = 0;
        do {  // once for dim = 0: zeros
            const int64_t depth = step.dim - k < kDimChain ? step.dim - k : kDimChain;
            multiply_tile(FastMac<Acc>{}, depth, tile.key + j * step.dim + k * kTileRows,
                          panel.query + k * lanes, step.scores + (j - step.begin) * lanes, lanes,
                          k > 0);
            k += depth;
        } while (k < step.dim);
    }
}

// out += value^T * weights, the sums in chains of kKeyChain.
template <class Acc>
SLIPSTICK_INLINE void multiply_values(const Panel<Acc>& panel, const KeyTile<Acc>& tile,
                                      const Step<Acc>& step) {
    constexpr int lanes = kTileColumns<Acc>;
    for (int64_t c = 0; c < step.dim_v; c += kTileRows) {
        for (int64_t j = step.begin; j < step.end;) {
            const int64_t depth = chain_end(j, step.end) - j;
            multiply_tile(FastMac<Acc>{}, depth, tile.value + c * tile.keys + j * kTileRows,
                          step.scores + (j - step.begin) * lanes, panel.out + c * lanes, lanes,
                          true);
            j += depth;
        }
    }
}

// Column c of a tile's key j.
template <class Acc>
SLIPSTICK_INLINE Acc value_in(const KeyTile<Acc>& tile, int64_t j, int64_t c) {
    return tile.value[c / kTileRows * kTileRows * tile.keys + j * kTileRows + c % kTileRows];
}

// 0 times an infinity is NaN, so where a value is not finite, the rows that do not see its key are
// left out by selection.
template <class Acc, class ValueAt>
void add_visible_values(const Panel<Acc>& panel, const KeyTile<Acc>& tile, const Step<Acc>& step,
                        ValueAt value_at) {
    const Visible<Acc> visible(panel, tile, step);
    for (int64_t j = 0; j < step.end - step.begin; ++j) {
        const auto weight = Lanes<Acc>::load(step.scores + j * kTileColumns<Acc>);
        for (int64_t c = 0; c < step.dim_v; ++c) {
            const Acc value = value_at(tile, step.begin + j, c);
            Acc* out = panel.out + c * kTileColumns<Acc>;
            auto sum = Lanes<Acc>::load(out);
            for (int v = 0; v < kTileVectors; ++v) {
                const Vec<Acc> more = mul_add(weight.part[v], broadcast(value), sum.part[v]);
                sum.part[v] = visible(j, v) ? more : sum.part[v];
            }
            sum.store(out);
        }
    }
}

}  // namespace
}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
