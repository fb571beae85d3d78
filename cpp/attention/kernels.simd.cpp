#include "attention/kernels.hpp"

#include "attention/elements.hpp"
#include "attention/scores.hpp"
#include "core/simd.hpp"
#include "core/tile.hpp"
#if defined(__AVX512BF16__)
#include "attention/bfloat16.hpp"
#endif

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

using attention::KeyTile;
using attention::Panel;
using attention::Step;

// --- Packing ---
template <class T>
void pack_keys(const void* source, int64_t key_stride, int64_t dim_stride, int64_t keys,
               int64_t dim, AccOf<T>* packed) {
    pack_panels<kTileRows>(static_cast<const T*>(source), key_stride, dim_stride, keys, dim, packed,
                           [](T value) { return widened(value); });
}

template <class T>
bool pack_values(const void* source, int64_t key_stride, int64_t dim_stride, int64_t keys,
                 int64_t dim_v, AccOf<T>* packed) {
    pack_panels<kTileRows>(static_cast<const T*>(source), dim_stride, key_stride, dim_v, keys,
                           packed, [](T value) { return widened(value); });
    return all_finite(packed, (dim_v + kTileRows - 1) / kTileRows * kTileRows * keys);
}

// --- The fold of a step into a panel ---
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

// Column c of a tile's key j.
template <class Acc>
SLIPSTICK_INLINE Acc value_in(const KeyTile<Acc>& tile, int64_t j, int64_t c) {
    return tile.value[c / kTileRows * kTileRows * tile.keys + j * kTileRows + c % kTileRows];
}

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

// From products to scores, and the panel moved to the maximum that takes them in. Returns what the
// scores are still to be multiplied with.
template <class Acc, bool has_moment>
SLIPSTICK_INLINE Lanes<Acc> take_scores(const Panel<Acc>& panel, const KeyTile<Acc>& tile,
                                        const Step<Acc>& step) {
    constexpr int lanes = kTileColumns<Acc>;
    const int64_t keys = step.end - step.begin;
    auto factor = Lanes<Acc>::load(panel.factor);
    auto largest = Lanes<Acc>::load(panel.maximum);
    if (step.all_visible && step.bias == nullptr && step.softcap == 0) {
        largest = largest_score(step.scores, keys, factor, largest);
    } else {
        const Visible<Acc> visible(panel, tile, step);
        if (step.softcap != 0) {
            largest = finish_scores<Acc, true>(step.scores, keys, factor, visible, step.bias,
                                               step.softcap, largest);
        } else {
            largest = finish_scores<Acc, false>(step.scores, keys, factor, visible, step.bias, 0,
                                                largest);
        }
        for (int v = 0; v < kTileVectors; ++v) factor.part[v] = broadcast(Acc{1});
    }

    const auto alpha = move_reference<Acc, has_moment>(panel, largest);
    bool moved = false;
    for (int v = 0; v < kTileVectors; ++v) moved |= any(alpha.part[v] != Acc{1});
    if (moved) {
        for (int64_t c = 0; c < step.dim_v; ++c) {
            auto out = Lanes<Acc>::load(panel.out + c * lanes);
            for (int v = 0; v < kTileVectors; ++v) out.part[v] *= alpha.part[v];
            out.store(panel.out + c * lanes);
        }
    }
    return factor;
}

template <class Acc, bool has_moment>
void fold(const Panel<Acc>& panel, const KeyTile<Acc>& tile, const Step<Acc>& step) {
    multiply_keys(panel, tile, step);
    weigh<Acc, has_moment>(panel, step, take_scores<Acc, has_moment>(panel, tile, step));
    tile.finite ? multiply_values(panel, tile, step)
                : add_visible_values(panel, tile, step, &value_in<Acc>);
}

#if defined(__AVX512BF16__)
template <bool has_moment>
void fold_pairs(const Panel<float>& panel, const KeyTile<float>& tile, const Step<float>& step) {
    multiply_key_pairs(panel, tile, step);
    const auto factor = take_scores<float, has_moment>(panel, tile, step);
    if (tile.finite) {
        weigh_pairs<has_moment>(panel, step, factor);
        multiply_value_pairs(panel, tile, step);
    } else {
        weigh<float, has_moment>(panel, step, factor);
        add_visible_values(panel, tile, step, &value_in_pairs);
    }
}
#endif

