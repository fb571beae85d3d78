#include "projection/projection.hpp"

#include <algorithm>

#include "core/error.hpp"
#include "core/store.hpp"
#include "projection/kernels.hpp"

namespace slipstick::cpu::projection {
namespace {

const Product* product_of(Kind kind, Dtype dtype) {
    return active_projection_kernels().product[static_cast<int>(kind)][dtype];
}

// The rows of a tensor (all axes but the last, as one), in runs of equal distance.
class Rows {
public:
    explicit Rows(const ConstTensor& tensor) {
        for (int axis = 0; axis + 1 < tensor.rank; ++axis) {
            const int64_t size = tensor.shape[axis];
            const int64_t stride = tensor.strides[axis];
            if (size == 1) continue;
            if (rank_ > 0 &&
                strides_[rank_ - 1] == size * stride) {  // one axis with the one before
                shape_[rank_ - 1] *= size;
                strides_[rank_ - 1] = stride;
            } else {
                shape_[rank_] = size;
                strides_[rank_++] = stride;
            }
            count_ *= size;
        }
        if (rank_ == 0) {
            shape_[0] = 1;
            strides_[rank_++] = 0;
        }
    }

    int64_t count() const { return count_; }

    // Calls body(row, rows, offset, stride) for runs that cover [begin, begin + count): row r of a
    // run lies offset + r * stride elements from the start.
    template <class Body>
    void for_each_run(int64_t begin, int64_t count, Body body) const {
        const int64_t length = shape_[rank_ - 1];
        const int64_t stride = strides_[rank_ - 1];
        for (int64_t row = begin; row < begin + count;) {
            const int64_t within = row % length;
            int64_t offset = within * stride;
            int64_t rest = row / length;
            for (int axis = rank_ - 2; axis >= 0; --axis) {
                offset += rest % shape_[axis] * strides_[axis];
                rest /= shape_[axis];
            }
            const int64_t rows = std::min(begin + count - row, length - within);
            body(row, rows, offset, stride);
            row += rows;
        }
    }

private:
    int rank_ = 0;
    int64_t count_ = 1;
    int64_t shape_[kMaxRank];
    int64_t strides_[kMaxRank];
};

}  // namespace

Kind kind_of(const char* function, std::string_view name) {
    if (name == "rademacher") return Kind::kRademacher;
    if (name == "gaussian") return Kind::kGaussian;
    if (name == "sparse") return Kind::kSparse;
    refuse_value(function, "`kind` must be 'rademacher', 'gaussian' or 'sparse', got '", name, "'");
}

ResultSpec result_of_project(const ConstTensor& x, int64_t n_components, uint64_t first_feature) {
    if (x.rank == 0) refuse_value("project", "`x` must have at least one axis, got shape ()");
    const int64_t features = x.shape[x.rank - 1];
    if (features == 0) {
        refuse_value("project", "`x` must have at least one feature, got shape ", shape_text(x));
    }
    if (first_feature > ~uint64_t{0} - static_cast<uint64_t>(features - 1)) {
        refuse_value("project", "`first_feature` must be at most 2**64 - ", features,
                     " for `x` with ", features, " features, got ", first_feature);
    }
    const bool is_float = x.dtype <= Dtype::kBFloat16;
    ResultSpec spec{is_float ? x.dtype : Dtype::kFloat64};
    for (int axis = 0; axis + 1 < x.rank; ++axis) spec.append(x.shape[axis]);
    spec.append(n_components);
    return spec;
}

void project(const ConstTensor& x, const Law& law, uint64_t first_feature, const Tensor& out) {
    const Product& product = *product_of(law.kind, x.dtype);
    const int64_t feature_stride = x.strides[x.rank - 1];
    const int64_t n_components = out.shape[out.rank - 1];
    const Rows x_rows(x);
    const Rows out_rows(out);
    const MatmulProblem problem{
        .rows = x_rows.count(),
        .depth = x.shape[x.rank - 1],
        .columns = n_components,
        .depth_origin = static_cast<int64_t>(first_feature % kDepthBlock),
        .pack_columns = product.generate_columns,
    };
    const auto address = [](const ConstTensor& tensor, int64_t offset) {
        return static_cast<char*>(const_cast<void*>(tensor.data)) +
               offset * item_size(tensor.dtype);
    };
    cpu::matmul(
        product.matmul, nullptr, problem,
        [&](int64_t row, int64_t rows, int64_t k, int64_t depth, void* packed) {
            constexpr int64_t batch = 96;  // a multiple of every tile's height
            for (int64_t first = 0; first < rows; first += batch) {
                int64_t offsets[batch];
                const int64_t count = std::min(batch, rows - first);
                x_rows.for_each_run(
                    row + first, count,
                    [&](int64_t start, int64_t length, int64_t offset, int64_t stride) {
                        for (int64_t i = 0; i < length; ++i)
                            offsets[start - row - first + i] = offset + i * stride;
                    });
                product.pack_rows(
                    address(x, k * feature_stride), offsets, feature_stride, count, depth,
                    static_cast<char*>(packed) + first * depth * product.matmul.left_bytes);
            }
        },
        [&](int64_t column, int64_t columns, int64_t k, int64_t depth, void* packed) {
            product.generate(law, first_feature + static_cast<uint64_t>(k),
                             static_cast<uint64_t>(column), columns, depth, packed);
        },
        [&](int64_t row, int64_t rows, int64_t column, int64_t columns, const void* acc,
            int64_t acc_stride) {
            out_rows.for_each_run(
                row, rows, [&](int64_t start, int64_t length, int64_t offset, int64_t stride) {
                    const Matrix target{address(out, offset), out.dtype, length,
                                        n_components,         stride,    out.strides[out.rank - 1]};
                    store_scaled(static_cast<const char*>(acc) +
                                     (start - row) * acc_stride * product.matmul.acc_bytes,
                                 acc_stride, length, columns, law.scale, target, 0, column);
                });
        });
}

void block(const Law& law, uint64_t first_row, uint64_t first_column, const Tensor& out) {
    const Product& product = *product_of(law.kind, Dtype::kFloat64);
    const int64_t width = product.generate_columns;
    const int64_t panel = product.matmul.tile_columns;
    const int64_t rows = out.shape[0];
    const int64_t columns = out.shape[1];
    if (rows == 0 || columns == 0) return;
    const auto skipped = static_cast<int64_t>(first_row % static_cast<uint64_t>(width));
    const int64_t groups = (skipped + rows - 1) / width + 1;
    const int64_t strips = (columns - 1) / kDepthBlock + 1;
    // 32768 entries take 2 to 50 us, by kind and level.
    const int64_t grain = std::max<int64_t>(1, (1 << 15) / (width * kDepthBlock));
    parallel_for(groups * strips, grain, [&](int64_t begin, int64_t end) {
        const Scratch panels(width * kDepthBlock * item_size(Dtype::kFloat64));
        for (int64_t task = begin; task < end; ++task) {
            const int64_t origin = task / strips * width - skipped;  // row of `out`, maybe negative
            const int64_t column = task % strips * kDepthBlock;
            const int64_t depth = std::min(kDepthBlock, columns - column);
            product.generate(law, first_column + static_cast<uint64_t>(column),
                             first_row + static_cast<uint64_t>(origin), width, depth, panels.as());
            const int64_t last = std::min(width, rows - origin);
            for (int64_t i = std::max<int64_t>(0, -origin); i < last; ++i) {
                const double* entries = panels.as<double>() + i / panel * panel * depth + i % panel;
                double* line =
                    out.as<double>() + (origin + i) * out.strides[0] + column * out.strides[1];
                for (int64_t k = 0; k < depth; ++k)
                    line[k * out.strides[1]] = entries[k * panel] * law.scale;
            }
        }
    });
}

}  // namespace slipstick::cpu::projection
