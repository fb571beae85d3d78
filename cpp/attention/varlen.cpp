// Packed batches: sequences of any lengths, one after another in one axis of tokens.
#include <algorithm>
#include <array>

#include "attention/arguments.hpp"
#include "attention/attention.hpp"
#include "attention/forward.hpp"
#include "attention/scale.hpp"
#include "attention/visibility.hpp"
#include "core/broadcast.hpp"
#include "core/checks.hpp"
#include "core/error.hpp"

namespace slipstick::cpu::attention {
namespace {

constexpr const char* kFunction = "attention_varlen";

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

void check_axis(Named argument, int axis, const char* what, Named like) {
    const int64_t expected = like.tensor.shape[axis];
    if (argument.tensor.shape[axis] == expected) return;
    refuse_value(kFunction, "`", argument.name, "` must have ", expected, " ", what, " like `",
                 like.name, "`, got shape ", shape_text(argument.tensor));
}

void check_inputs(const Inputs& inputs) {
    const Named query{"query", inputs.query};
    const Named key{"key", inputs.key};
    const Named value{"value", inputs.value};
    check_dtype(kFunction, query, is_float(inputs.query.dtype), kFloatDtypes);
    check_same_dtype(kFunction, {query, key, value});
    for (const Named& argument : {query, key, value}) {
        if (argument.tensor.rank != 3) {
            refuse_value(kFunction, "`", argument.name,
                         "` must have 3 axes, (tokens, heads, columns), got shape ",
                         shape_text(argument.tensor));
        }
    }
    check_axis(key, 2, "columns", query);
    check_axis(value, 0, "tokens", key);
    check_axis(value, 1, "heads", key);
    const int64_t heads = inputs.query.shape[1];
    const int64_t kv_heads = inputs.key.shape[1];
    if (kv_heads == 0 ? heads != 0 : heads % kv_heads != 0) {
        refuse_value(kFunction, "`query` must have a multiple of the ", kv_heads,
                     " heads of `key`, got shape ", shape_text(inputs.query));
    }
}

// Where each sequence begins and the last one ends, read once: the caller may write to the array
// later.
std::vector<int64_t> checked_bounds(Named argument, Named tokens) {
    const ConstTensor& tensor = argument.tensor;
    check_dtype(kFunction, argument, is_integer(tensor.dtype), "integer");
    if (tensor.rank != 1 || tensor.shape[0] < 1) {
        refuse_value(kFunction, "`", argument.name,
                     "` must be of shape (sequences + 1,), got shape ", shape_text(tensor));
    }
    const int64_t total = tokens.tensor.shape[0];
    std::vector<int64_t> bounds;
    // At once: a broadcast view may have more of them than fit the memory.
    bounds.reserve(static_cast<size_t>(tensor.shape[0]));
    for (int64_t i = 0; i < tensor.shape[0]; ++i) {
        bounds.push_back(integer_at(tensor.data, tensor.dtype, i * tensor.strides[0]));
        const int64_t bound = bounds.back();
        if (i == 0 && bound != 0)
            refuse_value(kFunction, "`", argument.name, "` must start at 0, got ", bound);
        if (i > 0 && bound < bounds[static_cast<size_t>(i - 1)]) {
            refuse_value(kFunction, "`", argument.name, "` must not fall, got ", bound, " after ",
                         bounds[static_cast<size_t>(i - 1)]);
        }
        if (bound > total) {
            refuse_value(kFunction, "`", argument.name, "` must stay within the ", total,
                         " tokens of `", tokens.name, "`, got ",
                         integer_text(tensor.data, tensor.dtype, i * tensor.strides[0]));
        }
    }
    if (bounds.back() != total) {
        refuse_value(kFunction, "`", argument.name, "` must end at ", total,
                     ", the number of tokens of `", tokens.name, "`, got ", bounds.back());
    }
    return bounds;
}

Shape shape_of(const Inputs& inputs, const std::vector<Sequence>& sequences) {
    Shape shape{.batch = 1,
                .heads = inputs.query.shape[1],
                .kv_heads = inputs.key.shape[1],
                .queries = 0,
                .keys = 0,
                .dim = inputs.query.shape[2],
                .dim_v = inputs.value.shape[2]};
    for (const Sequence& sequence : sequences) {
        shape.queries = std::max(shape.queries, sequence.queries);
        shape.keys = std::max(shape.keys, sequence.keys);
    }
    return shape;
}

bool is_by_sequence(const ConstTensor& n_keys, const std::vector<Sequence>& sequences) {
    return n_keys.rank == 1 && n_keys.shape[0] == static_cast<int64_t>(sequences.size());
}

void check_n_keys(const ConstTensor& n_keys, const std::vector<Sequence>& sequences,
                  int64_t total) {
    const auto count = static_cast<int64_t>(sequences.size());
    const bool by_sequence = is_by_sequence(n_keys, sequences);
    const bool by_query =
        n_keys.rank == 1 ? n_keys.shape[0] == total
                         : n_keys.rank == 2 && n_keys.shape[0] == 1 && n_keys.shape[1] == total;
    check_integers(kFunction, {"n_keys", n_keys}, n_keys.rank == 0 || by_sequence || by_query,
                   text("an integer or of shape (sequences,) or (queries,), here (", count,
                        ",) or (", total, ",)"),
                   kLargestCount);
    const bool one_each = std::all_of(sequences.begin(), sequences.end(),
                                      [](const Sequence& own) { return own.queries == 1; });
    if (by_sequence && by_query && !one_each) {
        refuse_value(kFunction, "`n_keys` must be of shape (1, ", total,
                     ") for one number a query where there are as many sequences as queries, got "
                     "shape ",
                     shape_text(n_keys));
    }
}

}  // namespace

std::vector<Sequence> packed_sequences(const Inputs& inputs, const ConstTensor& bounds_q,
                                       const ConstTensor& bounds_k) {
    check_inputs(inputs);
    const std::vector<int64_t> queries =
        checked_bounds({"cu_seqlens_q", bounds_q}, {"query", inputs.query});
    const std::vector<int64_t> keys =
        checked_bounds({"cu_seqlens_k", bounds_k}, {"key", inputs.key});
    if (keys.size() != queries.size()) {
        refuse_value(kFunction, "`cu_seqlens_k` must have ", queries.size(),
                     " entries like `cu_seqlens_q`, got ", keys.size());
    }
    std::vector<Sequence> sequences;
    for (size_t s = 0; s + 1 < queries.size(); ++s) {
        sequences.push_back(
            {0, queries[s], keys[s], queries[s + 1] - queries[s], keys[s + 1] - keys[s]});
    }
    return sequences;
}

ResultSpec result_of_attention_varlen(const Inputs& inputs, const std::vector<Sequence>& sequences,
                                      const Options& options) {
    const int64_t total = inputs.query.shape[0];
    Shape shape = shape_of(inputs, sequences);
    shape.queries = total;
    check_size(shape);
    check_softcap(kFunction, options.softcap, inputs.query.dtype);
    const Sizes rows{shape.heads, total};
    check_scale(kFunction, options.scale, rows, 0,
                broadcasts_to(options.scale.values, 2, rows.shape), "(heads, queries)");
    if (options.n_keys != nullptr) check_n_keys(*options.n_keys, sequences, total);
    ResultSpec spec{inputs.query.dtype};
    for (const int64_t size : {total, shape.heads, shape.dim_v}) spec.append(size);
    return spec;
}

ResultSpec result_of_varlen_stats(const Inputs& inputs) {
    return result_of_stats({HeadsFirst(inputs.query), inputs.key, inputs.value});
}

void attention_varlen(const Inputs& inputs, const std::vector<Sequence>& sequences,
                      const Options& options, const Tensor& out, const Stats* stats) {
    if (out.size() == 0 && stats == nullptr) return;
    const Shape shape = shape_of(inputs, sequences);
    const bool by_sequence =
        options.n_keys != nullptr && is_by_sequence(*options.n_keys, sequences);
    const HeadsFirst query(inputs.query);
    const HeadsFirst key(inputs.key);
    const HeadsFirst value(inputs.value);
    attend({query, key, value}, shape, Visibility(shape, sequences, by_sequence, options), options,
           HeadsFirst(out), stats);
}

}  // namespace slipstick::cpu::attention
