#include "projection/projection.hpp"

#include <algorithm>

#include "core/error.hpp"
#include "core/store.hpp"
#include "projection/hashed.hpp"
#include "projection/kernels.hpp"
#include "projection/rows.hpp"
#include "projection/srht.hpp"

namespace slipstick::cpu::projection {
namespace {

const Product* product_of(Kind kind, Dtype dtype) {
    return active_projection_kernels().product[static_cast<int>(kind)][dtype];
}

// out = scale * the sums of x's rows times what `generate` makes of columns and depth.
void multiply(const Product& product, const ConstTensor& x, int64_t depth_origin,
              int64_t pack_columns, double scale, const Tensor& out, PackFn generate) {
    const int64_t depth_stride = x.strides[x.rank - 1];
    const int64_t out_columns = out.shape[out.rank - 1];
    const Rows x_rows(x);
    const Rows out_rows(out);
    const MatmulProblem problem{
        .rows = x_rows.count(),
        .depth = x.shape[x.rank - 1],
        .columns = out_columns,
        .depth_origin = depth_origin,
        .pack_columns = pack_columns,
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
                row_offsets(x_rows, row + first, count, offsets);
                product.pack_rows(
                    address(x, k * depth_stride), offsets, depth_stride, count, depth,
                    static_cast<char*>(packed) + first * depth * product.matmul.left_bytes);
            }
        },
        generate,
        [&](int64_t row, int64_t rows, int64_t column, int64_t columns, const void* acc,
            int64_t acc_stride) {
            out_rows.for_each_run(
                row, rows, [&](int64_t start, int64_t length, int64_t offset, int64_t stride) {
                    const Matrix target{address(out, offset), out.dtype, length,
                                        out_columns,          stride,    out.strides[out.rank - 1]};
                    store_scaled(static_cast<const char*>(acc) +
                                     (start - row) * acc_stride * product.matmul.acc_bytes,
                                 acc_stride, length, columns, scale, target, 0, column);
                });
        });
}

// Refuses features whose last one, first_feature + features - 1, does not fit 64 bits.
void check_last_feature(const char* function, uint64_t first_feature, int64_t features,
                        const char* whose) {
    if (first_feature > ~uint64_t{0} - static_cast<uint64_t>(features - 1)) {
        refuse_value(function, "`first_feature` must be at most 2**64 - ", features, " for ", whose,
                     features, " features, got ", first_feature);
    }
}

// The shape of `rows` but for its last axis, and its dtype, float64 for integers.
ResultSpec result_of(const ConstTensor& rows, int64_t columns) {
    const bool is_float = rows.dtype <= Dtype::kBFloat16;
    ResultSpec spec{is_float ? rows.dtype : Dtype::kFloat64};
    for (int axis = 0; axis + 1 < rows.rank; ++axis) spec.append(rows.shape[axis]);
    spec.append(columns);
    return spec;
}

}  // namespace

Kind kind_of(const char* function, std::string_view name) {
    if (name == "rademacher") return Kind::kRademacher;
    if (name == "gaussian") return Kind::kGaussian;
    if (name == "sparse") return Kind::kSparse;
    if (name == "sjlt") return Kind::kSjlt;
    if (name == "countsketch") return Kind::kCountsketch;
    if (name == "srht") return Kind::kSrht;
    refuse_value(function, "`kind` must be one of the family's, got '", name, "'");
}

ResultSpec result_of_project(const ConstTensor& x, int64_t n_components, uint64_t first_feature) {
    if (x.rank == 0) refuse_value("project", "`x` must have at least one axis, got shape ()");
    if (x.shape[x.rank - 1] == 0) {
        refuse_value("project", "`x` must have at least one feature, got shape ", shape_text(x));
    }
    check_last_feature("project", first_feature, x.shape[x.rank - 1], "`x` with ");
    return result_of(x, n_components);
}

ResultSpec result_of_back_project(const ConstTensor& y, int64_t n_features,
                                  uint64_t first_feature) {
    check_last_feature("back_project", first_feature, n_features, "");
    return result_of(y, n_features);
}

void project(const ConstTensor& x, const Law& law, uint64_t first_feature, const Tensor& out) {
    if (is_hashed(law.kind)) return project_hashed(x, law, first_feature, out);
    if (law.kind == Kind::kSrht) return project_srht(x, law, first_feature, out);
    const Product& product = *product_of(law.kind, x.dtype);
    multiply(product, x, static_cast<int64_t>(first_feature % kDepthBlock),
             product.generate_columns, law.scale, out,
             [&](int64_t column, int64_t columns, int64_t k, int64_t depth, void* packed) {
                 product.generate(law, first_feature + static_cast<uint64_t>(k),
                                  static_cast<uint64_t>(column), columns, depth, packed);
             });
}

void back_project(const ConstTensor& y, const Law& law, uint64_t first_feature, const Tensor& out) {
    if (is_hashed(law.kind)) return back_project_hashed(y, law, first_feature, out);
    if (law.kind == Kind::kSrht) return back_project_srht(y, law, first_feature, out);
    const Product& product = *product_of(law.kind, y.dtype);
    multiply(product, y, 0, 0, law.scale, out,
             [&](int64_t column, int64_t columns, int64_t k, int64_t depth, void* packed) {
                 product.generate_adjoint(law, first_feature + static_cast<uint64_t>(column),
                                          static_cast<uint64_t>(k), columns, depth, packed);
             });
}

void block(const Law& law, uint64_t first_row, uint64_t first_column, const Tensor& out) {
    if (is_hashed(law.kind)) return block_hashed(law, first_row, first_column, out);
    if (law.kind == Kind::kSrht) return block_srht(law, first_row, first_column, out);
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
