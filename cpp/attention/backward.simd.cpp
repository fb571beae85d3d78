#include "attention/backward_kernels.hpp"
#include "attention/elements.hpp"
#include "attention/scores.hpp"
#include "core/simd.hpp"
#include "core/tile.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

using attention::GradStep;
using attention::GradTile;
using attention::RowTile;

// Rows in one chain of dK and dV. Chains of 64 rounded more than a plain loop over one head's rows.
constexpr int64_t kRowChain = 32;

// --- Packing ---
template <class T>
bool pack_line(const void* row, int64_t stride, int64_t count, AccOf<T> factor, int64_t width,
               AccOf<T>* line) {
    using Acc = AccOf<T>;
    constexpr int lanes = kTileColumns<Acc>;
    const T* source = static_cast<const T*>(row);
    Vec<Acc> zeros = {};
    for (int64_t k = 0; k < count; k += kLanes<Acc>) {
        const Vec<Acc> scaled = factor * load_strided(source + k * stride, stride, count - k);
        store(line + k / lanes * lanes * width + k % lanes, scaled);
        zeros = mul_add(scaled, Vec<Acc>{}, zeros);
    }
    return !any(zeros != Vec<Acc>{});
}

template <class T>
bool pack_keys(const void* source, int64_t key_stride, int64_t dim_stride, int64_t keys,
               int64_t dim, AccOf<T>* packed) {
    pack_panels<kTileRows>(static_cast<const T*>(source), key_stride, dim_stride, keys, dim, packed,
                           [](T value) { return widened(value); });
    return all_finite(packed, (keys + kTileRows - 1) / kTileRows * kTileRows * dim);
}

template <class T>
void pack_columns(const void* source, int64_t key_stride, int64_t dim_stride, int64_t keys,
                  int64_t dim, AccOf<T>* packed) {
    pack_panels<kTileRows>(static_cast<const T*>(source), dim_stride, key_stride, dim, keys, packed,
                           [](T value) { return widened(value); });
}

// --- From products to gradients ---
// target = left * right^T for the keys of a step, the sums in chains of kDimChain: for the scores
// the forward kernel's chains, so that a score is the one that lse was made of.
template <class Acc>
SLIPSTICK_INLINE void multiply_rows(const Acc* left, const Acc* right, int64_t dim, int64_t begin,
                                    int64_t end, Acc* target) {
    constexpr int lanes = kTileColumns<Acc>;
    for (int64_t j = begin; j < end; j += kTileRows) {
        int64_t k = 0;
        do {  // once for dim = 0: zeros
            const int64_t depth = dim - k < kDimChain ? dim - k : kDimChain;
            multiply_tile(FastMac<Acc>{}, depth, left + j * dim + k * kTileRows, right + k * lanes,
                          target + (j - begin) * lanes, lanes, k > 0);
            k += depth;
        } while (k < dim);
    }
}

// One panel of a row tile.
template <class Acc>
struct PanelView {
    const Acc* factor;
    const Acc* lse;
    const Acc* constant;
    const Acc* grad_entropy;
    const Acc* bias;
    Visible<Acc> visible;

    SLIPSTICK_INLINE PanelView(const RowTile<Acc>& rows, const GradTile<Acc>& tile,
                               const GradStep<Acc>& step, int64_t panel)
        : factor(rows.factor + panel * kTileColumns<Acc>),
          lse(rows.lse + panel * kTileColumns<Acc>),
          constant(rows.constant + panel * kTileColumns<Acc>),
          grad_entropy(rows.grad_entropy == nullptr
                           ? nullptr
                           : rows.grad_entropy + panel * kTileColumns<Acc>),
          bias(step.bias == nullptr
                   ? nullptr
                   : step.bias + panel * (step.end - step.begin) * kTileColumns<Acc>),
          visible(range(rows, panel), start(tile), span(step, bias)) {}

private:
    static attention::Panel<Acc> range(const RowTile<Acc>& rows, int64_t panel) {
        attention::Panel<Acc> result{};
        result.first = const_cast<int64_t*>(rows.first) + panel * kTileColumns<Acc>;
        result.last = const_cast<int64_t*>(rows.last) + panel * kTileColumns<Acc>;
        return result;
    }
    static attention::KeyTile<Acc> start(const GradTile<Acc>& tile) {
        attention::KeyTile<Acc> result{};
        result.start = tile.start;
        return result;
    }
    static attention::Step<Acc> span(const GradStep<Acc>& step, const Acc* bias) {
        attention::Step<Acc> result{};
        result.begin = step.begin;
        result.end = step.end;
        result.bias = bias;
        return result;
    }
};

