#include "attention/attention.hpp"

#include "attention/arguments.hpp"
#include "attention/scale.hpp"
#include "attention/visibility.hpp"
#include "core/broadcast.hpp"
#include "core/checks.hpp"
#include "core/error.hpp"

namespace slipstick::cpu::attention {
namespace {

constexpr const char* kFunction = "attention";

void check_axis(Named argument, int axis_from_end, const char* what, Named like, int64_t expected) {
    const int axis = argument.tensor.rank - axis_from_end;
    if (axis < 0 || argument.tensor.shape[axis] == expected) return;
    refuse_value(kFunction, "`", argument.name, "` must have ", expected, " ", what, " like `",
                 like.name, "`, got shape ", shape_text(argument.tensor));
}

void check_inputs(const Inputs& inputs) {
    const Named query{"query", inputs.query};
    const Named key{"key", inputs.key};
    const Named value{"value", inputs.value};
    check_dtype(kFunction, query, is_float(inputs.query.dtype), kFloatDtypes);
    check_same_dtype(kFunction, {query, key, value});
    const int rank = inputs.query.rank;
    if (rank < 2 || rank > 4) {
        refuse_value(kFunction, "`query` must have 2, 3 or 4 axes, got shape ",
                     shape_text(inputs.query));
    }
    for (const Named& argument : {key, value}) {
        if (argument.tensor.rank != rank) {
            refuse_value(kFunction, "`", argument.name, "` must have ", rank,
                         " axes like `query`, got shape ", shape_text(argument.tensor));
        }
        check_axis(argument, 4, "batches", query, rank == 4 ? inputs.query.shape[0] : 1);
    }
    const Shape shape = shape_of(inputs);
    check_axis(key, 1, "columns", query, shape.dim);
    check_axis(value, 3, "heads", key, shape.kv_heads);
    check_axis(value, 2, "rows", key, shape.keys);
    if (shape.kv_heads == 0 ? shape.heads != 0 : shape.heads % shape.kv_heads != 0) {
        refuse_value(kFunction, "`query` must have a multiple of the ", shape.kv_heads,
                     " heads of `key`, got shape ", shape_text(inputs.query));
    }
}

void check_mask(const ConstTensor& mask, const Shape& shape) {
    check_dtype(kFunction, {"mask", mask}, mask.dtype == Dtype::kBool || is_float(mask.dtype),
                "bool (True where a key may be attended) or a float type");
    const Sizes scores{shape.batch, shape.heads, shape.queries, shape.keys};
    if (!broadcasts_to(mask, 4, scores.shape)) {
        refuse_value(kFunction, "`mask` must broadcast to (batch, heads, queries, keys), here ",
                     shape_text(scores), ", got shape ", shape_text(mask));
    }
}

void check_key_lengths(const ConstTensor& lengths, const Shape& shape) {
    check_integers(kFunction, {"key_lengths", lengths},
                   lengths.rank == 0 || (lengths.rank == 1 && lengths.shape[0] == shape.batch),
                   text("an integer or of shape (batch,), here (", shape.batch, ",)"), shape.keys);
}

void check_n_keys(const ConstTensor& n_keys, const Shape& shape, bool has_batch) {
    const int64_t rank = n_keys.rank;
    if (!has_batch) {
        check_integers(kFunction, {"n_keys", n_keys},
                       rank == 0 || (rank == 1 && n_keys.shape[0] == shape.queries),
                       text("an integer or of shape (queries,), here (", shape.queries, ",)"),
                       kLargestCount);
        return;
    }
    const bool fits = rank == 0 || (rank <= 2 && n_keys.shape[0] == shape.batch &&
                                    (rank == 1 || n_keys.shape[1] == shape.queries));
    check_integers(kFunction, {"n_keys", n_keys}, fits,
                   text("an integer or of shape (batch,) or (batch, queries), here (", shape.batch,
                        ", ", shape.queries, ")"),
                   kLargestCount);
}

}  // namespace

Shape shape_of(const Inputs& inputs) {
    const View<4> query(inputs.query);
    const View<4> key(inputs.key);
    const View<4> value(inputs.value);
    return {.batch = query.shape[0],
            .heads = query.shape[1],
            .kv_heads = key.shape[1],
            .queries = query.shape[2],
            .keys = key.shape[2],
            .dim = query.shape[3],
            .dim_v = value.shape[3]};
}

ResultSpec result_of_attention(const Inputs& inputs, const Options& options) {
    check_inputs(inputs);
    const Shape shape = shape_of(inputs);
    check_size(shape);
    check_softcap(kFunction, options.softcap, inputs.query.dtype);
    const Sizes rows{shape.batch, shape.heads, shape.queries};
    check_scale(kFunction, options.scale, rows, 1,
                broadcasts_to(options.scale.values, 3, rows.shape), "(batch, heads, queries)");
    if (options.mask != nullptr) check_mask(*options.mask, shape);
    if (options.key_lengths != nullptr) check_key_lengths(*options.key_lengths, shape);
    if (options.n_keys != nullptr) check_n_keys(*options.n_keys, shape, inputs.query.rank == 4);
    ResultSpec spec{inputs.query.dtype};
    for (int axis = 0; axis < inputs.query.rank - 1; ++axis) spec.append(inputs.query.shape[axis]);
    spec.append(shape.dim_v);
    return spec;
}

ResultSpec result_of_stats(const Inputs& inputs) {
    ResultSpec spec{inputs.query.dtype == Dtype::kFloat64 ? Dtype::kFloat64 : Dtype::kFloat32};
    for (int axis = 0; axis < inputs.query.rank - 1; ++axis) spec.append(inputs.query.shape[axis]);
    return spec;
}

}  // namespace slipstick::cpu::attention
