#include "mitchell/conv2d.hpp"

#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include "core/store.hpp"
#include "mitchell/conv2d_kernels.hpp"
#include "mitchell/geometry.hpp"
#include "mitchell/mitchell.hpp"
#include "mitchell/operands.hpp"
#include "mitchell/plan.hpp"
#include "mitchell/plan_rules.hpp"
#include "mitchell/ranges.hpp"

namespace slipstick::cpu::mitchell {
namespace {

constexpr const char* kFunction = "conv2d";
constexpr int64_t kPatchColumns = 64;        // outputs gathered at once: 64 KiB at 256 float32 deep
constexpr int64_t kSplitProducts = 1 << 22;  // 100 us: worth splitting one matrix product
constexpr int64_t kBandBytes = 128 << 10;    // of lines: a quarter of a 512 KiB second cache
constexpr int64_t kLongestBand = 1 << 20;    // bytes; one output row needing more goes to matrices
constexpr int64_t kLongestStride = 64;
constexpr int64_t kBandRows = 32;
constexpr int64_t kBandColumns = 1024;
constexpr int64_t kTaskProducts = 1 << 20;  // 100 us of line sums

int64_t round_up(int64_t value, int64_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

// An image tensor as (images, channels, rows, columns).
struct Images {
    char* data;
    Dtype dtype;
    int64_t image, channel, row, column;  // strides in elements

    explicit Images(const ConstTensor& tensor)
        : data(static_cast<char*>(const_cast<void*>(tensor.data))), dtype(tensor.dtype) {
        const int64_t* last = tensor.strides + tensor.rank;
        image = tensor.rank == 4 ? last[-4] : 0;
        channel = last[-3];
        row = last[-2];
        column = last[-1];
    }
    char* at(int64_t i, int64_t c, int64_t y, int64_t x) const {
        return data + (i * image + c * channel + y * row + x * column) * item_size(dtype);
    }
    // Whether rows follow one another as one line of `height` x `width` elements.
    bool is_flat(int64_t height, int64_t width) const {
        return height == 1 || row == column * width;
    }
};

// line[i] = row[first + i step], zero outside [0, size). Without a row all are zero.
template <class Bits>
void gather(const Bits* row, int64_t stride, int64_t size, int64_t first, int64_t step,
            int64_t count, Bits* line) {
    const int64_t begin =
        row == nullptr ? count : std::min(count, first < 0 ? (step - 1 - first) / step : 0);
    const int64_t inside = size - first;
    const int64_t end =
        std::max(begin, std::min(count, inside <= 0 ? 0 : (inside + step - 1) / step));
    std::fill(line, line + begin, Bits{0});
    std::fill(line + end, line + count, Bits{0});
    if (begin == end) return;
    const Bits* source = row + first * stride;
    if (stride * step == 1) {
        std::memcpy(line + begin, source + begin, static_cast<size_t>(end - begin) * sizeof(Bits));
    } else if (stride * step == 2) {  // a constant step: vector instructions
        for (int64_t i = begin; i < end; ++i) line[i] = source[2 * i];
    } else {
        for (int64_t i = begin; i < end; ++i) line[i] = source[i * step * stride];
    }
}

void gather_line(int64_t item, const void* row, int64_t stride, int64_t size, int64_t first,
                 int64_t step, int64_t count, void* line) {
    const auto run = [&]<class Bits>(Bits) {
        gather(static_cast<const Bits*>(row), stride, size, first, step, count,
               static_cast<Bits*>(line));
    };
    if (item == 1) return run(uint8_t{});
    if (item == 2) return run(uint16_t{});
    if (item == 4) return run(uint32_t{});
    run(uint64_t{});
}

// The weights as a matrix (o, c / groups kh kw) whose depth has one step; copied where it has not.
class Weights {
public:
    explicit Weights(const ConstTensor& weight) : item_(item_size(weight.dtype)) {
        const int64_t* size = weight.shape;
        const int64_t* step = weight.strides;
        data_ = static_cast<const char*>(weight.data);
        row_ = step[0];
        // Axes of length 1 have no say.
        std::optional<int64_t> expected;  // the step of the next axis outwards
        bool even = true;
        depth_ = 1;
        for (int axis = 3; axis >= 1; --axis) {
            if (size[axis] == 1) continue;
            if (expected) {
                even = even && step[axis] == *expected;
            } else {
                depth_ = step[axis];
            }
            expected = step[axis] * size[axis];
        }
        if (even) return;
        const int64_t lines = size[0] * size[1] * size[2];
        copy_.resize(static_cast<size_t>(lines * size[3] * item_));
        for (int64_t line = 0; line < lines; ++line) {
            const int64_t o = line / (size[1] * size[2]);
            const int64_t c = line / size[2] % size[1];
            const int64_t y = line % size[2];
            gather_line(item_, data_ + (o * step[0] + c * step[1] + y * step[2]) * item_, step[3],
                        size[3], 0, 1, size[3], copy_.data() + line * size[3] * item_);
        }
        data_ = copy_.data();
        row_ = size[1] * size[2] * size[3];
        depth_ = 1;
    }
    const char* at(int64_t output, int64_t k) const {
        return data_ + (output * row_ + k * depth_) * item_;
    }
    int64_t row_stride() const { return row_; }
    int64_t depth_stride() const { return depth_; }

private:
    int64_t item_;
    const char* data_;
    int64_t row_;
    int64_t depth_;
    std::vector<char> copy_;
};

// Everything that one call knows.
struct Convolution {
    Geometry g;
    Images x;
    Weights weights;
    Images out;
    Plan plan;
    const Method& method;

    int64_t item() const { return item_size(x.dtype); }
    const char* input_row(int64_t image, int64_t channel, int64_t y) const {
        return y < 0 || y >= g.height ? nullptr : x.at(image, channel, y, 0);
    }
    void store(int64_t image, int64_t output, int64_t y, int64_t column, int64_t rows,
               int64_t columns, const void* acc, int64_t acc_stride) const {
        store_scaled(
            acc, acc_stride, rows, columns, 1.0,
            {out.at(image, output, y, column), out.dtype, rows, columns, out.row, out.column}, 0,
            0);
    }
};

// --- As matrix products ---

// The patches of outputs [column, column + columns), elements [k, k + depth) of each:
// patch[k][column].
void gather_patches(const Convolution& c, int64_t image, int64_t first_channel, int64_t column,
                    int64_t columns, int64_t k, int64_t depth, char* patches) {
    const Geometry& g = c.g;
    for (int64_t d = k; d < k + depth; ++d) {
        const int64_t kernel_x = d % g.kernel_width;
        const int64_t kernel_y = d / g.kernel_width % g.kernel_height;
        const int64_t channel = first_channel + d / (g.kernel_width * g.kernel_height);
        for (int64_t done = 0; done < columns;) {
            const int64_t y = (column + done) / g.out_width;
            const int64_t x = (column + done) % g.out_width;
            const int64_t count = std::min(columns - done, g.out_width - x);
            const char* row = c.input_row(
                image, channel, y * g.stride[0] - g.padding[0] + kernel_y * g.dilation[0]);
            gather_line(c.item(), row, c.x.column, g.width,
                        x * g.stride[1] - g.padding[1] + kernel_x * g.dilation[1], g.stride[1],
                        count, patches + ((d - k) * columns + done) * c.item());
            done += count;
        }
    }
}

void multiply_patches(const Convolution& c, int64_t image, int64_t group) {
    const Geometry& g = c.g;
    const MatmulPath& path = *c.plan.path;
    const int64_t terms = c.plan.left.terms;
    const int64_t first_channel = group * g.channels;
    const int64_t first_output = group * g.outputs;
    const bool in_place = g.is_pointwise() && c.x.is_flat(g.height, g.width);
    const bool flat_out = c.out.is_flat(g.out_height, g.out_width);
    const MatmulProblem problem{.rows = g.outputs,
                                .depth = g.depth() * terms,
                                .columns = g.out_height * g.out_width,
                                .pack_columns = round_up(kPatchColumns, path.kernel.tile_columns)};
    cpu::matmul(
        path.kernel, &c.plan.mac, problem,
        [&](int64_t row, int64_t rows, int64_t k, int64_t depth, void* packed) {
            path.pack_left(c.plan.left, c.weights.at(first_output + row, k / terms),
                           c.weights.row_stride(), c.weights.depth_stride(), rows, depth, packed);
        },
        [&](int64_t column, int64_t columns, int64_t k, int64_t depth, void* packed) {
            if (in_place) {
                path.pack_right(c.plan.right, c.x.at(image, first_channel + k / terms, 0, column),
                                c.x.column, c.x.channel, columns, depth, packed);
                return;
            }
            const Scratch patches(columns * depth / terms * c.item());
            gather_patches(c, image, first_channel, column, columns, k / terms, depth / terms,
                           patches.as<char>());
            path.pack_right(c.plan.right, patches.as(), 1, columns, columns, depth, packed);
        },
        [&](int64_t row, int64_t rows, int64_t column, int64_t columns, const void* acc,
            int64_t acc_stride) {
            if (flat_out) {
                store_scaled(acc, acc_stride, rows, columns, 1.0,
                             {c.out.at(image, first_output + row, 0, 0), c.out.dtype, rows,
                              g.out_height * g.out_width, c.out.channel, c.out.column},
                             0, column);
                return;
            }
            for (int64_t done = 0; done < columns;) {
                const int64_t x = (column + done) % g.out_width;
                const int64_t count = std::min(columns - done, g.out_width - x);
                for (int64_t i = 0; i < rows; ++i) {
                    c.store(image, first_output + row + i, (column + done) / g.out_width, x, 1,
                            count,
                            static_cast<const char*>(acc) +
                                (i * acc_stride + done) * path.kernel.acc_bytes,
                            acc_stride);
                }
                done += count;
            }
        });
}

void convolve_matrices(const Convolution& c) {
    const int64_t count = c.g.images * c.g.groups;
    const auto run = [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) multiply_patches(c, i / c.g.groups, i % c.g.groups);
    };
    if (c.g.products() >= kSplitProducts) return run(0, count);
    const double grain = kSplitProducts / (c.g.products() + 1);
    parallel_for(count, std::max<int64_t>(1, static_cast<int64_t>(grain)), run);
}

// --- Along lines ---

// A band of output rows, and where its input lies once it has been gathered. For a stride s along
// the columns a line is kept as s lines, of the elements 0, s, 2s, ..., of 1, s + 1, ..., so that
// what neighbouring outputs read are neighbours.
struct Band {
    int64_t rows;     // output rows
    int64_t columns;  // output columns, in whole vectors
    int64_t pitch;    // elements of a line
    int64_t lines;    // input rows
    std::vector<int64_t> offsets;

