// The attention family's functions of _cpu.
#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "attention/attention.hpp"
#include "bind/attention_arguments.hpp"
#include "bind/call.hpp"

namespace slipstick::bind {

inline void bind_attention(py::module_& module) {
    namespace attention = cpu::attention;

    // The shape of anybody's array, where Python cannot ask for it.
    module.def(
        "shape",
        [](const std::string& function, const std::string& argument, py::object object) {
            const Array array(function.c_str(), argument.c_str(), object);
            const ConstTensor& tensor = array.tensor();
            py::tuple shape(tensor.rank);
            for (int axis = 0; axis < tensor.rank; ++axis)
                shape[static_cast<size_t>(axis)] = tensor.shape[axis];
            return shape;
        },
        py::arg("function"), py::arg("argument"), py::arg("array"));

    // Returns (out, lse, entropy, max_logit), the last three None unless asked for.
    module.def(
        "attention",
        [](py::object query, py::object key, py::object value, std::string_view law,
           py::object scale, bool causal, int64_t left, int64_t right, py::object key_lengths,
           py::object mask, double softcap, py::object n_keys, bool return_stats, py::object out,
           py::object empty) -> py::tuple {
            const char* name = "attention";
            const InputArrays input_arrays(name, query, key, value);
            const OptionArrays option_arrays(name, {.law = law,
                                                    .scale = scale,
                                                    .causal = causal,
                                                    .left = left,
                                                    .right = right,
                                                    .key_lengths = key_lengths,
                                                    .mask = mask,
                                                    .softcap = softcap,
                                                    .n_keys = n_keys});
            const attention::Inputs inputs = input_arrays.inputs();
            const attention::Options& options = option_arrays.options();
            const Result result(name, out, empty, attention::result_of_attention(inputs, options),
                                {{"query", inputs.query},
                                 {"key", inputs.key},
                                 {"value", inputs.value},
                                 {"scale", options.scale.values},
                                 {"key_lengths", or_query(options.key_lengths, inputs)},
                                 {"mask", or_query(options.mask, inputs)},
                                 {"n_keys", or_query(options.n_keys, inputs)}});
            return compute_with_stats(name, result, return_stats, empty,
                                      attention::result_of_stats(inputs),
                                      [&](const Tensor& target, const attention::Stats* stats) {
                                          attention::attention(inputs, options, target, stats);
                                      });
        },
        py::arg("query"), py::arg("key"), py::arg("value"), py::arg("law"), py::arg("scale"),
        py::arg("causal"), py::arg("left"), py::arg("right"), py::arg("key_lengths"),
        py::arg("mask"), py::arg("softcap"), py::arg("n_keys"), py::arg("return_stats"),
        py::arg("out"), py::arg("empty"));

    // `with_scale`: the scale has a gradient, see result_of_scale_gradient; else the last of the
    // four results is None.
    module.def(
        "attention_backward",
        [](py::object grad_out, py::object query, py::object key, py::object value, py::object out,
           py::object lse, py::object entropy, py::object grad_lse, py::object grad_entropy,
           std::string_view law, py::object scale, bool causal, int64_t left, int64_t right,
           py::object key_lengths, py::object mask, double softcap, py::object n_keys,
           bool with_scale, py::object empty, py::object empty_scale) -> py::tuple {
            const char* name = "attention_backward";
            const Array grad_out_array(name, "grad_out", grad_out);
            const InputArrays input_arrays(name, query, key, value);
            const Array out_array(name, "out", out);
            const Array lse_array(name, "stats.lse", lse);
            const Array entropy_array(name, "stats.entropy", entropy);
            const OptionalArray grad_lse_array(name, "grad_lse", grad_lse);
            const OptionalArray grad_entropy_array(name, "grad_entropy", grad_entropy);
            const OptionArrays option_arrays(name, {.law = law,
                                                    .scale = scale,
                                                    .causal = causal,
                                                    .left = left,
                                                    .right = right,
                                                    .key_lengths = key_lengths,
                                                    .mask = mask,
                                                    .softcap = softcap,
                                                    .n_keys = n_keys});
            const attention::Inputs inputs = input_arrays.inputs();
            const attention::Options& options = option_arrays.options();
            const attention::Returned returned{.out = out_array.tensor(),
                                               .lse = lse_array.tensor(),
                                               .entropy = entropy_array.tensor(),
                                               .grad_out = grad_out_array.tensor(),
                                               .grad_lse = grad_lse_array.tensor(),
                                               .grad_entropy = grad_entropy_array.tensor()};
            attention::check_attention_backward(inputs, options, returned);
            const auto like = [](const ConstTensor& tensor) {
                ResultSpec spec{tensor.dtype};
                for (int axis = 0; axis < tensor.rank; ++axis) spec.append(tensor.shape[axis]);
                return spec;
            };
            const Result grad_query(name, py::none(), empty, like(inputs.query), {});
            const Result grad_key(name, py::none(), empty, like(inputs.key), {});
            const Result grad_value(name, py::none(), empty, like(inputs.value), {});
            attention::Gradients gradients{grad_query.tensor(), grad_key.tensor(),
                                           grad_value.tensor(), nullptr};
            if (!with_scale) {
                without_gil(
                    [&] { attention::attention_backward(inputs, options, returned, gradients); });
                return py::make_tuple(grad_query.object(), grad_key.object(), grad_value.object(),
                                      py::none());
            }
            const Result grad_scale(name, py::none(), empty_scale,
                                    attention::result_of_scale_gradient(inputs, options), {});
            const Tensor target = grad_scale.tensor();
            gradients.scale = &target;
            without_gil(
                [&] { attention::attention_backward(inputs, options, returned, gradients); });
            return py::make_tuple(grad_query.object(), grad_key.object(), grad_value.object(),
                                  grad_scale.object());
        },
        py::arg("grad_out"), py::arg("query"), py::arg("key"), py::arg("value"), py::arg("out"),
        py::arg("lse"), py::arg("entropy"), py::arg("grad_lse"), py::arg("grad_entropy"),
        py::arg("law"), py::arg("scale"), py::arg("causal"), py::arg("left"), py::arg("right"),
        py::arg("key_lengths"), py::arg("mask"), py::arg("softcap"), py::arg("n_keys"),
        py::arg("with_scale"), py::arg("empty"), py::arg("empty_scale"));

    // As attention; returns the same.
    module.def(
        "attention_varlen",
        [](py::object query, py::object key, py::object value, py::object cu_seqlens_q,
           py::object cu_seqlens_k, std::string_view law, py::object scale, bool causal,
           int64_t left, int64_t right, double softcap, py::object n_keys, bool return_stats,
           py::object out, py::object empty) -> py::tuple {
            const char* name = "attention_varlen";
            const InputArrays input_arrays(name, query, key, value);
            const Array q_array(name, "cu_seqlens_q", cu_seqlens_q);
            const Array k_array(name, "cu_seqlens_k", cu_seqlens_k);
            const OptionArrays option_arrays(name, {.law = law,
                                                    .scale = scale,
                                                    .causal = causal,
                                                    .left = left,
                                                    .right = right,
                                                    .softcap = softcap,
                                                    .n_keys = n_keys});
            const attention::Inputs inputs = input_arrays.inputs();
            const attention::Options& options = option_arrays.options();
            const std::vector<attention::Sequence> sequences =
                attention::packed_sequences(inputs, q_array.tensor(), k_array.tensor());
            const Result result(name, out, empty,
                                attention::result_of_attention_varlen(inputs, sequences, options),
                                {{"query", inputs.query},
                                 {"key", inputs.key},
                                 {"value", inputs.value},
                                 {"cu_seqlens_q", q_array.tensor()},
                                 {"cu_seqlens_k", k_array.tensor()},
                                 {"scale", options.scale.values},
                                 {"n_keys", or_query(options.n_keys, inputs)}});
            return compute_with_stats(
                name, result, return_stats, empty, attention::result_of_varlen_stats(inputs),
                [&](const Tensor& target, const attention::Stats* stats) {
                    attention::attention_varlen(inputs, sequences, options, target, stats);
                });
        },
        py::arg("query"), py::arg("key"), py::arg("value"), py::arg("cu_seqlens_q"),
        py::arg("cu_seqlens_k"), py::arg("law"), py::arg("scale"), py::arg("causal"),
        py::arg("left"), py::arg("right"), py::arg("softcap"), py::arg("n_keys"),
        py::arg("return_stats"), py::arg("out"), py::arg("empty"));

    // `parts`: tuples (out, lse, entropy, max_logit). Returns such a tuple.
    module.def(
        "merge_attention",
        [](const py::list& parts, py::object empty) -> py::tuple {
            const char* name = "merge_attention";
            std::deque<PartArrays> arrays;  // they do not move
            std::vector<attention::Part> views;
            for (const py::handle& part : parts) {
                arrays.emplace_back(name, arrays.size(), part.cast<py::tuple>());
                views.push_back(arrays.back().part());
            }
            const Result result(name, py::none(), empty, attention::result_of_merge(views), {});
            const StatsResult stats(name, empty, attention::result_of_merged_stats(views));
            without_gil([&] { attention::merge(views, result.tensor(), stats.tensors()); });
            return stats.behind(result);
        },
        py::arg("parts"), py::arg("empty"));

    module.def(
        "softmax",
        [](py::object scores, std::string_view law, py::object scale, int64_t axis, py::object out,
           py::object empty) {
            const Array scores_array("softmax", "scores", scores);
            const Array scale_array("softmax", "scale", scale);
            const attention::Scale lambda{law_named(law), scale_array.tensor()};
            const Result result(
                "softmax", out, empty,
                attention::result_of_softmax(scores_array.tensor(), lambda, axis),
                {{"scores", scores_array.tensor()}, {"scale", scale_array.tensor()}}, true);
            without_gil(
                [&] { attention::softmax(scores_array.tensor(), lambda, axis, result.tensor()); });
            return result.object();
        },
        py::arg("scores"), py::arg("law"), py::arg("scale"), py::arg("axis"), py::arg("out"),
        py::arg("empty"));
}

}  // namespace slipstick::bind
