// Gradients: what each row needs first, then the kernels that the dtype takes, then the scale's.
#include "attention/cuda.hpp"
#include "attention/device_kernels.cuh"
#include "attention/prepare.cuh"
#include "attention/view.hpp"
#include "core/launch.cuh"

namespace slipstick::cuda::attention {
namespace {

using slipstick::attention::View;

constexpr const char* kFunction = "attention_backward";
constexpr int kThreads = 256;

struct Sizes {
    int64_t batch;
    int64_t heads;
    int64_t rows;
    int64_t columns;
};

template <class T>
__global__ void __launch_bounds__(kThreads) clear_elements(Target target, Sizes sizes) {
    int64_t at = int64_t{blockIdx.x} * kThreads + threadIdx.x;
    if (at >= sizes.batch * sizes.heads * sizes.rows * sizes.columns) return;
    const int64_t column = at % sizes.columns;
    at /= sizes.columns;
    const int64_t row = at % sizes.rows;
    at /= sizes.rows;
    *target.at<T>(at / sizes.heads, at % sizes.heads, row, column) = T{0};
}

// Where there are no rows or no keys.
void clear(const Context& context, const Tensor& tensor) {
    const int64_t count = tensor.size();
    if (count == 0) return;
    const View<4> view(tensor);
    const Sizes sizes{view.shape[0], view.shape[1], view.shape[2], view.shape[3]};
    const auto blocks = static_cast<unsigned>(ceil_div(count, kThreads));
    const auto run = [&](auto kernel) {
        launch(context, kFunction, kernel, blocks, kThreads, 0, target_of(tensor), sizes);
    };
    switch (item_size(tensor.dtype)) {
        case 8:
            return run(clear_elements<uint64_t>);
        case 4:
            return run(clear_elements<uint32_t>);
        default:
            return run(clear_elements<uint16_t>);
    }
}

template <class Acc>
BackwardRows<Acc> allocate_rows(const Context& context, int64_t rows, bool has_grad_entropy) {
    BackwardRows<Acc> result{};
    result.factor = context.memory->allocate_array<Acc>(rows);
    result.lse = context.memory->allocate_array<Acc>(rows);
    result.constant = context.memory->allocate_array<Acc>(rows);
    if (has_grad_entropy) result.grad_entropy = context.memory->allocate_array<Acc>(rows);
    result.grad_factor = context.memory->allocate_array<double>(rows);
    return result;
}

void run_kernels(const Context& context, const BackwardProblem& problem,
                 const BackwardRows<float>& rows) {
    backward_rows(context, problem, rows);
    if (item_size(problem.forward.dtype) == 2) {
        backward_mma(context, problem, rows);
    } else {
        backward_simt(context, problem, rows);
    }
}

void run_kernels(const Context& context, const BackwardProblem& problem,
                 const BackwardRows<double>& rows) {
    backward_rows(context, problem, rows);
    backward_simt(context, problem, rows);
}

template <class Acc>
void run(const Context& context, const BackwardProblem& problem, const Tensor* grad_scale) {
    const int64_t rows =
        problem.forward.sequences * problem.forward.heads * problem.forward.queries;
    const auto buffers = allocate_rows<Acc>(context, rows, problem.grad_entropy.data != nullptr);
    run_kernels(context, problem, buffers);
    if (grad_scale == nullptr) return;
    const View<3> view(*grad_scale);
    scale_gradient(context, problem, buffers.grad_factor, row_target_of(*grad_scale),
                   view.shape.data(), grad_scale->dtype);
}

Operand optional_rows(const ConstTensor* tensor) {
    return tensor == nullptr ? Operand{} : row_operand_of(*tensor);
}

}  // namespace

void attention_backward(const Context& context, const Inputs& inputs, const Options& options,
                        const Returned& returned, const Gradients& gradients) {
    const DeviceGuard guard(context, kFunction);
    const slipstick::attention::Shape shape = slipstick::attention::shape_of(inputs);
    if (returned.lse.size() == 0 || shape.keys == 0) {
        for (const Tensor* gradient : {&gradients.query, &gradients.key, &gradients.value})
            clear(context, *gradient);
        if (gradients.scale != nullptr) clear(context, *gradients.scale);
        return;
    }
    const BackwardProblem problem{
        .forward = prepare(context, Caller::kAttentionBackward, inputs, options),
        .out = operand_of(returned.out),
        .lse = row_operand_of(returned.lse),
        .entropy = row_operand_of(returned.entropy),
        .grad_out = operand_of(returned.grad_out),
        .grad_lse = optional_rows(returned.grad_lse),
        .grad_entropy = optional_rows(returned.grad_entropy),
        .grad_query = target_of(gradients.query),
        .grad_key = target_of(gradients.key),
        .grad_value = target_of(gradients.value)};
    if (inputs.query.dtype == Dtype::kFloat64) {
        run<double>(context, problem, gradients.scale);
    } else {
        run<float>(context, problem, gradients.scale);
    }
}

}  // namespace slipstick::cuda::attention