template <class T>
void finish(const Panel<AccOf<T>>& panel, int64_t dim_v, void* const* rows, int64_t count,
            int64_t stride) {
    using Acc = AccOf<T>;
    Vec<Acc> factor[kTileVectors];
    for (int v = 0; v < kTileVectors; ++v)
        factor[v] = Acc{1} / load<Vec<Acc>>(panel.sum + v * kLanes<Acc>);
    unpack_rows<T>(panel.out, factor, dim_v, rows, count, stride);
}

template <class T>
constexpr attention::Forward<AccOf<T>> kForward = {
    .lanes = kTileColumns<AccOf<T>>,
    .tile_rows = kTileRows,
    .pack_queries = &pack_rows<T>,
    .pack_keys = &pack_keys<T>,
    .pack_values = &pack_values<T>,
    .fold = &fold<AccOf<T>, false>,
    .fold_moment = &fold<AccOf<T>, true>,
    .finish = &finish<T>,
};
#if defined(__AVX512BF16__)
template <>
constexpr attention::Forward<float> kForward<BFloat16> = {
    .lanes = kTileColumns<float>,
    .tile_rows = kTileRows,
    .pack_queries = &pack_query_pairs,
    .pack_keys = &pack_key_pairs,
    .pack_values = &pack_value_pairs,
    .fold = &fold_pairs<false>,
    .fold_moment = &fold_pairs<true>,
    .finish = &finish<BFloat16>,
};
#endif

// --- Softmax of given scores ---
template <class T>
int64_t read_row(const void* source, int64_t stride, int64_t count, AccOf<T>* row) {
    const T* scores = static_cast<const T*>(source);
    int64_t visible = 0;
    for (int64_t j = 0; j < count; ++j) {
        row[j] = widened(scores[j * stride]);
        visible += row[j] != -kInfinity<AccOf<T>> ? 1 : 0;
    }
    return visible;
}

template <class Acc>
void weigh_row(Acc* row, int64_t count, Acc factor, bool empty) {
    using V = Vec<Acc>;
    constexpr int lanes = kLanes<Acc>;
    const V hidden = broadcast(-kInfinity<Acc>);
    for (int64_t j = count; j % lanes != 0; ++j) row[j] = -kInfinity<Acc>;
    V largest = hidden;
    for (int64_t j = 0; j < count; j += lanes) {
        const V given = load<V>(row + j);
        const V score = given == hidden ? hidden : given * factor;
        store(row + j, score);
        largest = maximum(largest, score);
    }
    Acc reference = reduce<Acc>(largest, [](Acc a, Acc b) { return b > a ? b : a; });
    if (reference == -kInfinity<Acc>) reference = 0;

    // Chains of 64 additions a lane, and their sums in float64: the rounding of a long row stays
    // that of a short one.
    constexpr int64_t block = 64 * lanes;
    double total = 0;
    for (int64_t begin = 0; begin < count; begin += block) {
        const int64_t end = begin + block < count ? begin + block : count;
        V part = {};
        for (int64_t j = begin; j < end; j += lanes) {
            const V weight = exp<Acc>(load<V>(row + j) - reference);
            store(row + j, weight);
            part += weight;
        }
        total += static_cast<double>(sum<Acc>(part));
    }
    const auto divisor = static_cast<Acc>(empty ? 1.0 : total);
    for (int64_t j = 0; j < count; j += lanes) store(row + j, load<V>(row + j) / divisor);
}

template <class T>
void write_row(const AccOf<T>* row, void* target, int64_t stride, int64_t count) {
    using Acc = AccOf<T>;
    constexpr int lanes = kLanes<Acc>;
    T* out = static_cast<T*>(target);
    for (int64_t j = 0; j < count; j += lanes) {
        store_some(out + j * stride, stride, count - j, load<Vec<Acc>>(row + j));
    }
}

template <class T>
constexpr attention::Softmax<AccOf<T>> kSoftmax = {
    .lanes = kLanes<AccOf<T>>,
    .read = &read_row<T>,
    .weigh = &weigh_row<AccOf<T>>,
    .write = &write_row<T>,
};

}  // namespace

const attention::Kernels attention_kernels = {
    .float32 = {kForward<float>, kSoftmax<float>},
    .float64 = {kForward<double>, kSoftmax<double>},
    .float16 = {kForward<Float16>, kSoftmax<Float16>},
    .bfloat16 = {kForward<BFloat16>, kSoftmax<BFloat16>},
};

}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
