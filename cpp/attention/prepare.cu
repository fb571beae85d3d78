#include "attention/prepare.cuh"

#include <algorithm>

#include "attention/mask_counts.cuh"
#include "attention/numbers.hpp"
#include "attention/packed.hpp"
#include "attention/view.hpp"
#include "core/launch.cuh"
#include "core/upload.cuh"

namespace slipstick::cuda::attention {
namespace {

using slipstick::attention::float_at;
using slipstick::attention::HeadsFirst;
using slipstick::attention::integer_at;
using slipstick::attention::OnDevice;
using slipstick::attention::Shape;
using slipstick::attention::View;

constexpr int kThreads = 256;
constexpr int64_t kLargestCount = int64_t{1} << 53;

// --- Integers on the device ---

struct Integers {
    const void* data;
    Dtype dtype;
    int64_t rows;
    int64_t columns;
    int64_t row_step;
    int64_t column_step;
};

template <class T>
__device__ __forceinline__ int64_t read_as(const void* data, int64_t index) {
    return static_cast<int64_t>(static_cast<const T*>(data)[index]);
}

// Numbers beyond int64 become negative.
__device__ __forceinline__ int64_t read_integer(const Integers& source, int64_t row,
                                                int64_t column) {
    const int64_t at = row * source.row_step + column * source.column_step;
    switch (source.dtype) {
        case Dtype::kInt8:
            return read_as<int8_t>(source.data, at);
        case Dtype::kInt16:
            return read_as<int16_t>(source.data, at);
        case Dtype::kInt32:
            return read_as<int32_t>(source.data, at);
        case Dtype::kUInt8:
            return read_as<uint8_t>(source.data, at);
        case Dtype::kUInt16:
            return read_as<uint16_t>(source.data, at);
        case Dtype::kUInt32:
            return read_as<uint32_t>(source.data, at);
        default:  // int64 and uint64
            return read_as<int64_t>(source.data, at);
    }
}

// Row after row; -1 for what is not from 0 to `highest`.
__global__ void __launch_bounds__(kThreads)
    copy_integers(Integers source, int64_t highest, int64_t* target) {
    const int64_t at = int64_t{blockIdx.x} * kThreads + threadIdx.x;
    if (at >= source.rows * source.columns) return;
    const int64_t number = read_integer(source, at / source.columns, at % source.columns);
    target[at] = number >= 0 && number <= highest ? number : -1;
}

// `view` has the axes (rows, columns).
const int64_t* prepare_integers(const Context& context, const char* function, const View<2>& view,
                                bool on_device, int64_t highest) {
    const int64_t count = view.shape[0] * view.shape[1];
    if (!on_device) {
        std::vector<int64_t> numbers;
        numbers.reserve(static_cast<size_t>(count));
        for (int64_t i = 0; i < view.shape[0]; ++i) {
            for (int64_t j = 0; j < view.shape[1]; ++j) {
                // Clamped again: the caller may have written to the array since it was checked.
                numbers.push_back(std::clamp<int64_t>(
                    integer_at(view.data, view.dtype, view.offset(i, j)), 0, highest));
            }
        }
        return upload(context, function, numbers);
    }
    auto* const target = context.memory->allocate_array<int64_t>(count);
    const Integers source{view.data,     view.dtype,      view.shape[0],
                          view.shape[1], view.strides[0], view.strides[1]};
    if (count > 0) {
        launch(context, function, copy_integers, static_cast<unsigned>(ceil_div(count, kThreads)),
               kThreads, 0, source, highest, target);
    }
    return target;
}

// --- Packed sequences ---

struct BoundsCheck {
    Integers queries;
    Integers keys;
    int64_t sequences;
    int64_t total_queries;
    int64_t total_keys;
    bool one_each;  // each sequence has to have one query
};

__device__ __forceinline__ bool is_bound(const Integers& bounds, int64_t i, int64_t last,
                                         int64_t total, int64_t bound) {
    const int64_t least = i == 0 ? 0 : read_integer(bounds, i - 1, 0);
    return bound >= least && bound <= total && (i > 0 || bound == 0) &&
           (i < last || bound == total);
}

// One block. The first of the queries' bounds becomes -1 where either list is not as it has to be.
__global__ void __launch_bounds__(kThreads)
    read_bounds(BoundsCheck check, int64_t* queries, int64_t* keys) {
    __shared__ unsigned wrong;
    if (threadIdx.x == 0) wrong = 0;
    __syncthreads();
    for (int64_t i = threadIdx.x; i <= check.sequences; i += kThreads) {
        queries[i] = read_integer(check.queries, i, 0);
        keys[i] = read_integer(check.keys, i, 0);
        bool right = is_bound(check.queries, i, check.sequences, check.total_queries, queries[i]) &&
                     is_bound(check.keys, i, check.sequences, check.total_keys, keys[i]);
        if (check.one_each && i > 0)
            right &= queries[i] - read_integer(check.queries, i - 1, 0) == 1;
        if (!right) atomicOr(&wrong, 1u);
    }
    __syncthreads();
    if (threadIdx.x == 0 && wrong != 0) queries[0] = -1;
}

// One block: the running sum of the sequences' tiles, kThreads sequences at a time.
__global__ void __launch_bounds__(kThreads)
    find_tiles(const int64_t* bounds, int64_t sequences, int64_t group, int64_t tile_rows,
               int64_t* starts) {
    __shared__ int64_t sums[2][kThreads];
    if (bounds[0] < 0) return;
    const auto thread = static_cast<int>(threadIdx.x);
    int64_t before = 0;
    for (int64_t first = 0; first < sequences; first += kThreads) {
        const int64_t s = first + thread;
        const int64_t own =
            s < sequences ? ceil_div((bounds[s + 1] - bounds[s]) * group, tile_rows) : 0;
        int at = 0;
        sums[at][thread] = own;
        __syncthreads();
        for (int step = 1; step < kThreads; step *= 2, at ^= 1) {
            sums[at ^ 1][thread] =
                sums[at][thread] + (thread >= step ? sums[at][thread - step] : 0);
            __syncthreads();
        }
        if (s < sequences) starts[s] = before + sums[at][thread] - own;
        before += sums[at][kThreads - 1];
        __syncthreads();
    }
    if (thread == 0) starts[sequences] = before;
}

Integers column_of(const ConstTensor& tensor) {
    return {tensor.data, tensor.dtype, tensor.shape[0], 1, tensor.strides[0], 0};
}

Integers column_of(const int64_t* numbers, int64_t count) {
    return {numbers, Dtype::kInt64, count, 1, 1, 0};
}

void prepare_bounds(const Context& context, Problem& problem, const Bounds& bounds,
                    const Packing& packing, bool one_each) {
    const int64_t count = packing.sequences + 1;
    if (!bounds.queries_on_device && !bounds.keys_on_device) {
        std::vector<int64_t> both = packing.queries;
        both.insert(both.end(), packing.keys.begin(), packing.keys.end());
        problem.bounds_q = upload(context, problem.function, both);
        problem.bounds_k = problem.bounds_q + count;
        return;
    }
    const auto source = [&](const ConstTensor& tensor, bool on_device,
                            const std::vector<int64_t>& read) {
        return on_device ? column_of(tensor)
                         : column_of(upload(context, problem.function, read), count);
    };
    const BoundsCheck check{source(bounds.queries, bounds.queries_on_device, packing.queries),
                            source(bounds.keys, bounds.keys_on_device, packing.keys),
                            packing.sequences,
                            problem.queries,
                            problem.keys,
                            one_each};
    auto* const queries = context.memory->allocate_array<int64_t>(2 * count);
    launch(context, problem.function, read_bounds, 1, kThreads, 0, check, queries, queries + count);
    problem.bounds_q = queries;
    problem.bounds_k = queries + count;
}

// --- The rest ---

template <class Data>
Steps<Data> steps_of(Data* data, const View<4>& view) {
    return {data, view.strides[0], view.strides[1], view.strides[2], view.strides[3]};
}
template <class Data>
Steps<Data> steps_of(Data* data, const View<3>& view) {
    return {data, view.strides[0], view.strides[1], view.strides[2], 0};
}

// lambda as given, from the host: what a broadcast array holds goes up once.
void upload_given(const Context& context, Problem& problem, const View<3>& view) {
    std::array<int64_t, 3> sizes;
    int64_t count = 1;
    for (size_t axis = 0; axis < 3; ++axis) {
        sizes[axis] = view.strides[axis] == 0 ? 1 : view.shape[axis];
        count *= sizes[axis];
    }
    std::vector<double> numbers;
    numbers.reserve(static_cast<size_t>(count));
    for (int64_t b = 0; b < sizes[0]; ++b)
        for (int64_t h = 0; h < sizes[1]; ++h)
            for (int64_t i = 0; i < sizes[2]; ++i)
                numbers.push_back(float_at(view.data, view.dtype, view.offset(b, h, i)));
    problem.given_dtype = Dtype::kFloat64;
    if (count == 1) {
        problem.numbers[0] = numbers[0];
        return;
    }
    problem.given = {upload(context, problem.function, numbers),
                     sizes[0] == 1 ? 0 : sizes[1] * sizes[2], sizes[1] == 1 ? 0 : sizes[2],
                     sizes[2] == 1 ? 0 : int64_t{1}, 0};
}

void prepare_scale(const Context& context, Problem& problem, const Scale& scale, bool on_device) {
    problem.law = scale.law;
    const ConstTensor& values = scale.values;
    if (scale.law == Law::kGiven) {
        const View<3> view(values);
        if (on_device) {
            problem.given = steps_of(static_cast<const void*>(values.data), view);
            problem.given_dtype = values.dtype;
        } else {
            upload_given(context, problem, view);
        }
        return;
    }
    const int64_t heads = values.shape[0];
    const int64_t count = values.shape[1];
    if (on_device) {
        problem.parameters = values.as<double>();
        problem.parameters_head = heads == 1 ? 0 : values.strides[0];
        return;
    }
    std::vector<double> numbers;
    for (int64_t h = 0; h < heads; ++h) {
        const double* const row = values.as<double>() + h * values.strides[0];
        numbers.insert(numbers.end(), row, row + count);
    }
    if (heads == 1) {
        std::copy(numbers.begin(), numbers.end(), problem.numbers);
    } else {
        problem.parameters = upload(context, problem.function, numbers);
        problem.parameters_head = count;
    }
}

// n_keys as (sequences or 1, tokens or 1).
void prepare_n_keys(const Context& context, Problem& problem, const Options& options,
                    bool by_sequence) {
    View<2> view(*options.n_keys);
    if (options.n_keys->rank == 1 && by_sequence) {
        std::swap(view.shape[0], view.shape[1]);
        std::swap(view.strides[0], view.strides[1]);
    }
    problem.n_keys =
        prepare_integers(context, problem.function, view, options.on_device.n_keys, kLargestCount);
    problem.n_keys_sequence = view.shape[0] == 1 ? 0 : view.shape[1];
    problem.n_keys_token = view.shape[1] == 1 ? 0 : 1;
}

Problem common_problem(const Context& context, Caller caller, const Inputs& inputs,
                       const Shape& shape, const Options& options, bool by_sequence) {
    Problem problem{};
    problem.function = {caller};
    problem.dtype = inputs.query.dtype;
    problem.sequences = shape.batch;
    problem.heads = shape.heads;
    problem.kv_heads = shape.kv_heads;
    problem.group = shape.group();
    problem.queries = shape.queries;
    problem.keys = shape.keys;
    problem.dim = static_cast<int>(shape.dim);
    problem.dim_v = static_cast<int>(shape.dim_v);
    problem.query = operand_of(inputs.query);
    problem.key = operand_of(inputs.key);
    problem.value = operand_of(inputs.value);
    problem.window = slipstick::attention::window_of(options, shape);
    problem.softcap = options.softcap;
    prepare_scale(context, problem, options.scale, options.on_device.scale);
    if (options.n_keys != nullptr) prepare_n_keys(context, problem, options, by_sequence);
    return problem;
}

}  // namespace

Operand operand_of(const ConstTensor& tensor) {
    return steps_of(static_cast<const void*>(tensor.data), View<4>(tensor));
}
Target target_of(const Tensor& tensor) { return steps_of(tensor.mutable_data(), View<4>(tensor)); }
Operand row_operand_of(const ConstTensor& tensor) {
    return steps_of(static_cast<const void*>(tensor.data), View<3>(tensor));
}
Target row_target_of(const Tensor& tensor) {
    return steps_of(tensor.mutable_data(), View<3>(tensor));
}

Problem prepare(const Context& context, Caller caller, const Inputs& inputs,
                const Options& options) {
    const Shape shape = slipstick::attention::shape_of(inputs);
    Problem problem =
        common_problem(context, caller, inputs, shape, options, inputs.query.rank == 4);
    if (options.key_lengths != nullptr) {
        View<2> view(*options.key_lengths);  // (1, batch or 1)
        view.shape[1] = shape.batch;
        problem.lengths = prepare_integers(context, problem.function, view,
                                           options.on_device.key_lengths, shape.keys);
    }
    if (options.mask != nullptr) {
        problem.mask = operand_of(*options.mask);
        problem.mask_dtype = options.mask->dtype;
        count_mask(context, problem);
    }
    return problem;
}

Problem prepare_packed(const Context& context, const Inputs& inputs, const Bounds& bounds,
                       const Packing& packing, const Options& options) {
    const Shape shape = slipstick::attention::packed_shape_of(inputs);
    const HeadsFirst query(inputs.query);
    const HeadsFirst key(inputs.key);
    const HeadsFirst value(inputs.value);
    const bool by_sequence = options.n_keys != nullptr && slipstick::attention::is_by_sequence(
                                                              *options.n_keys, packing.sequences);
    Problem problem = common_problem(context, Caller::kAttentionVarlen, {query, key, value}, shape,
                                     options, by_sequence);
    problem.sequences = packing.sequences;
    prepare_bounds(
        context, problem, bounds, packing,
        slipstick::attention::is_ambiguous(options.n_keys, packing.sequences, shape.queries));
    return problem;
}

Problem prepare_tiles(const Context& context, Problem problem, int64_t tile_rows) {
    if (!problem.is_packed()) return problem;
    auto* const starts = context.memory->allocate_array<int64_t>(problem.sequences + 1);
    launch(context, problem.function, find_tiles, 1, kThreads, 0, problem.bounds_q,
           problem.sequences, problem.group, tile_rows, starts);
    problem.tile_starts = starts;
    return problem;
}

}  // namespace slipstick::cuda::attention