// weights: q k -> p = e^(s - L); grads: dO v -> dR. A hidden key gets 0 by selection, whatever its
// products are.
template <class Acc, bool hides, bool has_softcap, bool has_entropy>
void differentiate(const PanelView<Acc>& panel, int64_t keys, Acc softcap, Acc* weights,
                   Acc* grads) {
    constexpr int lanes = kTileColumns<Acc>;
    const auto factor = Lanes<Acc>::load(panel.factor);
    const auto lse = Lanes<Acc>::load(panel.lse);
    const auto constant = Lanes<Acc>::load(panel.constant);
    Lanes<Acc> grad_entropy = {};
    if constexpr (has_entropy) grad_entropy = Lanes<Acc>::load(panel.grad_entropy);
    const Vec<Acc> zero = {};
    const Vec<Acc> low = broadcast(kLowestExponent<Acc>);
    for (int64_t j = 0; j < keys; ++j) {
        auto weight = Lanes<Acc>::load(weights + j * lanes);
        auto grad = Lanes<Acc>::load(grads + j * lanes);
        for (int v = 0; v < kTileVectors; ++v) {
            Vec<Acc> s = weight.part[v] * factor.part[v];
            Vec<Acc> slope = broadcast(Acc{1});
            if constexpr (has_softcap) {
                const Vec<Acc> t = tanh<Acc>(s / softcap);
                slope -= t * t;
                s = softcap * t;
            }
            if constexpr (hides) {
                if (panel.bias != nullptr)
                    s += load<Vec<Acc>>(panel.bias + (j * kTileVectors + v) * kLanes<Acc>);
            }
            const Vec<Acc> u = s - lse.part[v];
            Vec<Acc> p = exp<Acc>(u);
            Vec<Acc> inner = grad.part[v] - constant.part[v];
            // e^u is 0 below `low`, and 0 times an infinite u would be NaN.
            if constexpr (has_entropy)
                inner = mul_add(-grad_entropy.part[v], maximum(u, low), inner);
            Vec<Acc> product = p * inner;
            if constexpr (has_softcap) product *= slope;
            if constexpr (hides) {
                const auto seen = panel.visible(j, v);
                p = seen ? p : zero;
                product = seen ? product : zero;
            }
            weight.part[v] = p;
            grad.part[v] = product;
        }
        weight.store(weights + j * lanes);
        grad.store(grads + j * lanes);
    }
}

template <class Acc, bool hides, bool has_softcap>
void differentiate(const PanelView<Acc>& panel, int64_t keys, Acc softcap, Acc* weights,
                   Acc* grads) {
    if (panel.grad_entropy != nullptr) {
        differentiate<Acc, hides, has_softcap, true>(panel, keys, softcap, weights, grads);
    } else {
        differentiate<Acc, hides, has_softcap, false>(panel, keys, softcap, weights, grads);
    }
}

template <class Acc>
void differentiate(const PanelView<Acc>& panel, bool hides, const GradStep<Acc>& step) {
    const int64_t keys = step.end - step.begin;
    if (step.softcap != 0) {
        hides
            ? differentiate<Acc, true, true>(panel, keys, step.softcap, step.weights, step.grads)
            : differentiate<Acc, false, true>(panel, keys, step.softcap, step.weights, step.grads);
    } else {
        hides
            ? differentiate<Acc, true, false>(panel, keys, step.softcap, step.weights, step.grads)
            : differentiate<Acc, false, false>(panel, keys, step.softcap, step.weights, step.grads);
    }
}

// turned += key^T * dR, the sums in chains of kKeyChain.
template <class Acc>
SLIPSTICK_INLINE void turn(const GradTile<Acc>& tile, const GradStep<Acc>& step, Acc* turned) {
    constexpr int lanes = kTileColumns<Acc>;
    for (int64_t c = 0; c < step.dim; c += kTileRows) {
        for (int64_t j = step.begin; j < step.end;) {
            const int64_t depth = chain_end(j, step.end) - j;
            multiply_tile(FastMac<Acc>{}, depth, tile.columns + c * tile.keys + j * kTileRows,
                          step.grads + (j - step.begin) * lanes, turned + c * lanes, lanes, true);
            j += depth;
        }
    }
}

