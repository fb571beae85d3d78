// Attention and packed attention: which kernel computes a problem.
#include <algorithm>

#include "attention/cuda.hpp"
#include "attention/device_kernels.cuh"
#include "attention/prepare.cuh"
#include "core/error.hpp"

namespace slipstick::cuda::attention {
namespace {

void add_results(Problem& problem, const Target& out, const Stats* stats) {
    problem.out = out;
    if (stats == nullptr) return;
    problem.lse = row_target_of(stats->lse);
    problem.entropy = row_target_of(stats->entropy);
    problem.max_logit = row_target_of(stats->max_logit);
}

// Which of the sequences of a problem there are, by rows a key head: up to kFewRows, more.
struct Kinds {
    bool few;
    bool many;
};

Kinds kinds_of(const Problem& problem, const Bounds& bounds, const Packing& packing) {
    // Those that are not valid make one sequence of any length.
    if (bounds.queries_on_device || bounds.keys_on_device) return {true, true};
    Kinds kinds{};
    for (size_t s = 1; s < packing.queries.size(); ++s) {
        const int64_t rows = problem.group * (packing.queries[s] - packing.queries[s - 1]);
        kinds.few |= rows > 0 && rows <= kFewRows;
        kinds.many |= rows > kFewRows;
    }
    return kinds;
}

Kinds kinds_of(const Problem& problem) {
    const bool few = problem.group * problem.queries <= kFewRows;
    return {few, !few};
}

void forward(const Context& context, Problem problem, const Kinds& kinds) {
    const bool half = item_size(problem.dtype) == 2;
    if (kinds.few) (half ? few_rows_mma : few_rows_simt)(context, problem);
    if (!kinds.many) return;
    if (problem.is_packed()) problem.few_queries = kFewRows / problem.group;
    if (hopper_serves(context, problem)) return forward_hopper(context, problem);
    (half ? forward_mma : forward_simt)(context, problem);
}

using slipstick::attention::Shape;

void check_columns(const char* function, const char* name, const ConstTensor& tensor,
                   int64_t columns) {
    if (columns <= kMostColumns) return;
    refuse_value(function, "`", name, "` must have at most ", kMostColumns,
                 " columns on CUDA, got shape ", shape_text(tensor));
}

void check_shape(const char* function, const Inputs& inputs, const Shape& shape,
                 const char* tokens) {
    check_columns(function, "query", inputs.query, shape.dim);
    check_columns(function, "value", inputs.value, shape.dim_v);
    const int64_t group = std::max<int64_t>(1, shape.group());
    if (shape.queries > kMostRows / group) {
        refuse_value(function, "`query` must have at most ", kMostRows / group, " ", tokens,
                     " on CUDA, with ", group, " heads to each of `key`, got shape ",
                     shape_text(inputs.query));
    }
    if (shape.keys > kMostRows) {
        refuse_value(function, "`key` must have at most ", kMostRows, " ", tokens,
                     " on CUDA, got shape ", shape_text(inputs.key));
    }
}

}  // namespace

std::vector<std::string> kernels(int major, int minor) {
    if (major < 8) return {"none: they are for compute capability 8.0 and later"};
    std::vector<std::string> lines;
    if (has_hopper_kernel(major, minor)) {
        lines.emplace_back(
            "float16, bfloat16: wgmma (forward without mask and softcap, head sizes that are "
            "multiples of 8 up to 128)");
    }
    lines.emplace_back("float16, bfloat16: mma.sync (forward, decode, backward)");
    lines.emplace_back("float32, float64: multiply-adds (forward, decode, backward)");
    return lines;
}

void check_sizes(const char* function, const Inputs& inputs) {
    check_shape(function, inputs, slipstick::attention::shape_of(inputs), "rows");
}

void check_packed_sizes(const Inputs& inputs) {
    check_shape("attention_varlen", inputs, slipstick::attention::packed_shape_of(inputs),
                "tokens");
}

void attention(const Context& context, const Inputs& inputs, const Options& options,
               const Tensor& out, const Stats* stats) {
    if (stats != nullptr ? stats->lse.size() == 0 : out.size() == 0) return;
    const DeviceGuard guard(context, "attention");
    Problem problem = prepare(context, Caller::kAttention, inputs, options);
    add_results(problem, target_of(out), stats);
    forward(context, problem, kinds_of(problem));
}

void attention_varlen(const Context& context, const Inputs& inputs, const Bounds& bounds,
                      const Packing& packing, const Options& options, const Tensor& out,
                      const Stats* stats) {
    if (stats != nullptr ? stats->lse.size() == 0 : out.size() == 0) return;
    const DeviceGuard guard(context, "attention_varlen");
    Problem problem = prepare_packed(context, inputs, bounds, packing, options);
    const Target out_target{out.mutable_data(), 0, out.strides[1], out.strides[0], out.strides[2]};
    add_results(problem, out_target, stats);
    forward(context, problem, kinds_of(problem, bounds, packing));
}

}  // namespace slipstick::cuda::attention
