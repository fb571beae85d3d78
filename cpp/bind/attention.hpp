// The attention family's functions, for a device's module. A Backend (CpuBackend, CudaBackend)
// lives as long as a call; it says where the call's arrays lie, and computes. Options may lie on
// the host all the same, but for the mask.
#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "attention/results.hpp"
#include "bind/attention_arguments.hpp"
#include "bind/call.hpp"

namespace slipstick::bind {

inline void bind_shape(py::module_& module) {
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
}

template <class Backend>
void bind_attention(py::module_& module) {
    // Returns (out, lse, entropy, max_logit), the last three None unless asked for.
    module.def(
        "attention",
        [](py::object query, py::object key, py::object value, std::string_view law,
           py::object scale, bool causal, int64_t left, int64_t right, py::object key_lengths,
           py::object mask, double softcap, py::object n_keys, bool return_stats, py::object out,
           py::object empty) -> py::tuple {
            const char* name = "attention";
            const Backend backend(name, "query", empty);
            const Place& place = backend.place();
            const InputArrays input_arrays(name, query, key, value, place);
            const OptionArrays option_arrays(name,
                                             {.law = law,
                                              .scale = scale,
                                              .causal = causal,
                                              .left = left,
                                              .right = right,
                                              .key_lengths = key_lengths,
                                              .mask = mask,
                                              .softcap = softcap,
                                              .n_keys = n_keys},
                                             place);
            const attention::Inputs inputs = input_arrays.inputs();
            const attention::Options& options = option_arrays.options();
            const ResultSpec spec = attention::result_of_attention(inputs, options);
            backend.check_attention(name, inputs);
            const Result result(name, out, empty, spec,
                                {{"query", inputs.query},
                                 {"key", inputs.key},
                                 {"value", inputs.value},
                                 {"scale", options.scale.values},
                                 {"key_lengths", or_query(options.key_lengths, inputs)},
                                 {"mask", or_query(options.mask, inputs)},
                                 {"n_keys", or_query(options.n_keys, inputs)}},
                                false, place);
            return compute_with_stats(name, result, return_stats, empty,
                                      attention::result_of_stats(inputs), place,
                                      [&](const Tensor& target, const attention::Stats* stats) {
                                          backend.attention(inputs, options, target, stats);
                                      });
        },
        py::arg("query"), py::arg("key"), py::arg("value"), py::arg("law"), py::arg("scale"),
        py::arg("causal"), py::arg("left"), py::arg("right"), py::arg("key_lengths"),
        py::arg("mask"), py::arg("softcap"), py::arg("n_keys"), py::arg("return_stats"),
        py::arg("out"), py::arg("empty"));
}

template <class Backend>
void bind_attention_backward(py::module_& module) {
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
            const Backend backend(name, "query", empty);
            const Place& place = backend.place();
            const Array grad_out_array(name, "grad_out", grad_out, place);
            const InputArrays input_arrays(name, query, key, value, place);
            const Array out_array(name, "out", out, place);
            const Array lse_array(name, "stats.lse", lse, place);
            const Array entropy_array(name, "stats.entropy", entropy, place);
            const OptionalArray grad_lse_array(name, "grad_lse", grad_lse, place);
            const OptionalArray grad_entropy_array(name, "grad_entropy", grad_entropy, place);
            const OptionArrays option_arrays(name,
                                             {.law = law,
                                              .scale = scale,
                                              .causal = causal,
                                              .left = left,
                                              .right = right,
                                              .key_lengths = key_lengths,
                                              .mask = mask,
                                              .softcap = softcap,
                                              .n_keys = n_keys},
                                             place);
            const attention::Inputs inputs = input_arrays.inputs();
            const attention::Options& options = option_arrays.options();
            const attention::Returned returned{.out = out_array.tensor(),
                                               .lse = lse_array.tensor(),
                                               .entropy = entropy_array.tensor(),
                                               .grad_out = grad_out_array.tensor(),
                                               .grad_lse = grad_lse_array.tensor(),
                                               .grad_entropy = grad_entropy_array.tensor()};
            attention::check_attention_backward(inputs, options, returned);
            backend.check_attention(name, inputs);
            const auto like = [&](const ConstTensor& tensor) {
                ResultSpec spec{tensor.dtype};
                for (int axis = 0; axis < tensor.rank; ++axis) spec.append(tensor.shape[axis]);
                return Result(name, py::none(), empty, spec, {}, false, place);
            };
            const Result grad_query = like(inputs.query);
            const Result grad_key = like(inputs.key);
            const Result grad_value = like(inputs.value);
            attention::Gradients gradients{grad_query.tensor(), grad_key.tensor(),
                                           grad_value.tensor(), nullptr};
            if (!with_scale) {
                without_gil(
                    [&] { backend.attention_backward(inputs, options, returned, gradients); });
                return py::make_tuple(grad_query.object(), grad_key.object(), grad_value.object(),
                                      py::none());
            }
            const Result grad_scale(name, py::none(), empty_scale,
                                    attention::result_of_scale_gradient(inputs, options), {}, false,
                                    place);
            const Tensor target = grad_scale.tensor();
            gradients.scale = &target;
            without_gil([&] { backend.attention_backward(inputs, options, returned, gradients); });
            return py::make_tuple(grad_query.object(), grad_key.object(), grad_value.object(),
                                  grad_scale.object());
        },
        py::arg("grad_out"), py::arg("query"), py::arg("key"), py::arg("value"), py::arg("out"),
        py::arg("lse"), py::arg("entropy"), py::arg("grad_lse"), py::arg("grad_entropy"),
        py::arg("law"), py::arg("scale"), py::arg("causal"), py::arg("left"), py::arg("right"),
        py::arg("key_lengths"), py::arg("mask"), py::arg("softcap"), py::arg("n_keys"),
        py::arg("with_scale"), py::arg("empty"), py::arg("empty_scale"));
}

