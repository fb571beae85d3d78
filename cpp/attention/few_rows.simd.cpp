#include "attention/few_rows.hpp"

#include "attention/elements.hpp"
#include "core/simd.hpp"
#include "core/transpose.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

using attention::Fetch;
using attention::kStepKeys;
using attention::RowState;
using attention::RowStep;

template <class Acc>
int64_t padded(int64_t dim) {
    return (dim + kLanes<Acc> - 1) / kLanes<Acc> * kLanes<Acc>;
}

template <class T>
void pack_row(const void* row, int64_t stride, int64_t dim, AccOf<T>* packed) {
    const T* source = static_cast<const T*>(row);
    for (int64_t k = 0; k < padded<AccOf<T>>(dim); ++k)
        packed[k] = k < dim ? widened(source[k * stride]) : AccOf<T>{0};
}

constexpr Fetch kNothing = {};

// Into the second cache: the first is full of the step's own lines.
SLIPSTICK_INLINE void fetch_line(const Fetch& fetch, int64_t line) {
    if (line >= fetch.lines) return;
    const char* const start = fetch.data + line * fetch.step;
    for (int64_t byte = 0; byte < fetch.bytes; byte += 64) __builtin_prefetch(start + byte, 0, 2);
}

// --- Scores ---

// As many chains as lanes: enough to hide the latency of a multiply-add, and their sums across the
// lanes are one transposition.
template <int rows, class T>
SLIPSTICK_INLINE void score_rows(const AccOf<T>* query, int64_t dim, const T* key,
                                 int64_t key_stride, int64_t keys, const Fetch& fetch,
                                 AccOf<T>* scores) {
    using Acc = AccOf<T>;
    using V = Vec<Acc>;
    constexpr int lanes = kLanes<Acc>;
    constexpr int at_once = lanes / rows;
    const int64_t width = padded<Acc>(dim);
    for (int64_t j = 0; j < keys; j += at_once) {
        const T* lines[at_once];
        for (int i = 0; i < at_once; ++i) {
            // Beyond the last it comes again, for scores that nobody looks at.
            const int64_t line = j + i < keys ? j + i : keys - 1;
            lines[i] = key + line * key_stride;
            fetch_line(fetch, j + i);
        }
        V chains[lanes] = {};
        const auto add = [&](int64_t k, auto load_key) {
            V part[at_once];
            for (int i = 0; i < at_once; ++i) part[i] = load_key(lines[i] + k);
            for (int row = 0; row < rows; ++row) {
                const V factor = load<V>(query + row * width + k);
                for (int i = 0; i < at_once; ++i) {
                    V& chain = chains[row * at_once + i];
                    chain = mul_add(factor, part[i], chain);
                }
            }
        };
        int64_t k = 0;
        for (; k + lanes <= dim; k += lanes) add(k, [](const T* at) { return load_widened(at); });
        if (k < dim) add(k, [&](const T* at) { return load_some(at, dim - k); });
        transpose<Acc>(chains);
        // Pairs, then pairs of pairs: the same tree for every score.
        for (int distance = lanes / 2; distance > 0; distance /= 2) {
            for (int i = 0; i < distance; ++i) chains[i] += chains[i + distance];
        }
        Acc sums[lanes];
        store(sums, chains[0]);
        for (int row = 0; row < rows; ++row) {
            for (int i = 0; i < at_once; ++i)
                scores[row * kStepKeys + j + i] = sums[row * at_once + i];
        }
    }
}

template <class T>
void score(const AccOf<T>* query, int64_t rows, int64_t dim, const void* key, int64_t key_stride,
           int64_t keys, const Fetch& fetch, AccOf<T>* scores) {
    using Acc = AccOf<T>;
    constexpr int most = kLanes<Acc> < 4 ? kLanes<Acc> : 4;
    const int64_t width = padded<Acc>(dim);
    const auto* lines = static_cast<const T*>(key);
    for (int64_t row = 0; row < rows;) {
        const auto run = [&]<int count>() {
            score_rows<count>(query + row * width, dim, lines, key_stride, keys,
                              row == 0 ? fetch : kNothing, scores + row * kStepKeys);
            row += count;
        };
        if (rows - row >= most) {
            run.template operator()<most>();
        } else if (rows - row >= 2) {
            run.template operator()<2>();
        } else {
            run.template operator()<1>();
        }
    }
}

// --- Weights ---

template <class Acc>
Acc weigh(const RowStep<Acc>& step, int64_t keys, Acc* scores, RowState<Acc>& state) {
    using V = Vec<Acc>;
    using Int = Vec<typename BitsOf<Acc>::Signed>;
    using Lane = typename BitsOf<Acc>::Signed;
    constexpr int lanes = kLanes<Acc>;
    constexpr Acc infinity = static_cast<Acc>(__builtin_inf());
    const V hidden = broadcast(-infinity);
    Int index;
    for (int i = 0; i < lanes; ++i) index[i] = static_cast<Lane>(i);
    V largest = hidden;
    for (int64_t j = 0; j < keys; j += lanes) {
        V s = load<V>(scores + j) * step.factor;
        if (step.softcap != 0) s = step.softcap * tanh<Acc>(s / step.softcap);
        const Int at = index + static_cast<Lane>(j);
        Int seen = (at >= static_cast<Lane>(step.first)) & (at < static_cast<Lane>(step.last));
        if (step.bias != nullptr) {
            const V bias = load<V>(step.bias + j);
            s += bias;
            seen &= bias != hidden;
        }
        s = seen ? s : hidden;
        store(scores + j, s);
        largest = maximum(largest, s);
    }
    const auto greater = [](Acc a, Acc b) { return b > a ? b : a; };
    const Acc before = state.maximum;
    const Acc reference = greater(before, reduce<Acc>(largest, greater));
    // A row that has seen nothing has no reference to move from; any finite one gives a score of
    // -inf the weight 0.
    const bool unseen = before == -infinity;
    const V low = broadcast(ExpConstants<Acc>::kLowest);
    Acc alpha = 0;
    if (!unseen) {
        const V delta = broadcast(before == reference ? Acc{0} : before - reference);
        alpha = exp<Acc>(delta)[0];
        if (step.has_moment)
            state.moment = alpha * (state.moment + maximum(delta, low)[0] * state.sum);
        state.sum *= alpha;
    }
    const Acc shift = reference == -infinity ? Acc{0} : reference;
    V sum = {};
    V moment = {};
    for (int64_t j = 0; j < keys; j += lanes) {
        const V t = load<V>(scores + j) - shift;
        const V weight = exp<Acc>(t);
        store(scores + j, weight);
        sum += weight;
        if (step.has_moment) moment = mul_add(weight, maximum(t, low), moment);
    }
    const auto add = [](Acc a, Acc b) { return a + b; };
    state.sum += reduce<Acc>(sum, add);
    if (step.has_moment) state.moment += reduce<Acc>(moment, add);
    state.maximum = reference;
    return alpha;
}

