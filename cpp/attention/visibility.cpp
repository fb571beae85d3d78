#include "attention/visibility.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>
#include <utility>

#include "attention/numbers.hpp"
#include "core/threads.hpp"

namespace slipstick::cpu::attention {

using slipstick::attention::integer_at;

namespace {

// Mask entries that are worth a thread: 50 us at about 1 ns an entry.
constexpr int64_t kCountGrain = 1 << 16;

constexpr double kHidden = -std::numeric_limits<double>::infinity();

template <class T>
double bias_of(T entry) {
    if constexpr (std::is_same_v<T, Bool>) {
        return entry ? 0.0 : kHidden;
    } else if constexpr (sizeof(T) == 2) {
        return to_float(entry);
    } else {
        return entry;
    }
}

// A finite float64 beyond float32 stays finite: only -inf hides a key.
template <class Acc>
Acc narrowed(double bias) {
    if constexpr (sizeof(Acc) == 4) {
        constexpr double highest = std::numeric_limits<float>::max();
        if (std::isfinite(bias)) return static_cast<float>(std::clamp(bias, -highest, highest));
    }
    return static_cast<Acc>(bias);
}

template <class F>
decltype(auto) dispatch_mask(Dtype dtype, F&& f) {
    return dispatch<Bool, float, double, Float16, BFloat16>(dtype, f);
}

}  // namespace

std::vector<Sequence> sequences_of(const Shape& shape) {
    std::vector<Sequence> sequences(static_cast<size_t>(shape.batch));
    for (int64_t b = 0; b < shape.batch; ++b)
        sequences[static_cast<size_t>(b)] = {b, 0, 0, shape.queries, shape.keys};
    return sequences;
}

Visibility::Visibility(const Shape& shape, std::vector<Sequence> sequences, bool by_sequence,
                       const Options& options)
    : shape_(shape),
      sequences_(std::move(sequences)),
      window_(slipstick::attention::window_of(options, shape)),
      lengths_(sequences_.size()) {
    for (size_t b = 0; b < sequences_.size(); ++b) lengths_[b] = sequences_[b].keys;
    if (const ConstTensor* given = options.key_lengths; given != nullptr) {
        const View<1> view(*given);
        for (int64_t b = 0; b < shape.batch; ++b) {
            // Clamped again: the caller may have written to the array since it was checked.
            lengths_[static_cast<size_t>(b)] = std::clamp<int64_t>(
                integer_at(view.data, view.dtype, view.offset(b)), 0, shape.keys);
        }
    }
    if (options.n_keys != nullptr) {
        n_keys_.emplace(*options.n_keys);
        if (options.n_keys->rank == 1 && by_sequence) {
            std::swap(n_keys_->shape[0], n_keys_->shape[1]);
            std::swap(n_keys_->strides[0], n_keys_->strides[1]);
        }
    }
    if (options.mask != nullptr) {
        mask_.emplace(*options.mask);
        counts_by_batch_ = mask_->strides[0] != 0 || options.key_lengths != nullptr;
        counts_by_head_ = mask_->strides[1] != 0;
        count_mask();
    }
}

KeyRange Visibility::range(int64_t batch, int64_t query) const {
    const Sequence& own = sequence(batch);
    return slipstick::attention::key_range(window_, own.queries, own.keys, length(batch), query);
}

int64_t Visibility::visible(int64_t batch, int64_t head, int64_t query) const {
    if (!mask_) {
        const KeyRange seen = range(batch, query);
        return seen.last - seen.first;
    }
    const int64_t row = ((counts_by_batch_ ? batch : 0) * (counts_by_head_ ? shape_.heads : 1) +
                         (counts_by_head_ ? head : 0)) *
                            shape_.queries +
                        query;
    return mask_counts_[static_cast<size_t>(row)];
}

int64_t Visibility::count(int64_t batch, int64_t head, int64_t query) const {
    if (!n_keys_) return visible(batch, head, query);
    return integer_at(n_keys_->data, n_keys_->dtype,
                      n_keys_->offset(batch, sequence(batch).first_query + query));
}

void Visibility::count_mask() {
    const int64_t batches = counts_by_batch_ ? shape_.batch : std::min<int64_t>(1, shape_.batch);
    const int64_t heads = counts_by_head_ ? shape_.heads : std::min<int64_t>(1, shape_.heads);
    mask_counts_.resize(static_cast<size_t>(batches * heads * shape_.queries));
    if (mask_counts_.empty()) return;  // the mask may have no memory then
    dispatch_mask(mask_->dtype, [&]<class T>() {
        const auto shown = [](const T* row, int64_t step, int64_t j) {
            return bias_of(row[j * step]) != kHidden;
        };
        const int64_t step = mask_->strides[3];
        if (mask_->strides[2] == 0) {
            // One row of the mask for all queries: a running count serves every range.
            parallel_for(batches * heads, 1, [&](int64_t begin, int64_t end) {
                std::vector<int64_t> before(static_cast<size_t>(shape_.keys + 1));
                for (int64_t at = begin; at < end; ++at) {
                    const int64_t b = at / heads;
                    const T* row = mask_->at<T>(b, at % heads, int64_t{0}, int64_t{0});
                    for (int64_t j = 0; j < shape_.keys; ++j) {
                        before[static_cast<size_t>(j + 1)] =
                            before[static_cast<size_t>(j)] + (shown(row, step, j) ? 1 : 0);
                    }
                    for (int64_t i = 0; i < shape_.queries; ++i) {
                        const KeyRange seen = range(b, i);
                        mask_counts_[static_cast<size_t>(at * shape_.queries + i)] =
                            before[static_cast<size_t>(seen.last)] -
                            before[static_cast<size_t>(seen.first)];
                    }
                }
            });
            return;
        }
        const int64_t grain = std::max<int64_t>(1, kCountGrain / (shape_.keys + 1));
        parallel_for(batches * heads * shape_.queries, grain, [&](int64_t begin, int64_t end) {
            for (int64_t at = begin; at < end; ++at) {
                const int64_t i = at % shape_.queries;
                const int64_t b = at / shape_.queries / heads;
                const T* row = mask_->at<T>(b, at / shape_.queries % heads, i, int64_t{0});
                const KeyRange seen = range(b, i);
                int64_t count = 0;
                for (int64_t j = seen.first; j < seen.last; ++j)
                    count += shown(row, step, j) ? 1 : 0;
                mask_counts_[static_cast<size_t>(at)] = count;
            }
        });
    });
}

template <class Acc>
bool Visibility::fill_bias(int64_t batch, int64_t head, int64_t query, int64_t first, int64_t last,
                           Acc* bias, int64_t step) const {
    return dispatch_mask(mask_->dtype, [&]<class T>() {
        const T* row = mask_->at<T>(batch, head, query, int64_t{0});
        const int64_t row_step = mask_->strides[3];
        bool shows = false;
        for (int64_t j = first; j < last; ++j, bias += step) {
            *bias = narrowed<Acc>(bias_of(row[j * row_step]));
            shows |= *bias != static_cast<Acc>(kHidden);
        }
        return shows;
    });
}

template bool Visibility::fill_bias(int64_t, int64_t, int64_t, int64_t, int64_t, float*,
                                    int64_t) const;
template bool Visibility::fill_bias(int64_t, int64_t, int64_t, int64_t, int64_t, double*,
                                    int64_t) const;

}  // namespace slipstick::cpu::attention
