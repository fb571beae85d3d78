// Which keys a row sees, and how many: n_i.
#pragma once

#include <optional>
#include <vector>

#include "attention/attention.hpp"
#include "attention/shape.hpp"
#include "attention/view.hpp"

namespace slipstick::cpu::attention {

using slipstick::attention::KeyRange;
using slipstick::attention::Shape;
using slipstick::attention::View;

// The sequences of a batch: all as long as each other, each at an index of the batch axis.
std::vector<Sequence> sequences_of(const Shape& shape);

class Visibility {
public:
    // Counts the mask, in parallel: one pass over each row of it, however many rows of scores it is
    // broadcast to. key_lengths and mask belong to the sequences of a batch. `by_sequence`: a 1-D
    // n_keys has one number a sequence, else one a query.
    Visibility(const Shape& shape, std::vector<Sequence> sequences, bool by_sequence,
               const Options& options);
    // Of a batch. `has_batch`: the inputs have a batch axis, so a 1-D n_keys belongs to it.
    Visibility(const Shape& shape, bool has_batch, const Options& options)
        : Visibility(shape, sequences_of(shape), has_batch, options) {}

    // `batch` is the number of the sequence, and `query` counts from its first one.

    // What length, causal order and window leave of the keys. Query i stands at key
    // i + keys - queries.
    KeyRange range(int64_t batch, int64_t query) const;

    // The keys that the row sees, mask included.
    int64_t visible(int64_t batch, int64_t head, int64_t query) const;

    // The number that the scale uses: `n_keys` where it was given.
    int64_t count(int64_t batch, int64_t head, int64_t query) const;

    const std::vector<Sequence>& sequences() const { return sequences_; }
    const Sequence& sequence(int64_t batch) const { return sequences_[static_cast<size_t>(batch)]; }

    int64_t length(int64_t batch) const { return lengths_[static_cast<size_t>(batch)]; }
    bool has_mask() const { return mask_.has_value(); }

    // The mask of a row at keys `first` to `last` as what is added to scores, -inf where it hides a
    // key, to bias[0], bias[step], ...; returns whether it shows any key.
    template <class Acc>
    bool fill_bias(int64_t batch, int64_t head, int64_t query, int64_t first, int64_t last,
                   Acc* bias, int64_t step) const;

private:
    void count_mask();

    Shape shape_;
    std::vector<Sequence> sequences_;
    slipstick::attention::Window window_;
    std::vector<int64_t> lengths_;
    std::optional<View<4>> mask_;
    std::optional<View<2>> n_keys_;  // (sequences, queries), as they lie in their tensor
    // (batch or 1, heads or 1, queries): what is visible under the mask
    std::vector<int64_t> mask_counts_;
    bool counts_by_batch_ = false;
    bool counts_by_head_ = false;
};

}  // namespace slipstick::cpu::attention
