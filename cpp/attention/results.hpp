// What the family's functions take and return, on any device. Every result_of_* and check_* refuses
// arguments that do not fit, and says what the result looks like; nothing is computed.
#pragma once

#include <string>
#include <vector>

#include "attention/rules.hpp"
#include "core/result.hpp"
#include "core/tensor.hpp"

namespace slipstick::attention {

struct Scale {
    Law law;
    ConstTensor values;
};

// Which arrays among the options lie on a device: what they hold is not looked at.
struct OnDevice {
    bool scale = false;
    bool key_lengths = false;
    bool n_keys = false;
};

struct Options {
    Scale scale;
    bool causal = false;
    int64_t left = kOpen;
    int64_t right = kOpen;
    const ConstTensor* key_lengths = nullptr;
    const ConstTensor* mask = nullptr;
    const ConstTensor* n_keys = nullptr;
    double softcap = 0;  // 0: none
    OnDevice on_device = {};
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

// `function` is whose arguments they are, for messages.
ResultSpec result_of_attention(const Inputs& inputs, const Options& options,
                               const char* function = "attention");
// The shape and dtype of each of the statistics, for inputs that result_of_attention has accepted.
ResultSpec result_of_stats(const Inputs& inputs);

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

// Attention of sequences of different lengths, packed: query (total, heads, dim), key (total keys,
// kv_heads, dim), value (total keys, kv_heads, dim_v), and statistics (heads, total). Options have
// neither key_lengths nor mask; n_keys is one number, one a sequence or one a query.

// Integers of shape (sequences + 1,): where each sequence begins, and where the last one ends.
struct Bounds {
    ConstTensor queries;
    ConstTensor keys;
    bool queries_on_device = false;  // then they are not looked at
    bool keys_on_device = false;
};

// Bounds as they were read, once: the caller may write to the arrays later. Those on a device stay
// empty.
struct Packing {
    int64_t sequences;
    std::vector<int64_t> queries;
    std::vector<int64_t> keys;
};

// Checks the inputs too.
Packing packing_of(const Inputs& inputs, const Bounds& bounds);
ResultSpec result_of_attention_varlen(const Inputs& inputs, const Packing& packing,
                                      const Options& options);
ResultSpec result_of_varlen_stats(const Inputs& inputs);

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

// softmax(lambda * scores) along `axis`, where n is the number of scores above -inf.
ResultSpec result_of_softmax(const ConstTensor& scores, const Scale& scale, int64_t axis);

}  // namespace slipstick::attention
