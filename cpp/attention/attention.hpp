// Entropy-invariant attention on the CPU; README.md beside this file explains the family. Every
// function comes in two parts: result_of_* checks all arguments, data of key_lengths and n_keys
// included, and says what the result looks like; the function itself computes into `out` (checked
// by check_out).
#pragma once

#include <string>
#include <vector>

#include "core/result.hpp"
#include "core/tensor.hpp"

namespace slipstick::cpu::attention {

// The law from n, the number of keys that a row may attend, to lambda, the factor on its scores.
// One row of float64 parameters a head, or one for all:
//   kAffineLog    lambda = p0 ln n + p1
//   kClippedLog   lambda = max(p0 ln n, p1)
//   kTemperature  lambda = p3 (1 + p0 ln(1 + floor((n - 1 + p2) / p1)))
//   kGiven        lambda = values, of any float type and broadcastable to the rows
enum class Law { kAffineLog, kClippedLog, kTemperature, kGiven };

struct Scale {
    Law law;
    ConstTensor values;
};

inline constexpr int64_t kOpen = -1;  // a side of a window without a limit

struct Options {
    Scale scale;
    bool causal = false;
    int64_t left = kOpen;
    int64_t right = kOpen;
    const ConstTensor* key_lengths = nullptr;
    const ConstTensor* mask = nullptr;
    const ConstTensor* n_keys = nullptr;
    double softcap = 0;  // 0: none
};

// (batch, heads, queries, dim), (batch, kv_heads, keys, dim) and (batch, kv_heads, keys, dim_v);
// tensors of rank 2 or 3 lack leading axes.
struct Inputs {
    ConstTensor query;
    ConstTensor key;
    ConstTensor value;
};

// Per row: natural log-sum-exp and maximum of the scores, entropy of the weights in nats.
struct Stats {
    Tensor lse;
    Tensor entropy;
    Tensor max_logit;
};

// Where the tokens of a sequence lie in the inputs: at an index of the batch axis, one after
// another.
struct Sequence {
    int64_t batch;
    int64_t first_query;
    int64_t first_key;
    int64_t queries;
    int64_t keys;
};

// `function` is whose arguments they are, for messages.
ResultSpec result_of_attention(const Inputs& inputs, const Options& options,
                               const char* function = "attention");
// The shape and dtype of each of the statistics, for inputs that result_of_attention has accepted.
ResultSpec result_of_stats(const Inputs& inputs);
// `stats` may be null.
void attention(const Inputs& inputs, const Options& options, const Tensor& out, const Stats* stats);

// What attention returned, and the gradients that arrive at it: of the shape of `out`, and of the
// statistics; those of lse and entropy may be null.
struct Returned {
    ConstTensor out;
    ConstTensor lse;
    ConstTensor entropy;
    ConstTensor grad_out;
    const ConstTensor* grad_lse = nullptr;
    const ConstTensor* grad_entropy = nullptr;
};

// Gradients of the inputs, of their shapes and dtype. `scale` may be null:
//   kAffineLog    float64 (heads, 2): that of p0 and of p1, a head
//   kGiven        of the shape and dtype of the scale's values
struct Gradients {
    Tensor query;
    Tensor key;
    Tensor value;
    const Tensor* scale;
};

void check_attention_backward(const Inputs& inputs, const Options& options,
                              const Returned& returned);
// Of what check_attention_backward has accepted; laws without a gradient have none.
ResultSpec result_of_scale_gradient(const Inputs& inputs, const Options& options);
void attention_backward(const Inputs& inputs, const Options& options, const Returned& returned,
                        const Gradients& gradients);

// Attention of sequences of different lengths, packed: query (total, heads, dim), key (total keys,
// kv_heads, dim), value (total keys, kv_heads, dim_v), and statistics (heads, total). Options have
// neither key_lengths nor mask; n_keys is one number, one a sequence or one a query.
//
// The sequences between neighbours of `bounds_q` and of `bounds_k`, which are checked with the
// inputs.
std::vector<Sequence> packed_sequences(const Inputs& inputs, const ConstTensor& bounds_q,
                                       const ConstTensor& bounds_k);
ResultSpec result_of_attention_varlen(const Inputs& inputs, const std::vector<Sequence>& sequences,
                                      const Options& options);
ResultSpec result_of_varlen_stats(const Inputs& inputs);
void attention_varlen(const Inputs& inputs, const std::vector<Sequence>& sequences,
                      const Options& options, const Tensor& out, const Stats* stats);

// What attention gave for the same queries and one of several disjoint sets of keys.
struct Part {
    std::string name;  // of the argument, for messages
    ConstTensor out;
    ConstTensor lse;
    ConstTensor entropy;
    ConstTensor max_logit;
};

// The result for all keys together, and its statistics.
ResultSpec result_of_merge(const std::vector<Part>& parts);
ResultSpec result_of_merged_stats(const std::vector<Part>& parts);
void merge(const std::vector<Part>& parts, const Tensor& out, const Stats& stats);

// softmax(lambda * scores) along `axis`, where n is the number of scores above -inf. `out` may be
// `scores`.
ResultSpec result_of_softmax(const ConstTensor& scores, const Scale& scale, int64_t axis);
void softmax(const ConstTensor& scores, const Scale& scale, int64_t axis, const Tensor& out);

}  // namespace slipstick::cpu::attention
