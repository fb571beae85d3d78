// Packed batches, for whoever computes them.
#pragma once

#include <array>

#include "attention/shape.hpp"

namespace slipstick::attention {

// (total, heads, columns) seen as (heads, total, columns).
template <class Any>
struct HeadsFirst : Any {
    explicit HeadsFirst(const Any& tensor)
        : Any(tensor),
          sizes{tensor.shape[1], tensor.shape[0], tensor.shape[2]},
          steps{tensor.strides[1], tensor.strides[0], tensor.strides[2]} {
        this->shape = sizes.data();
        this->strides = steps.data();
    }
    HeadsFirst(const HeadsFirst&) = delete;
    HeadsFirst& operator=(const HeadsFirst&) = delete;
    std::array<int64_t, 3> sizes;
    std::array<int64_t, 3> steps;
};

// A 1-D n_keys of so many sequences: one number each, unless that is one a query.
inline bool is_by_sequence(const ConstTensor& n_keys, int64_t sequences) {
    return n_keys.rank == 1 && n_keys.shape[0] == sequences;
}

// Whether n_keys could mean one number a sequence or one a query: those agree where every sequence
// has one query.
inline bool is_ambiguous(const ConstTensor* n_keys, int64_t sequences, int64_t queries) {
    return n_keys != nullptr && is_by_sequence(*n_keys, sequences) && sequences == queries;
}

// As result_of_attention_varlen, for sequences of the sizes of `shape` at most; `one_each`: they
// have one query each, or it is not known.
ResultSpec result_of_packed(const Inputs& inputs, const Shape& shape, int64_t sequences,
                            bool one_each, const Options& options);

}  // namespace slipstick::attention