template <class Backend>
void bind_attention_varlen(py::module_& module) {
    // As attention; returns the same.
    module.def(
        "attention_varlen",
        [](py::object query, py::object key, py::object value, py::object cu_seqlens_q,
           py::object cu_seqlens_k, std::string_view law, py::object scale, bool causal,
           int64_t left, int64_t right, double softcap, py::object n_keys, bool return_stats,
           py::object out, py::object empty) -> py::tuple {
            const char* name = "attention_varlen";
            const Backend backend(name, "query", empty);
            const Place& place = backend.place();
            const InputArrays input_arrays(name, query, key, value, place);
            const OptionArray q_array(name, "cu_seqlens_q", cu_seqlens_q, place);
            const OptionArray k_array(name, "cu_seqlens_k", cu_seqlens_k, place);
            const OptionArrays option_arrays(name,
                                             {.law = law,
                                              .scale = scale,
                                              .causal = causal,
                                              .left = left,
                                              .right = right,
                                              .softcap = softcap,
                                              .n_keys = n_keys},
                                             place);
            const attention::Inputs inputs = input_arrays.inputs();
            const attention::Options& options = option_arrays.options();
            const attention::Bounds bounds{*q_array.tensor(), *k_array.tensor(),
                                           q_array.on_device(), k_array.on_device()};
            const auto sequences = backend.packed_sequences(inputs, bounds);
            const ResultSpec spec = backend.result_of_attention_varlen(inputs, sequences, options);
            backend.check_attention_varlen(name, inputs);
            const Result result(name, out, empty, spec,
                                {{"query", inputs.query},
                                 {"key", inputs.key},
                                 {"value", inputs.value},
                                 {"cu_seqlens_q", bounds.queries},
                                 {"cu_seqlens_k", bounds.keys},
                                 {"scale", options.scale.values},
                                 {"n_keys", or_query(options.n_keys, inputs)}},
                                false, place);
            return compute_with_stats(
                name, result, return_stats, empty, attention::result_of_varlen_stats(inputs), place,
                [&](const Tensor& target, const attention::Stats* stats) {
                    backend.attention_varlen(inputs, bounds, sequences, options, target, stats);
                });
        },
        py::arg("query"), py::arg("key"), py::arg("value"), py::arg("cu_seqlens_q"),
        py::arg("cu_seqlens_k"), py::arg("law"), py::arg("scale"), py::arg("causal"),
        py::arg("left"), py::arg("right"), py::arg("softcap"), py::arg("n_keys"),
        py::arg("return_stats"), py::arg("out"), py::arg("empty"));
}

template <class Backend>
void bind_merge_attention(py::module_& module) {
    // `parts`: tuples (out, lse, entropy, max_logit). Returns such a tuple.
    module.def(
        "merge_attention",
        [](const py::list& parts, py::object empty) -> py::tuple {
            const char* name = "merge_attention";
            const Backend backend(name, "parts[0].out", empty);
            const Place& place = backend.place();
            std::deque<PartArrays> arrays;  // they do not move
            std::vector<attention::Part> views;
            for (const py::handle& part : parts) {
                arrays.emplace_back(name, arrays.size(), part.cast<py::tuple>(), place);
                views.push_back(arrays.back().part());
            }
            const Result result(name, py::none(), empty, attention::result_of_merge(views), {},
                                false, place);
            const StatsResult stats(name, empty, attention::result_of_merged_stats(views), place);
            without_gil([&] { backend.merge(views, result.tensor(), stats.tensors()); });
            return stats.behind(result);
        },
        py::arg("parts"), py::arg("empty"));
}

template <class Backend>
void bind_softmax(py::module_& module) {
    module.def(
        "softmax",
        [](py::object scores, std::string_view law, py::object scale, int64_t axis, py::object out,
           py::object empty) {
            const Backend backend("softmax", "scores", empty);
            const Place& place = backend.place();
            const Array scores_array("softmax", "scores", scores, place);
            const OptionArray scale_array("softmax", "scale", scale, place);
            const attention::Scale lambda{law_named(law), *scale_array.tensor()};
            const Result result("softmax", out, empty,
                                attention::result_of_softmax(scores_array.tensor(), lambda, axis),
                                {{"scores", scores_array.tensor()}, {"scale", lambda.values}}, true,
                                place);
            without_gil([&] {
                backend.softmax(scores_array.tensor(), lambda, scale_array.on_device(), axis,
                                result.tensor());
            });
            return result.object();
        },
        py::arg("scores"), py::arg("law"), py::arg("scale"), py::arg("axis"), py::arg("out"),
        py::arg("empty"));
}

template <class Backend>
void bind_attention_family(py::module_& module) {
    bind_attention<Backend>(module);
    bind_attention_backward<Backend>(module);
    bind_attention_varlen<Backend>(module);
    bind_merge_attention<Backend>(module);
    bind_softmax<Backend>(module);
}

}  // namespace slipstick::bind