// keys x lanes into panels of tile_rows keys that run along all `width` rows of the tile.
template <class Acc>
SLIPSTICK_INLINE void pack_lines(const Acc* lines, int64_t keys, int64_t panel, int64_t width,
                                 Acc* packed) {
    constexpr int lanes = kTileColumns<Acc>;
    for (int64_t j = 0; j < keys; j += kTileRows) {
        const Acc* const source = lines + j * lanes;
        Acc* const target = packed + j * width + panel * lanes * kTileRows;
        const int64_t count = keys - j < kTileRows ? keys - j : kTileRows;
        if constexpr (kTileRows <= kLanes<Acc>) {
            // Whole vectors: what one spills behind its row the next one overwrites.
            for (int v = 0; v < kTileVectors; ++v) {
                Vec<Acc> square[kLanes<Acc>] = {};
                for (int i = 0; i < kTileRows && i < count; ++i)
                    square[i] = load<Vec<Acc>>(source + i * lanes + v * kLanes<Acc>);
                transpose<Acc>(square);
                Acc* const rows = target + v * kLanes<Acc> * kTileRows;
                for (int i = 0; i < kLanes<Acc> - 1; ++i) store(rows + i * kTileRows, square[i]);
                __builtin_memcpy(rows + (kLanes<Acc> - 1) * kTileRows, &square[kLanes<Acc> - 1],
                                 kTileRows * sizeof(Acc));
            }
        } else {
            pack_panels<kTileRows>(source, lanes, 1, count, lanes, target,
                                   [](Acc value) { return value; });
        }
    }
}

// Where an operand is not finite, 0 times it would be NaN: only what a row sees is added.
template <class Acc>
void add_visible(const RowTile<Acc>& rows, const GradTile<Acc>& tile, const GradStep<Acc>& step,
                 const PanelView<Acc>& view, int64_t panel, Acc* turned) {
    constexpr int lanes = kTileColumns<Acc>;
    const int64_t width = rows.panels * lanes;
    const auto rounded_up = [](int64_t count) { return (count + lanes - 1) / lanes * lanes; };
    const auto line = [&](const Acc* lines, int64_t row, int64_t c) {
        return lines[c / lanes * lanes * width + row * lanes + c % lanes];
    };
    for (int64_t j = 0; j < step.end - step.begin; ++j) {
        const int64_t key = step.begin + j;
        for (int64_t i = 0; i < lanes; ++i) {
            if (view.visible(j, static_cast<int>(i / kLanes<Acc>))[i % kLanes<Acc>] == 0) continue;
            const int64_t row = panel * lanes + i;
            const Acc weight = step.weights[j * lanes + i];
            const Acc grad = step.grads[j * lanes + i];
            for (int64_t c = 0; c < step.dim; ++c) {
                turned[c * lanes + i] += grad * tile.columns[c / kTileRows * kTileRows * tile.keys +
                                                             key * kTileRows + c % kTileRows];
                tile.grad_key[key * rounded_up(step.dim) + c] += grad * line(rows.scaled, row, c);
            }
            for (int64_t c = 0; c < step.dim_v; ++c) {
                tile.grad_value[key * rounded_up(step.dim_v) + c] +=
                    weight * line(rows.grad_lines, row, c);
            }
        }
    }
}

