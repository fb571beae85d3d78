// Entropy-invariant attention on the CPU; README.md beside this file explains the family. Every
// function comes in two parts: result_of_* (results.hpp) checks all arguments, data of key_lengths
// and n_keys included, and says what the result looks like; the function itself computes into `out`
// (checked by check_out).
#pragma once

#include <vector>

#include "attention/results.hpp"

namespace slipstick::cpu::attention {

using slipstick::attention::Gradients;
using slipstick::attention::Inputs;
using slipstick::attention::kOpen;
using slipstick::attention::Law;
using slipstick::attention::Options;
using slipstick::attention::Part;
using slipstick::attention::Returned;
using slipstick::attention::Scale;
using slipstick::attention::Stats;

using slipstick::attention::check_attention_backward;
using slipstick::attention::result_of_attention;
using slipstick::attention::result_of_merge;
using slipstick::attention::result_of_merged_stats;
using slipstick::attention::result_of_scale_gradient;
using slipstick::attention::result_of_softmax;
using slipstick::attention::result_of_stats;
using slipstick::attention::result_of_varlen_stats;

// `stats` may be null.
void attention(const Inputs& inputs, const Options& options, const Tensor& out, const Stats* stats);

void attention_backward(const Inputs& inputs, const Options& options, const Returned& returned,
                        const Gradients& gradients);

// Where the tokens of a sequence lie in the inputs: at an index of the batch axis, one after
// another.
struct Sequence {
    int64_t batch;
    int64_t first_query;
    int64_t first_key;
    int64_t queries;
    int64_t keys;
};

// The sequences between neighbours of `bounds_q` and of `bounds_k`, which are checked with the
// inputs.
std::vector<Sequence> packed_sequences(const Inputs& inputs, const ConstTensor& bounds_q,
                                       const ConstTensor& bounds_k);
ResultSpec result_of_attention_varlen(const Inputs& inputs, const std::vector<Sequence>& sequences,
                                      const Options& options);
void attention_varlen(const Inputs& inputs, const std::vector<Sequence>& sequences,
                      const Options& options, const Tensor& out, const Stats* stats);

void merge(const std::vector<Part>& parts, const Tensor& out, const Stats& stats);

// `out` may be `scores`.
void softmax(const ConstTensor& scores, const Scale& scale, int64_t axis, const Tensor& out);

}  // namespace slipstick::cpu::attention
