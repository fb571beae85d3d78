#include "attention/attention.hpp"

#include "attention/arguments.hpp"
#include "attention/scale.hpp"
#include "attention/visibility.hpp"
#include "core/broadcast.hpp"
#include "core/checks.hpp"
#include "core/error.hpp"

namespace slipstick::cpu::attention {
namespace {

void check_axis(const char* function, Named argument, int axis_from_end, const char* what,
                Named like, int64_t expected) {
    const int axis = argument.tensor.rank - axis_from_end;
    if (axis < 0 || argument.tensor.shape[axis] == expected) return;
    refuse_value(function, "`", argument.name, "` must have ", expected, " ", what, " like `",
                 like.name, "`, got shape ", shape_text(argument.tensor));
}

void check_inputs(const char* function, const Inputs& inputs) {
    const Named query{"query", inputs.query};
    const Named key{"key", inputs.key};
    const Named value{"value", inputs.value};
    check_dtype(function, query, is_float(inputs.query.dtype), kFloatDtypes);
    check_same_dtype(function, {query, key, value});
    const int rank = inputs.query.rank;
    if (rank < 2 || rank > 4) {
        refuse_value(function, "`query` must have 2, 3 or 4 axes, got shape ",
                     shape_text(inputs.query));
    }
    for (const Named& argument : {key, value}) {
        if (argument.tensor.rank != rank) {
            refuse_value(function, "`", argument.name, "` must have ", rank,
                         " axes like `query`, got shape ", shape_text(argument.tensor));
        }
        check_axis(function, argument, 4, "batches", query, rank == 4 ? inputs.query.shape[0] : 1);
    }
    const Shape shape = shape_of(inputs);
    check_axis(function, key, 1, "columns", query, shape.dim);
    check_axis(function, value, 3, "heads", key, shape.kv_heads);
    check_axis(function, value, 2, "rows", key, shape.keys);
    if (shape.kv_heads == 0 ? shape.heads != 0 : shape.heads % shape.kv_heads != 0) {
        refuse_value(function, "`query` must have a multiple of the ", shape.kv_heads,
                     " heads of `key`, got shape ", shape_text(inputs.query));
    }
}

void check_mask(const char* function, const ConstTensor& mask, const Shape& shape) {
    check_dtype(function, {"mask", mask}, mask.dtype == Dtype::kBool || is_float(mask.dtype),
                "bool (True where a key may be attended) or a float type");
    const Sizes scores{shape.batch, shape.heads, shape.queries, shape.keys};
    if (!broadcasts_to(mask, 4, scores.shape)) {
        refuse_value(function, "`mask` must broadcast to (batch, heads, queries, keys), here ",
                     shape_text(scores), ", got shape ", shape_text(mask));
    }
}

void check_key_lengths(const char* function, const ConstTensor& lengths, const Shape& shape) {
    check_integers(function, {"key_lengths", lengths},
                   lengths.rank == 0 || (lengths.rank == 1 && lengths.shape[0] == shape.batch),
                   text("an integer or of shape (batch,), here (", shape.batch, ",)"), shape.keys);
}

void check_n_keys(const char* function, const ConstTensor& n_keys, const Shape& shape,
                  bool has_batch) {
    const int64_t rank = n_keys.rank;
    if (!has_batch) {
        check_integers(function, {"n_keys", n_keys},
                       rank == 0 || (rank == 1 && n_keys.shape[0] == shape.queries),
                       text("an integer or of shape (queries,), here (", shape.queries, ",)"),
                       kLargestCount);
        return;
    }
    const bool fits = rank == 0 || (rank <= 2 && n_keys.shape[0] == shape.batch &&
                                    (rank == 1 || n_keys.shape[1] == shape.queries));
    check_integers(function, {"n_keys", n_keys}, fits,
                   text("an integer or of shape (batch,) or (batch, queries), here (", shape.batch,
                        ", ", shape.queries, ")"),
                   kLargestCount);
}

constexpr const char* kBackward = "attention_backward";

void check_like(Named argument, Dtype dtype, const ConstTensor& shape, const char* what) {
    if (argument.tensor.dtype != dtype) {
        refuse_type(kBackward, "`", argument.name, "` must have dtype ", name(dtype), " like ",
                    what, ", got ", name(argument.tensor.dtype));
    }
    if (!same_shape(argument.tensor, shape)) {
        refuse_value(kBackward, "`", argument.name, "` must have shape ", shape_text(shape),
                     " like ", what, ", got ", shape_text(argument.tensor));
    }
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

ResultSpec result_of_attention(const Inputs& inputs, const Options& options, const char* function) {
    check_inputs(function, inputs);
    const Shape shape = shape_of(inputs);
    check_size(shape);
    check_softcap(function, options.softcap, inputs.query.dtype);
    const Sizes rows{shape.batch, shape.heads, shape.queries};
    check_scale(function, options.scale, rows, 1,
                broadcasts_to(options.scale.values, 3, rows.shape), "(batch, heads, queries)");
    if (options.mask != nullptr) check_mask(function, *options.mask, shape);
    if (options.key_lengths != nullptr) check_key_lengths(function, *options.key_lengths, shape);
    if (options.n_keys != nullptr)
        check_n_keys(function, *options.n_keys, shape, inputs.query.rank == 4);
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

void check_attention_backward(const Inputs& inputs, const Options& options,
                              const Returned& returned) {
    const ResultSpec out = result_of_attention(inputs, options, kBackward);
    const ConstTensor out_shape{nullptr, out.dtype, out.rank, out.shape.data(), nullptr};
    check_like({"out", returned.out}, out.dtype, out_shape, "what attention returns");
    check_like({"grad_out", returned.grad_out}, out.dtype, out_shape, "`out`");
    const ResultSpec rows = result_of_stats(inputs);
    const ConstTensor row_shape{nullptr, rows.dtype, rows.rank, rows.shape.data(), nullptr};
    check_like({"stats.lse", returned.lse}, rows.dtype, row_shape, "what attention returns");
    check_like({"stats.entropy", returned.entropy}, rows.dtype, row_shape,
               "what attention returns");
    if (returned.grad_lse != nullptr)
        check_like({"grad_lse", *returned.grad_lse}, rows.dtype, row_shape, "`stats.lse`");
    if (returned.grad_entropy != nullptr) {
        check_like({"grad_entropy", *returned.grad_entropy}, rows.dtype, row_shape,
                   "`stats.entropy`");
    }
    // Packed rows fit no machine: broadcast views can have such sizes.
    const Shape shape = shape_of(inputs);
    const double elements =
        static_cast<double>(shape.group()) * static_cast<double>(shape.queries) *
        (static_cast<double>(shape.dim) + static_cast<double>(shape.dim_v) + 64);
    if (elements * 0x1p7 > 0x1p47) throw std::bad_alloc();
}

ResultSpec result_of_scale_gradient(const Inputs& inputs, const Options& options) {
    if (options.scale.law == Law::kGiven) {
        const ConstTensor& values = options.scale.values;
        ResultSpec spec{values.dtype};
        for (int axis = 0; axis < values.rank; ++axis) spec.append(values.shape[axis]);
        return spec;
    }
    if (options.scale.law != Law::kAffineLog) {
        refuse_value(kBackward,
                     "`scale` must be affine in ln n or given to have a gradient, got another law");
    }
    ResultSpec spec{Dtype::kFloat64};
    spec.append(shape_of(inputs).heads);
    spec.append(2);
    return spec;
}

}  // namespace slipstick::cpu::attention
