// From products q k to weights e^(s - m), for one panel of rows. Included by *.simd.cpp alone.
#pragma once

#include "attention/kernels.hpp"
#include "core/simd.hpp"
#include "core/tile.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

template <class Acc>
constexpr Acc kInfinity = static_cast<Acc>(__builtin_inf());
// Below this e^t is 0; t is kept above it where it is multiplied with e^t.
template <class Acc>
constexpr Acc kLowestExponent = ExpConstants<Acc>::kLowest;

// Additions in one chain, before its sum is added to what was there: a quarter of a tile's keys.
// Long chains round more. Where a chain ends depends on the number of the key in its tile alone, so
// that a row's bits do not depend on what else is in its panel.
constexpr int64_t kKeyChain = 60;
constexpr int64_t kDimChain = 128;

SLIPSTICK_INLINE int64_t chain_end(int64_t key, int64_t end) {
    const int64_t next = (key / kKeyChain + 1) * kKeyChain;
    return next < end ? next : end;
}

// The rows of a panel as vectors.
template <class Acc>
struct Lanes {
    Vec<Acc> part[kTileVectors];

    SLIPSTICK_INLINE static Lanes load(const Acc* source) {
        Lanes lanes;
        for (int v = 0; v < kTileVectors; ++v)
            lanes.part[v] = SLIPSTICK_LEVEL::load<Vec<Acc>>(source + v * kLanes<Acc>);
        return lanes;
    }
    SLIPSTICK_INLINE void store(Acc* target) const {
        for (int v = 0; v < kTileVectors; ++v)
            SLIPSTICK_LEVEL::store(target + v * kLanes<Acc>, part[v]);
    }
};

// Which rows see a key, by position and bias.
template <class Acc>
class Visible {
public:
    using Int = Vec<typename BitsOf<Acc>::Signed>;

    SLIPSTICK_INLINE Visible(const attention::Panel<Acc>& panel,
                             const attention::KeyTile<Acc>& tile, const attention::Step<Acc>& step)
        : bias_(step.bias) {
        for (int v = 0; v < kTileVectors; ++v) {
            for (int i = 0; i < kLanes<Acc>; ++i) {
                // Counted from the step's first key, and small enough for any lane.
                const int64_t lane = v * kLanes<Acc> + i;
                first_[v][i] = clip(panel.first[lane] - tile.start - step.begin, step);
                last_[v][i] = clip(panel.last[lane] - tile.start - step.begin, step);
            }
        }
    }
    SLIPSTICK_INLINE Int operator()(int64_t j, int v) const {
        const auto index = static_cast<typename BitsOf<Acc>::Signed>(j);
        Int seen = (first_[v] <= index) & (last_[v] > index);
        if (bias_ != nullptr) {
            const Vec<Acc> bias = load<Vec<Acc>>(bias_ + (j * kTileVectors + v) * kLanes<Acc>);
            seen &= bias != -kInfinity<Acc>;
        }
        return seen;
    }

private:
    SLIPSTICK_INLINE static typename BitsOf<Acc>::Signed clip(int64_t index,
                                                              const attention::Step<Acc>& step) {
        const int64_t keys = step.end - step.begin;
        return static_cast<typename BitsOf<Acc>::Signed>(index < 0 ? 0
                                                                   : (index > keys ? keys : index));
    }

    Int first_[kTileVectors];
    Int last_[kTileVectors];
    const Acc* bias_;
};

// The plain case: nothing hides a key and lambda is all there is, so scores need not be stored.
template <class Acc>
SLIPSTICK_INLINE Lanes<Acc> largest_score(const Acc* products, int64_t keys,
                                          const Lanes<Acc>& factor, Lanes<Acc> largest) {
    for (int64_t j = 0; j < keys; ++j) {
        const auto product = Lanes<Acc>::load(products + j * kTileColumns<Acc>);
        for (int v = 0; v < kTileVectors; ++v)
            largest.part[v] = maximum(largest.part[v], product.part[v] * factor.part[v]);
    }
    return largest;
}

