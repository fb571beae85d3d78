// The arguments of packed batches: sequences of any lengths, one after another in one axis of
// tokens.
#include <algorithm>

#include "attention/arguments.hpp"
#include "attention/packed.hpp"
#include "core/checks.hpp"
#include "core/error.hpp"
#include "core/nest.hpp"

namespace slipstick::attention {
namespace {

constexpr const char* kFunction = "attention_varlen";

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

std::vector<int64_t> checked_bounds(Named argument, bool on_device, Named tokens) {
    const ConstTensor& tensor = argument.tensor;
    check_dtype(kFunction, argument, is_integer(tensor.dtype), "integer");
    if (tensor.rank != 1 || tensor.shape[0] < 1) {
        refuse_value(kFunction, "`", argument.name,
                     "` must be of shape (sequences + 1,), got shape ", shape_text(tensor));
    }
    const int64_t total = tokens.tensor.shape[0];
    std::vector<int64_t> bounds;
    if (on_device) {
        if (tensor.shape[0] == 1 && total != 0) {
            refuse_value(kFunction, "`", argument.name, "` must have at least 2 entries for the ",
                         total, " tokens of `", tokens.name, "`, got shape ", shape_text(tensor));
        }
        return bounds;
    }
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

void check_n_keys(const Options& options, int64_t sequences, bool one_each, int64_t total) {
    const ConstTensor& n_keys = *options.n_keys;
    const bool by_query =
        n_keys.rank == 1 ? n_keys.shape[0] == total
                         : n_keys.rank == 2 && n_keys.shape[0] == 1 && n_keys.shape[1] == total;
    check_integers(kFunction, {"n_keys", n_keys}, options.on_device.n_keys,
                   n_keys.rank == 0 || is_by_sequence(n_keys, sequences) || by_query,
                   text("an integer or of shape (sequences,) or (queries,), here (", sequences,
                        ",) or (", total, ",)"),
                   kLargestCount);
    if (is_ambiguous(&n_keys, sequences, total) && !one_each) {
        refuse_value(kFunction, "`n_keys` must be of shape (1, ", total,
                     ") for one number a query where there are as many sequences as queries, got "
                     "shape ",
                     shape_text(n_keys));
    }
}

}  // namespace

Shape packed_shape_of(const Inputs& inputs) {
    return {.batch = 1,
            .heads = inputs.query.shape[1],
            .kv_heads = inputs.key.shape[1],
            .queries = inputs.query.shape[0],
            .keys = inputs.key.shape[0],
            .dim = inputs.query.shape[2],
            .dim_v = inputs.value.shape[2]};
}

Packing packing_of(const Inputs& inputs, const Bounds& bounds) {
    check_inputs(inputs);
    Packing packing{
        0,
        checked_bounds({"cu_seqlens_q", bounds.queries}, bounds.queries_on_device,
                       {"query", inputs.query}),
        checked_bounds({"cu_seqlens_k", bounds.keys}, bounds.keys_on_device, {"key", inputs.key})};
    packing.sequences = bounds.queries.shape[0] - 1;
    if (bounds.keys.shape[0] != bounds.queries.shape[0]) {
        refuse_value(kFunction, "`cu_seqlens_k` must have ", bounds.queries.shape[0],
                     " entries like `cu_seqlens_q`, got ", bounds.keys.shape[0]);
    }
    return packing;
}

ResultSpec result_of_packed(const Inputs& inputs, const Shape& shape, int64_t sequences,
                            bool one_each, const Options& options) {
    const int64_t total = inputs.query.shape[0];
    check_size(shape);
    check_softcap(kFunction, options.softcap, inputs.query.dtype);
    const Sizes rows{shape.heads, total};
    check_scale(kFunction, options.scale, rows, 0,
                broadcasts_to(options.scale.values, 2, rows.shape), "(heads, queries)");
    if (options.n_keys != nullptr) check_n_keys(options, sequences, one_each, total);
    ResultSpec spec{inputs.query.dtype};
    for (const int64_t size : {total, shape.heads, shape.dim_v}) spec.append(size);
    return spec;
}

ResultSpec result_of_attention_varlen(const Inputs& inputs, const Packing& packing,
                                      const Options& options) {
    bool one_each = true;
    for (size_t s = 1; s < packing.queries.size(); ++s)
        one_each &= packing.queries[s] - packing.queries[s - 1] == 1;
    return result_of_packed(inputs, packed_shape_of(inputs), packing.sequences, one_each, options);
}

ResultSpec result_of_varlen_stats(const Inputs& inputs) {
    return result_of_stats({HeadsFirst(inputs.query), inputs.key, inputs.value});
}

}  // namespace slipstick::attention