    Band(const Geometry& g, int64_t lanes, int64_t unit, int64_t bytes) {
        columns = round_up(std::min(g.out_width, kBandColumns), lanes);
        pitch = round_up(columns + (g.kernel_width - 1) * g.dilation[1] / g.stride[1], unit);
        const int64_t line_bytes = g.channels * g.stride[1] * pitch * bytes;
        const int64_t span = (g.kernel_height - 1) * g.dilation[0] + 1;
        const int64_t fitting = (kBandBytes / line_bytes - span) / g.stride[0] + 1;
        rows = std::clamp<int64_t>(fitting, 1, std::min(kBandRows, g.out_height));
        lines = (rows - 1) * g.stride[0] + span;
    }
    double bytes(const Geometry& g, int64_t element) const {
        return static_cast<double>(g.channels) * static_cast<double>(lines) *
               static_cast<double>(g.stride[1]) * static_cast<double>(pitch * element);
    }
    int64_t elements(const Geometry& g) const { return g.channels * lines * g.stride[1] * pitch; }
    int64_t line_step(const Geometry& g) const { return g.stride[0] * g.stride[1] * pitch; }
    void find_offsets(const Geometry& g) {
        for (int64_t c = 0; c < g.channels; ++c) {
            for (int64_t y = 0; y < g.kernel_height; ++y) {
                for (int64_t x = 0; x < g.kernel_width; ++x) {
                    const int64_t along = x * g.dilation[1];
                    offsets.push_back(
                        ((c * lines + y * g.dilation[0]) * g.stride[1] + along % g.stride[1]) *
                            pitch +
                        along / g.stride[1]);
                }
            }
        }
    }
};

// Gathers the input of a band and hands each line to `take`(line of elements, index of the line).
template <class Take>
void gather_band(const Convolution& c, const Band& band, int64_t image, int64_t group, int64_t row,
                 int64_t column, char* line, Take take) {
    const Geometry& g = c.g;
    const int64_t phases =
        std::min(g.stride[1], (g.kernel_width - 1) * g.dilation[1] + 1);  // others are not read
    for (int64_t channel = 0; channel < g.channels; ++channel) {
        for (int64_t y = 0; y < band.lines; ++y) {
            const char* source = c.input_row(image, group * g.channels + channel,
                                             row * g.stride[0] - g.padding[0] + y);
            for (int64_t phase = 0; phase < phases; ++phase) {
                const int64_t index = (channel * band.lines + y) * g.stride[1] + phase;
                gather_line(c.item(), source, c.x.column, g.width,
                            column * g.stride[1] - g.padding[1] + phase, g.stride[1], band.pitch,
                            line);
                take(line, index);
            }
        }
    }
}

struct Task {
    int64_t image, group, row, rows, column, columns;
};

int64_t group_begin(const Task& task, const Geometry& g) { return task.group * g.outputs; }
int64_t group_end(const Task& task, const Geometry& g) { return group_begin(task, g) + g.outputs; }

void sum_band(const Convolution& c, const Band& band, LineSumsFn kernel, const Task& task) {
    const Geometry& g = c.g;
    const MatmulPath& path = *c.plan.path;
    const int64_t lane = path.kernel.right_bytes;
    const Scratch line(band.pitch * c.item());
    const Scratch lines(band.elements(g) * lane);
    const Scratch weights(g.depth() * path.kernel.tile_rows * path.kernel.left_bytes);
    const Scratch acc(task.rows * band.columns * path.kernel.acc_bytes);
    gather_band(c, band, task.image, task.group, task.row, task.column, line.as<char>(),
                [&](const char* elements, int64_t index) {
                    path.pack_right(c.plan.right, elements, 1, 0, band.pitch, 1,
                                    lines.as<char>() + index * band.pitch * lane);
                });
    for (int64_t output = group_begin(task, g); output < group_end(task, g); ++output) {
        path.pack_left(c.plan.left, c.weights.at(output, 0), c.weights.row_stride(),
                       c.weights.depth_stride(), 1, g.depth(), weights.as());
        kernel(c.plan.mac, {weights.as(), lines.as(), band.offsets.data(), g.depth(),
                            band.line_step(g), task.rows, band.columns, acc.as()});
        c.store(task.image, output, task.row, task.column, task.rows, task.columns, acc.as(),
                band.columns);
    }
}

// Products of any method, as `multiply` gives them.
void multiply_band(const Convolution& c, const Band& band, const Conv2d& kernels,
                   const Task& task) {
    const Geometry& g = c.g;
    const int64_t count = task.rows * task.columns;
    const Dtype product = product_dtype(c.x.dtype);
    const int64_t acc_bytes = c.plan.path->kernel.acc_bytes;
    const Scratch line(band.pitch * c.item());
    const Scratch lines(band.elements(g) * c.item());
    const Scratch products(count * item_size(product));
    const Scratch chain(count * acc_bytes);
    const Scratch total(count * acc_bytes);
    gather_band(c, band, task.image, task.group, task.row, task.column, line.as<char>(),
                [&](const char* elements, int64_t index) {
                    std::memcpy(lines.as<char>() + index * band.pitch * c.item(), elements,
                                static_cast<size_t>(band.pitch * c.item()));
                });
    const int64_t shape[] = {task.rows, task.columns};
    const int64_t one[] = {1, 1};
    const int64_t line_strides[] = {band.line_step(g), 1};
    const int64_t product_strides[] = {task.columns, 1};
    const Tensor target{{products.as(), product, 2, shape, product_strides}};
    for (int64_t output = group_begin(task, g); output < group_end(task, g); ++output) {
        std::memset(chain.as(), 0, static_cast<size_t>(count * acc_bytes));
        std::memset(total.as(), 0, static_cast<size_t>(count * acc_bytes));
        for (int64_t k = 0; k < g.depth(); ++k) {
            const ConstTensor weight{c.weights.at(output, k), c.x.dtype, 2, one, one};
            const ConstTensor elements{
                lines.as<char>() + band.offsets[static_cast<size_t>(k)] * c.item(), c.x.dtype, 2,
                shape, line_strides};
            multiply(weight, elements, c.method, target);
            kernels.add_products(products.as(), count, chain.as());
            if ((k + 1) % kDepthBlock == 0 || k + 1 == g.depth())
                kernels.add_chain(chain.as(), count, total.as());
        }
        c.store(task.image, output, task.row, task.column, task.rows, task.columns, total.as(),
                task.columns);
    }
}

// The line sums of the plan's path, or null where it has none.
LineSumsFn line_sums(const Plan& plan, Dtype dtype, const Conv2d& kernels) {
    const Matmul& paths = *active_mitchell_matmul_kernels().matmul[dtype];
    if (plan.path == &paths.sums) return kernels.sums;
    if (plan.path == &paths.low_sums) return kernels.low_sums;
    if (plan.path == &paths.flushed) return kernels.flushed;
    if (plan.path == &paths.low_flushed) return kernels.low_flushed;
    return nullptr;
}

// False where lines do not serve, and nothing is done.
bool convolve_lines(const Convolution& c) {
    const Geometry& g = c.g;
    const Conv2d& kernels = *active_mitchell_conv2d_kernels().conv2d[c.x.dtype];
    const LineSumsFn kernel = line_sums(c.plan, c.x.dtype, kernels);
    // Lines of every phase are kept: not for strides that read little of them.
    if (std::max(g.stride[0], g.stride[1]) > kLongestStride) return false;
    // Products that enter a sum unrounded are not those of `multiply`.
    const bool rounded =
        kernel != nullptr || !is_exact_in_disguise(c.x.dtype, c.method.kind, c.method.width);
    if (g.depth() == 0 || !rounded) return false;
    const int64_t element = kernel != nullptr ? c.plan.path->kernel.right_bytes : c.item();
    Band band(g, kernels.lanes, c.plan.path->kernel.tile_columns, element);
    if (band.bytes(g, element) > kLongestBand) return false;
    band.find_offsets(g);

    const int64_t bands = (g.out_height + band.rows - 1) / band.rows;
    const int64_t step = std::min(band.columns, g.out_width);
    const int64_t chunks = (g.out_width + step - 1) / step;
    const double products = static_cast<double>(g.outputs * g.depth() * band.rows * band.columns);
    parallel_for(g.images * g.groups * bands * chunks,
                 std::max<int64_t>(1, static_cast<int64_t>(kTaskProducts / products)),
                 [&](int64_t begin, int64_t end) {
                     for (int64_t i = begin; i < end; ++i) {
                         Task task{};
                         task.column = i % chunks * step;
                         task.columns = std::min(step, g.out_width - task.column);
                         task.row = i / chunks % bands * band.rows;
                         task.rows = std::min(band.rows, g.out_height - task.row);
                         task.group = i / (chunks * bands) % g.groups;
                         task.image = i / (chunks * bands * g.groups);
                         if (kernel != nullptr) {
                             sum_band(c, band, kernel, task);
                         } else {
                             multiply_band(c, band, kernels, task);
                         }
                     }
                 });
    return true;
}

}  // namespace

ResultSpec result_of_conv2d(const ConstTensor& x, const ConstTensor& weight,
                            const ConvOptions& options, const Method& method) {
    return result_of_conv2d(x, weight, options, method, cpu_sums());
}

void conv2d(const ConstTensor& x, const ConstTensor& weight, const ConvOptions& options,
            const Method& given, const Tensor& out) {
    if (out.size() == 0) return;
    const Method method = exchanged(given);  // the weights stand on the left: P(x, weight) turned
    const Geometry g = geometry_of(x, weight, options);
    Magnitudes in_x = magnitudes_of(x);
    in_x.zeros |= options.same_padding || g.padding[0] + g.padding[1] > 0;
    const Convolution c{
        g,
        Images(x),
        Weights(weight),
        Images(out),
        make_plan(x.dtype, method, magnitudes_of(weight), in_x, g.depth(), options.path, kFunction),
        method};
    // Few rows would leave most of a tile of a matrix product empty.
    const bool few = 3 * g.outputs <= c.plan.path->kernel.tile_rows;
    const bool lines = options.form == ConvForm::kLines || (options.form == ConvForm::kAuto && few);
    if (!(lines && convolve_lines(c))) convolve_matrices(c);
}

}  // namespace slipstick::cpu::mitchell
