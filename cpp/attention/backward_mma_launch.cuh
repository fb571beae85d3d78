// How the backward kernels on tensor cores are launched for one type of elements.
#pragma once

#include <cmath>

#include "attention/backward_mma.cuh"

namespace slipstick::cuda::attention {

template <class T, class Shape, Gradient gradient, bool full>
void launch_backward(const Context& context, const BackwardArguments& arguments) {
    const Problem& problem = arguments.problem;
    constexpr bool owns_keys = gradient != Gradient::kQuery;
    const int64_t lines = owns_keys ? problem.keys : problem.group * problem.queries;
    const int64_t blocks =
        ceil_div(lines, int64_t{Shape::kOwned}) * problem.kv_heads * problem.sequences;
    if (blocks == 0) return;
    launch(context, problem.function, &backward_kernel<T, Shape, gradient, full>,
           dim3(static_cast<unsigned>(blocks)), dim3(Shape::kThreads),
           backward_shared_bytes<Shape>(arguments.stages, owns_keys), arguments);
}

template <class T, class Shape, bool full>
void launch_backward(const Context& context, BackwardArguments arguments) {
    // Two stages where a block can have as much: of less than 100 KiB there is room for one.
    const int most = device_attribute(context, cudaDevAttrMaxSharedMemoryPerBlockOptin,
                                      arguments.problem.function);
    const size_t wanted =
        std::max(backward_shared_bytes<Shape>(2, true), backward_shared_bytes<Shape>(2, false));
    arguments.stages = wanted <= static_cast<size_t>(most) ? 2 : 1;
    if constexpr (Shape::kWidth <= 128) {
        launch_backward<T, Shape, Gradient::kKeyAndValue, full>(context, arguments);
    } else {
        launch_backward<T, Shape, Gradient::kKey, full>(context, arguments);
        launch_backward<T, Shape, Gradient::kValue, full>(context, arguments);
    }
    launch_backward<T, Shape, Gradient::kQuery, full>(context, arguments);
}

template <class T>
void run_backward_mma(const Context& context, const BackwardProblem& problem,
                      const BackwardRows<float>& rows) {
    const Problem& forward = problem.forward;
    const double usual = std::sqrt(static_cast<double>(std::max(forward.dim, 1)));
    const BackwardArguments arguments{
        .problem = forward,
        .grad_out_rows = problem.grad_out,
        .query = tile_source(forward.query, forward.dim),
        .key = tile_source(forward.key, forward.dim),
        .value = tile_source(forward.value, forward.dim_v),
        .grad_out = tile_source(problem.grad_out, forward.dim_v),
        .grad_query = problem.grad_query,
        .grad_key = problem.grad_key,
        .grad_value = problem.grad_value,
        .rows = rows,
        .inverse_cap = forward.softcap == 0 ? 0.0f : static_cast<float>(1.0 / forward.softcap),
        .key_unit = static_cast<float>(std::exp2(std::round(std::log2(usual)))),
        .stages = 1,
        .grad_query_aligned = has_aligned_rows(problem.grad_query, forward.dim),
        .grad_key_aligned = has_aligned_rows(problem.grad_key, forward.dim),
        .grad_value_aligned = has_aligned_rows(problem.grad_value, forward.dim_v)};
    const bool full =
        forward.has_mask() || forward.softcap != 0 || problem.grad_entropy.data != nullptr;
    const int width = std::max(forward.dim, forward.dim_v);
    const auto run = [&]<class Shape>(Shape) {
        // Wide heads have one kernel for all options, which saves a quarter of the compilation.
        if constexpr (Shape::kWidth <= 128) {
            if (!full) return launch_backward<T, Shape, false>(context, arguments);
        }
        launch_backward<T, Shape, true>(context, arguments);
    };
    if (width <= 64) {
        run(NarrowShape{});
    } else if (width <= 128) {
        run(MiddleShape{});
    } else {
        run(WideShape{});
    }
}

}  // namespace slipstick::cuda::attention
