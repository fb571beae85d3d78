#include "attention/results.hpp"

#include "attention/arguments.hpp"
#include "attention/shape.hpp"
#include "attention/view.hpp"
#include "core/checks.hpp"
#include "core/error.hpp"
#include "core/nest.hpp"

namespace slipstick::attention {
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

void check_key_lengths(const char* function, const Options& options, const Shape& shape) {
    const ConstTensor& lengths = *options.key_lengths;
    check_integers(function, {"key_lengths", lengths}, options.on_device.key_lengths,
                   lengths.rank == 0 || (lengths.rank == 1 && lengths.shape[0] == shape.batch),
                   text("an integer or of shape (batch,), here (", shape.batch, ",)"), shape.keys);
}

void check_n_keys(const char* function, const Options& options, const Shape& shape,
                  bool has_batch) {
    const ConstTensor& n_keys = *options.n_keys;
    const int64_t rank = n_keys.rank;
    const bool on_device = options.on_device.n_keys;
    if (!has_batch) {
        check_integers(function, {"n_keys", n_keys}, on_device,
                       rank == 0 || (rank == 1 && n_keys.shape[0] == shape.queries),
                       text("an integer or of shape (queries,), here (", shape.queries, ",)"),
                       kLargestCount);
        return;
    }
    const bool fits = rank == 0 || (rank <= 2 && n_keys.shape[0] == shape.batch &&
                                    (rank == 1 || n_keys.shape[1] == shape.queries));
    check_integers(function, {"n_keys", n_keys}, on_device, fits,
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

constexpr const char* kMerge = "merge_attention";

ConstTensor without_last_axis(const ConstTensor& tensor) {
    ConstTensor rows = tensor;
    --rows.rank;
    return rows;
}

ResultSpec spec_of(const ConstTensor& tensor) {
    ResultSpec spec{tensor.dtype};
    for (int axis = 0; axis < tensor.rank; ++axis) spec.append(tensor.shape[axis]);
    return spec;
}

constexpr const char* kSoftmax = "softmax";

void check_softmax_axis(const ConstTensor& scores, int64_t axis) {
    if (scores.rank == 0)
        refuse_value(kSoftmax, "`scores` must have at least one axis, got shape ()");
    if (axis < -scores.rank || axis >= scores.rank) {
        refuse_value(kSoftmax, "`axis` must be from ", -scores.rank, " to ", scores.rank - 1,
                     " for `scores` of shape ", shape_text(scores), ", got ", axis);
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
    if (options.key_lengths != nullptr) check_key_lengths(function, options, shape);
    if (options.n_keys != nullptr) check_n_keys(function, options, shape, inputs.query.rank == 4);
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
        return spec_of(options.scale.values);
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

ResultSpec result_of_merge(const std::vector<Part>& parts) {
    if (parts.empty()) refuse_value(kMerge, "`parts` must hold at least one part, got none");
    const ConstTensor& first = parts.front().out;
    const std::string first_name = parts.front().name + ".out";
    for (const Part& part : parts) {
        const std::string out_name = part.name + ".out";
        check_dtype(kMerge, {out_name.c_str(), part.out}, is_float(part.out.dtype), kFloatDtypes);
        check_same_dtype(kMerge, {{first_name.c_str(), first}, {out_name.c_str(), part.out}});
        if (part.out.rank < 2 || part.out.rank > 4) {
            refuse_value(kMerge, "`", out_name, "` must have 2, 3 or 4 axes, got shape ",
                         shape_text(part.out));
        }
        if (!same_shape(part.out, first)) {
            refuse_value(kMerge, "`", out_name, "` must have shape ", shape_text(first), " like `",
                         first_name, "`, got ", shape_text(part.out));
        }
        const Dtype dtype = first.dtype == Dtype::kFloat64 ? Dtype::kFloat64 : Dtype::kFloat32;
        const ConstTensor rows = without_last_axis(first);
        const auto check_stat = [&](const char* stat, const ConstTensor& tensor) {
            const std::string stat_name = part.name + "." + stat;
            check_dtype(kMerge, {stat_name.c_str(), tensor}, tensor.dtype == dtype,
                        dtype == Dtype::kFloat64 ? "float64 for float64 parts"
                                                 : "float32 for parts that are not float64");
            if (!same_shape(tensor, rows)) {
                refuse_value(kMerge, "`", stat_name, "` must have shape ", shape_text(rows),
                             " like `", out_name, "` without its last axis, got ",
                             shape_text(tensor));
            }
        };
        check_stat("lse", part.lse);
        check_stat("entropy", part.entropy);
        check_stat("max_logit", part.max_logit);
    }
    return spec_of(first);
}

ResultSpec result_of_merged_stats(const std::vector<Part>& parts) {
    return spec_of(parts.front().lse);
}

ResultSpec result_of_softmax(const ConstTensor& scores, const Scale& scale, int64_t axis) {
    check_dtype(kSoftmax, {"scores", scores}, is_float(scores.dtype), kFloatDtypes);
    check_softmax_axis(scores, axis);
    ResultSpec rows{scores.dtype};  // the scores without the axis that is normalised
    for (int i = 0; i < scores.rank; ++i)
        if (i != (axis < 0 ? axis + scores.rank : axis)) rows.append(scores.shape[i]);
    const ConstTensor shape{nullptr, rows.dtype, rows.rank, rows.shape.data(), nullptr};
    check_scale(kSoftmax, scale, shape, shape.rank - 2,
                broadcasts_to(scale.values, shape.rank, shape.shape),
                "the shape of `scores` without `axis`");
    return spec_of(scores);
}

}  // namespace slipstick::attention
