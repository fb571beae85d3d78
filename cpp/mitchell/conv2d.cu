// Convolutions: products of the weights with the patches of every image, which are gathered where
// they are needed.
#include <optional>

#include "mitchell/geometry.hpp"
#include "mitchell/lookup.cuh"
#include "mitchell/sum_products.cuh"

namespace slipstick::cuda::mitchell {
namespace {

using slipstick::mitchell::Geometry;

constexpr const char* kFunction = "conv2d";
constexpr int kTapThreads = 128;

// Steps along channels, rows and columns, and how far a kernel's elements are apart.
struct TapSteps {
    int64_t channel, row, column;
    int64_t dilation[2];
};

// Where the elements of a patch, or the weights that meet them, lie: taps[(c kh + y) kw + x].
__global__ void __launch_bounds__(kTapThreads)
    tap_kernel(TapSteps steps, int64_t depth, int64_t kernel_height, int64_t kernel_width,
               Tap* taps) {
    const int64_t step = int64_t{gridDim.x} * kTapThreads;
    int64_t k = int64_t{blockIdx.x} * kTapThreads + threadIdx.x;
    for (; k < depth; k += step) {
        const int64_t line = k / kernel_width;
        const int64_t channel = line / kernel_height;
        const int64_t y = (line - channel * kernel_height) * steps.dilation[0];
        const int64_t x = (k - line * kernel_width) * steps.dilation[1];
        taps[k] = {channel * steps.channel + y * steps.row + x * steps.column, y, x};
    }
}

const Tap* make_taps(const Context& context, const Geometry& g, const TapSteps& steps) {
    const int64_t depth = g.depth();
    if (depth == 0) return nullptr;
    Tap* const taps = context.memory->allocate_array<Tap>(depth);
    const auto blocks = static_cast<unsigned>(std::min<int64_t>(ceil_div(depth, kTapThreads), 256));
    launch(context, kFunction, tap_kernel, blocks, kTapThreads, 0, steps, depth, g.kernel_height,
           g.kernel_width, taps);
    return taps;
}

// The step from one weight of an output to the next, or nothing where there is not one step; axes
// of length 1 have no say.
std::optional<int64_t> even_step(const ConstTensor& weight) {
    std::optional<int64_t> step;
    int64_t expected = 0;  // of the next axis outwards
    for (int axis = 3; axis >= 1; --axis) {
        if (weight.shape[axis] == 1) continue;
        if (!step) {
            step = weight.strides[axis];
        } else if (weight.strides[axis] != expected) {
            return {};
        }
        expected = weight.strides[axis] * weight.shape[axis];
    }
    return step.value_or(1);
}

// The weights of a group as (outputs, c kh kw).
Operand weights_of(const Context& context, const ConstTensor& weight, const Geometry& g) {
    Operand operand{};
    operand.data = weight.data;
    operand.line = weight.strides[0];
    if (const auto step = even_step(weight)) {
        operand.depth = *step;
        return operand;
    }
    operand.taps =
        make_taps(context, g, {weight.strides[1], weight.strides[2], weight.strides[3], {1, 1}});
    // As patches: every output is an image's row.
    operand.width = 1;
    operand.stride[0] = 1;
    operand.size[0] = weight.shape[0] + g.kernel_height;
    operand.size[1] = g.kernel_width;
    operand.step[0] = weight.strides[0];
    return operand;
}

// The patches of an image and a group as (c kh kw, outputs of a channel).
Operand patches_of(const Context& context, const ConstTensor& x, const Geometry& g) {
    const int64_t* const steps = x.strides + x.rank;
    Operand operand{};
    operand.data = x.data;
    const bool flat = g.height == 1 || steps[-2] == steps[-1] * g.width;
    if (g.is_pointwise() && flat) {
        operand.line = steps[-1];
        operand.depth = steps[-3];
        return operand;
    }
    operand.taps =
        make_taps(context, g, {steps[-3], steps[-2], steps[-1], {g.dilation[0], g.dilation[1]}});
    operand.width = g.out_width;
    operand.size[0] = g.height;
    operand.size[1] = g.width;
    operand.step[0] = steps[-2];
    operand.step[1] = steps[-1];
    for (size_t i = 0; i < 2; ++i) {
        operand.stride[i] = g.stride[i];
        operand.origin[i] = -g.padding[i];
    }
    return operand;
}

}  // namespace

void conv2d(const Context& context, const ConstTensor& x, const ConstTensor& weight,
            const ConvOptions& options, const Method& method, const Tensor& out) {
    if (out.size() == 0) return;
    const DeviceGuard guard(context, kFunction);
    const Geometry g = slipstick::mitchell::geometry_of(x, weight, options);
    const int64_t depth = g.depth();
    const int64_t* const x_steps = x.strides + x.rank;
    const int64_t* const out_steps = out.strides + out.rank;
    // The weights stand on the left, as on the CPU.
    SumProblem problem{};
    problem.exchanged = true;
    problem.rows = g.outputs;
    problem.columns = g.out_height * g.out_width;
    problem.batches.append(g.images, 0, x.rank == 4 ? x_steps[-4] : 0,
                           x.rank == 4 ? out_steps[-4] : 0);
    problem.batches.append(g.groups, g.outputs * weight.strides[0], g.channels * x_steps[-3],
                           g.outputs * out_steps[-3]);
    problem.left = weights_of(context, weight, g);
    problem.right = patches_of(context, x, g);
    set_access(problem.left, x.dtype, problem.rows, depth, problem.batches, problem.batches.left);
    set_access(problem.right, x.dtype, problem.columns, depth, problem.batches,
               problem.batches.right);
    problem.out.data = out.mutable_data();
    problem.out.dtype = out.dtype;
    problem.out.scale = 1;
    problem.out.row = out_steps[-3];
    problem.out.column = out_steps[-1];
    const bool flat = g.out_height == 1 || out_steps[-2] == out_steps[-1] * g.out_width;
    problem.out.width = flat ? 0 : g.out_width;
    problem.out.line = out_steps[-2];

    const slipstick::mitchell::Method& description = method.description;
    problem.product = {x.dtype,
                       description.kind,
                       description.width,
                       description.bias,
                       device_parameters(context, kFunction, x.dtype, method),
                       depth,
                       options.path};
    const unsigned lookup = 1u << static_cast<int>(Kernel::kLookup);
    if (slipstick::mitchell::candidates(problem.product) == lookup) {
        // A table's first operand is the image.
        Batches turned = problem.batches;
        std::swap(turned.left, turned.right);
        const Target& target = problem.out;
        const LookupProblem lookups{
            {problem.right, problem.columns, {target.column, target.width, target.line}},
            {problem.left, problem.rows, {target.row, 0, 0}},
            depth,
            static_cast<uint32_t*>(out.mutable_data()),
            turned};
        return multiply_by_lookup(context, kFunction, x.dtype, description.kind,
                                  problem.product.parameters, lookups);
    }
    const bool padded = options.same_padding || g.padding[0] + g.padding[1] > 0;
    problem.choices = choose_kernels(context, kFunction, problem.product, {weight, 0},
                                     {x, 0, padded}, 0, nullptr);
    sum_products(context, kFunction, problem);
}

}  // namespace slipstick::cuda::mitchell