template <class Acc>
void add(const RowTile<Acc>& rows, const GradTile<Acc>& tile, const GradStep<Acc>& step) {
    constexpr int lanes = kTileColumns<Acc>;
    const int64_t keys = step.end - step.begin;
    const int64_t width = rows.panels * lanes;
    const int64_t turned_size = (step.dim + kTileRows - 1) / kTileRows * kTileRows * lanes;
    const bool finite = rows.finite && tile.finite;
    for (int64_t panel = 0; panel < rows.panels; ++panel) {
        if (step.scores == nullptr) {
            multiply_rows(tile.key, rows.query + panel * step.dim * lanes, step.dim, step.begin,
                          step.end, step.weights);
        } else {
            __builtin_memcpy(step.weights, step.scores + panel * keys * lanes,
                             static_cast<size_t>(keys * lanes) * sizeof(Acc));
        }
        multiply_rows(tile.value, rows.grad + panel * step.dim_v * lanes, step.dim_v, step.begin,
                      step.end, step.grads);
        const PanelView<Acc> view(rows, tile, step, panel);
        differentiate(view, !step.all_visible || step.bias != nullptr, step);
        Acc* turned = rows.turned + panel * turned_size;
        if (!finite) {
            add_visible(rows, tile, step, view, panel, turned);
            continue;
        }
        turn(tile, step, turned);
        pack_lines(step.weights, keys, panel, width, step.packed_weights);
        pack_lines(step.grads, keys, panel, width, step.packed_grads);
    }
    if (!finite) return;
    const auto product = [&](const Acc* left, const Acc* right, int64_t columns, Acc* target) {
        const int64_t stride = (columns + lanes - 1) / lanes * lanes;
        for (int64_t c = 0; c < columns; c += lanes) {
            for (int64_t j = 0; j < keys; j += kTileRows) {
                for (int64_t row = 0; row < width; row += kRowChain) {
                    const int64_t depth = width - row < kRowChain ? width - row : kRowChain;
                    multiply_tile(FastMac<Acc>{}, depth, left + j * width + row * kTileRows,
                                  right + c * width + row * lanes,
                                  target + (step.begin + j) * stride + c, stride, true);
                }
            }
        }
    };
    product(step.packed_weights, rows.grad_lines, step.dim_v, tile.grad_value);
    product(step.packed_grads, rows.scaled, step.dim, tile.grad_key);
}

// --- Single rows ---
// The sum of left(k) * right(k), a vector of elements each, in float64.
template <class Acc, class Left, class Right>
SLIPSTICK_INLINE double sum_products(int64_t count, Left left, Right right) {
    constexpr int lanes = kLanes<Acc>;
    double sums[lanes] = {};
    for (int64_t k = 0; k < count; k += lanes) {
        const Vec<Acc> a = left(k);
        const Vec<Acc> b = right(k);
        for (int i = 0; i < lanes; ++i)
            sums[i] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
    }
    for (int width = lanes / 2; width > 0; width /= 2) {
        for (int i = 0; i < width; ++i) sums[i] += sums[i + width];
    }
    return sums[0];
}

template <class T>
double dot(const void* a, int64_t a_stride, const void* b, int64_t b_stride, int64_t count) {
    const auto line = [count](const void* row, int64_t stride) {
        return [=](int64_t k) {
            return load_strided(static_cast<const T*>(row) + k * stride, stride, count - k);
        };
    };
    return sum_products<AccOf<T>>(count, line(a, a_stride), line(b, b_stride));
}

template <class T>
double dot_sums(const void* row, int64_t stride, const AccOf<T>* sums, int64_t sum_stride,
                int64_t count) {
    const T* source = static_cast<const T*>(row);
    return sum_products<AccOf<T>>(
        count, [=](int64_t k) { return load_strided(source + k * stride, stride, count - k); },
        [=](int64_t k) { return load_strided(sums + k * sum_stride, sum_stride, count - k); });
}

template <class T>
void write(const AccOf<T>* sums, int64_t count, void* target, int64_t stride) {
    for (int64_t k = 0; k < count; k += kLanes<AccOf<T>>) {
        store_some(static_cast<T*>(target) + k * stride, stride, count - k, load_widened(sums + k));
    }
}

template <class T>
void write_rows(const AccOf<T>* turned, const AccOf<T>* factor, int64_t dim, void* const* rows,
                int64_t count, int64_t stride) {
    const auto factors = Lanes<AccOf<T>>::load(factor);
    unpack_rows<T>(turned, factors.part, dim, rows, count, stride);
}

template <class T>
constexpr attention::Backward<AccOf<T>> kBackward = {
    .lanes = kTileColumns<AccOf<T>>,
    .tile_rows = kTileRows,
    .pack_rows = &pack_rows<T>,
    .pack_line = &pack_line<T>,
    .pack_keys = &pack_keys<T>,
    .pack_columns = &pack_columns<T>,
    .add = &add<AccOf<T>>,
    .dot = &dot<T>,
    .dot_sums = &dot_sums<T>,
    .write = &write<T>,
    .write_rows = &write_rows<T>,
};

}  // namespace

const attention::BackwardKernels attention_backward_kernels = {
    .float32 = kBackward<float>,
    .float64 = kBackward<double>,
    .float16 = kBackward<Float16>,
    .bfloat16 = kBackward<BFloat16>,
};

}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
