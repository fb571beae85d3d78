#include "attention/attention.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <initializer_list>
#include <new>
#include <string>

#include "attention/scale.hpp"
#include "attention/visibility.hpp"
#include "core/broadcast.hpp"
#include "core/checks.hpp"
#include "core/error.hpp"

namespace slipstick::cpu::attention {
namespace {

constexpr int64_t kLargestCount = int64_t{1} << 53;  // float64 holds every integer up to here

bool is_integer(Dtype dtype) { return dtype >= Dtype::kInt8 && dtype <= Dtype::kUInt64; }

// A shape that belongs to no array.
struct Sizes : ConstTensor {
    explicit Sizes(std::initializer_list<int64_t> list)
        : ConstTensor{nullptr, Dtype::kFloat32, static_cast<int>(list.size()), nullptr, nullptr} {
        std::copy(list.begin(), list.end(), sizes.begin());
        shape = sizes.data();
    }
    Sizes(const Sizes&) = delete;
    Sizes& operator=(const Sizes&) = delete;
    std::array<int64_t, 4> sizes{};
};

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

// Sizes whose products no longer fit the counters, or whose packed keys fit no machine: broadcast
// views can have them.
void check_size(const Shape& shape) {
    const double rows = static_cast<double>(shape.batch) * static_cast<double>(shape.heads) *
                        static_cast<double>(shape.queries);
    const double keys = static_cast<double>(shape.keys) + 1024;
    const double columns = static_cast<double>(shape.dim) + static_cast<double>(shape.dim_v) + 1024;
    constexpr double kMostBytes = 0x1p47;  // of a process's address space
    if (rows > 0x1p60 || keys * columns * static_cast<double>(sizeof(double)) > kMostBytes) {
        throw std::bad_alloc();
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

void check_integers(const char* function, Named argument, bool shape_fits,
                    const std::string& shapes, int64_t highest) {
    const ConstTensor& tensor = argument.tensor;
    check_dtype(function, argument, is_integer(tensor.dtype), "integer");
    if (!shape_fits) {
        refuse_value(function, "`", argument.name, "` must be ", shapes, ", got shape ",
                     shape_text(tensor));
    }
    const View<2> view(tensor);
    for (int64_t i = 0; i < view.shape[0]; ++i) {
        for (int64_t j = 0; j < view.shape[1]; ++j) {
            const int64_t number = integer_at(view.data, view.dtype, view.offset(i, j));
            if (number >= 0 && number <= highest) continue;
            refuse_value(function, "`", argument.name, "` must be from 0 to ", highest, ", got ",
                         number);
        }
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
    // The scores' own type decides what a cap may be: 0 or infinity in float32 would mean none.
    const bool wide = inputs.query.dtype == Dtype::kFloat64;
    const double cap = wide ? options.softcap : static_cast<float>(options.softcap);
    if (options.softcap != 0 && !(cap > 0 && std::isfinite(cap))) {
        refuse_value(function, "`softcap` must be above 0 and finite in float32, got ",
                     options.softcap);
    }
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