// --- Values ---

template <int rows, int vectors, class T, class Load>
SLIPSTICK_INLINE void add_columns(const AccOf<T>* weights, const AccOf<T>* alpha, const T* value,
                                  int64_t value_stride, int64_t keys, const Fetch& fetch,
                                  AccOf<T>* out, int64_t out_stride, Load load_value) {
    using Acc = AccOf<T>;
    using V = Vec<Acc>;
    constexpr int lanes = kLanes<Acc>;
    V chain[rows][vectors] = {};
    for (int64_t j = 0; j < keys; ++j) {
        fetch_line(fetch, j);
        V line[vectors];
        for (int v = 0; v < vectors; ++v)
            line[v] = load_value(value + j * value_stride + v * lanes);
        for (int row = 0; row < rows; ++row) {
            const V weight = broadcast(weights[row * kStepKeys + j]);
            for (int v = 0; v < vectors; ++v)
                chain[row][v] = mul_add(weight, line[v], chain[row][v]);
        }
    }
    for (int row = 0; row < rows; ++row) {
        for (int v = 0; v < vectors; ++v) {
            Acc* const target = out + row * out_stride + v * lanes;
            store(target, mul_add(broadcast(alpha[row]), load<V>(target), chain[row][v]));
        }
    }
}

template <int rows, class T>
void add_value_rows(const AccOf<T>* weights, const AccOf<T>* alpha, const T* value,
                    int64_t value_stride, int64_t keys, int64_t dim_v, const Fetch& fetch,
                    AccOf<T>* out, int64_t out_stride) {
    using Acc = AccOf<T>;
    constexpr int lanes = kLanes<Acc>;
    // Eight chains or more hide the latency of a multiply-add.
    constexpr int vectors = rows >= 4 ? 2 : 4;
    const auto whole = [](const T* at) { return load_widened(at); };
    int64_t c = 0;
    for (; c + vectors * lanes <= dim_v; c += vectors * lanes) {
        add_columns<rows, vectors>(weights, alpha, value + c, value_stride, keys,
                                   c == 0 ? fetch : kNothing, out + c, out_stride, whole);
    }
    for (; c + lanes <= dim_v; c += lanes) {
        add_columns<rows, 1>(weights, alpha, value + c, value_stride, keys, kNothing, out + c,
                             out_stride, whole);
    }
    if (c < dim_v) {
        add_columns<rows, 1>(weights, alpha, value + c, value_stride, keys, kNothing, out + c,
                             out_stride, [&](const T* at) { return load_some(at, dim_v - c); });
    }
}

template <class T>
void add_values(const AccOf<T>* weights, int64_t rows, const AccOf<T>* alpha, const void* value,
                int64_t value_stride, int64_t keys, int64_t dim_v, const Fetch& fetch,
                AccOf<T>* out, int64_t out_stride) {
    for (int64_t row = 0; row < rows;) {
        const auto run = [&]<int count>() {
            add_value_rows<count>(weights + row * kStepKeys, alpha + row,
                                  static_cast<const T*>(value), value_stride, keys, dim_v,
                                  row == 0 ? fetch : kNothing, out + row * out_stride, out_stride);
            row += count;
        };
        if (rows - row >= 4) {
            run.template operator()<4>();
        } else if (rows - row >= 2) {
            run.template operator()<2>();
        } else {
            run.template operator()<1>();
        }
    }
}

template <class T>
void finish_row(const AccOf<T>* out, AccOf<T> sum, int64_t dim_v, void* row, int64_t stride) {
    using Acc = AccOf<T>;
    constexpr int lanes = kLanes<Acc>;
    for (int64_t c = 0; c < dim_v; c += lanes) {
        store_some(static_cast<T*>(row) + c * stride, stride, dim_v - c,
                   load<Vec<Acc>>(out + c) / sum);
    }
}

template <class T>
constexpr attention::FewRowsKernels<AccOf<T>> kFewRowsKernels = {
    .width = &padded<AccOf<T>>,
    .pack_query = &pack_row<T>,
    .score = &score<T>,
    .weigh = &weigh<AccOf<T>>,
    .add_values = &add_values<T>,
    .finish = &finish_row<T>,
};

}  // namespace

const attention::FewRowsTable attention_few_rows_kernels = {
    .float32 = kFewRowsKernels<float>,
    .float64 = kFewRowsKernels<double>,
    .float16 = kFewRowsKernels<Float16>,
    .bfloat16 = kFewRowsKernels<BFloat16>,
};

}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
