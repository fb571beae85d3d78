// Which keys a row sees, and how many: n_i.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "attention/attention.hpp"
#include "attention/view.hpp"

namespace slipstick::cpu::attention {

// The sizes of one call; `queries` and `keys` are the longest sequence's.
struct Shape {
    int64_t batch;
    int64_t heads;
    int64_t kv_heads;
    int64_t queries;
    int64_t keys;
    int64_t dim;
    int64_t dim_v;

    int64_t group() const { return kv_heads == 0 ? 1 : heads / kv_heads; }
    // Rows of scores are counted within a key head, in the order of their queries with the heads of
    // the group side by side: neighbours then see nearly the same keys, and few queries still fill
    // the lanes.
    int64_t head_of(int64_t kv_head, int64_t row) const {
        return kv_head * group() + row % group();
    }
    int64_t query_of(int64_t row) const { return row / group(); }
};

// The sizes of inputs that result_of_attention has accepted.
Shape shape_of(const Inputs& inputs);

struct KeyRange {  // first <= j < last; empty ranges are 0, 0
    int64_t first;
    int64_t last;
};

int64_t integer_at(const void* data, Dtype dtype, int64_t index);
// The same integer for a message, beyond int64's range too.
std::string integer_text(const void* data, Dtype dtype, int64_t index);

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
    bool causal_;
    int64_t left_;
    int64_t right_;
    std::vector<int64_t> lengths_;
    std::optional<View<4>> mask_;
    std::optional<View<2>> n_keys_;  // (sequences, queries), as they lie in their tensor
    // (batch or 1, heads or 1, queries): what is visible under the mask
    std::vector<int64_t> mask_counts_;
    bool counts_by_batch_ = false;
    bool counts_by_head_ = false;
};

}  // namespace slipstick::cpu::attention