// s = c tanh(lambda r / c) + bias in place of r, -inf where the key is hidden. The bias follows the
// cap, and hiding is a selection: -inf never meets lambda, which may be 0 or negative.
template <class Acc, bool has_softcap>
SLIPSTICK_INLINE Lanes<Acc> finish_scores(Acc* scores, int64_t keys, const Lanes<Acc>& factor,
                                          const Visible<Acc>& visible, const Acc* bias, Acc softcap,
                                          Lanes<Acc> largest) {
    const Vec<Acc> hidden = broadcast(-kInfinity<Acc>);
    for (int64_t j = 0; j < keys; ++j) {
        auto score = Lanes<Acc>::load(scores + j * kTileColumns<Acc>);
        for (int v = 0; v < kTileVectors; ++v) {
            Vec<Acc> s = score.part[v] * factor.part[v];
            if constexpr (has_softcap) s = softcap * tanh<Acc>(s / softcap);
            if (bias != nullptr) s += load<Vec<Acc>>(bias + (j * kTileVectors + v) * kLanes<Acc>);
            s = visible(j, v) ? s : hidden;
            score.part[v] = s;
            largest.part[v] = maximum(largest.part[v], s);
        }
        score.store(scores + j * kTileColumns<Acc>);
    }
    return largest;
}

// Moves l and a from the reference m to the larger m', and returns e^(m - m'), the factor for the
// output: a <- alpha (a + delta l), l <- alpha l with delta = m - m'. A row that has seen nothing
// has alpha 0.
template <class Acc, bool has_moment>
SLIPSTICK_INLINE Lanes<Acc> move_reference(const attention::Panel<Acc>& panel,
                                           const Lanes<Acc>& largest) {
    const auto before = Lanes<Acc>::load(panel.maximum);
    auto sum = Lanes<Acc>::load(panel.sum);
    Lanes<Acc> alpha;
    for (int v = 0; v < kTileVectors; ++v) {
        const Vec<Acc> zero = {};
        const auto unseen = before.part[v] == -kInfinity<Acc>;
        // Equal ones need no moving, infinite ones included.
        Vec<Acc> delta =
            before.part[v] == largest.part[v] ? zero : before.part[v] - largest.part[v];
        delta = unseen ? zero : delta;
        alpha.part[v] = unseen ? zero : exp<Acc>(delta);
        if constexpr (has_moment) {
            Acc* target = panel.moment + v * kLanes<Acc>;
            const Vec<Acc> low = broadcast(kLowestExponent<Acc>);
            const Vec<Acc> moment = load<Vec<Acc>>(target);
            store(target, alpha.part[v] * mul_add(maximum(delta, low), sum.part[v], moment));
        }
        sum.part[v] *= alpha.part[v];
    }
    sum.store(panel.sum);
    largest.store(panel.maximum);
    return alpha;
}

// p = e^(s - m) in place of the products (s = factor * product), added to l, and p (s - m) to a.
template <class Acc, bool has_moment>
SLIPSTICK_INLINE void weigh(const attention::Panel<Acc>& panel, const attention::Step<Acc>& step,
                            const Lanes<Acc>& factor) {
    auto reference = Lanes<Acc>::load(panel.maximum);
    auto total = Lanes<Acc>::load(panel.sum);
    auto total_moment = Lanes<Acc>::load(panel.moment);
    const Vec<Acc> zero = {};
    const Vec<Acc> low = broadcast(kLowestExponent<Acc>);
    for (int v = 0; v < kTileVectors; ++v) {
        // Nothing seen yet: any finite reference gives the weight 0 to a score of -inf.
        reference.part[v] = reference.part[v] == -kInfinity<Acc> ? zero : reference.part[v];
    }
    Acc* line = step.scores;
    for (int64_t j = step.begin; j < step.end;) {
        Lanes<Acc> sum = {};
        Lanes<Acc> moment = {};
        for (const int64_t end = chain_end(j, step.end); j < end; ++j, line += kTileColumns<Acc>) {
            auto score = Lanes<Acc>::load(line);
            for (int v = 0; v < kTileVectors; ++v) {
                const Vec<Acc> t = score.part[v] * factor.part[v] - reference.part[v];
                const Vec<Acc> weight = exp<Acc>(t);
                score.part[v] = weight;
                sum.part[v] += weight;
                if constexpr (has_moment)
                    moment.part[v] = mul_add(weight, maximum(t, low), moment.part[v]);
            }
            score.store(line);
        }
        for (int v = 0; v < kTileVectors; ++v) {
            total.part[v] += sum.part[v];
            if constexpr (has_moment) total_moment.part[v] += moment.part[v];
        }
    }
    total.store(panel.sum);
    if constexpr (has_moment) total_moment.store(panel.moment);
}

}  // namespace
}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
