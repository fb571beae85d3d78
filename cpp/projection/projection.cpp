#include "projection/projection.hpp"

#include <algorithm>

#include "core/store.hpp"
#include "projection/hashed.hpp"
#include "projection/left_operand.hpp"
#include "projection/rows.hpp"
#include "projection/srht.hpp"

namespace slipstick::cpu::projection {
namespace {

const Product* product_of(Kind kind, Dtype dtype) {
    return active_projection_kernels().product[static_cast<int>(kind)][dtype];
}

// Calls put(row, 1, column, width, sums, stride) for pieces of the rows of sums that lie in panels.
template <class T, class Put>
void for_each_panel_row(const MatmulKernel& kernel, int64_t rows, int64_t columns, const void* acc,
                        int64_t acc_stride, int64_t row, int64_t column, Put put) {
    constexpr int64_t piece = 64;
    const int64_t pitch = kernel.acc_rows;
    for (int64_t i = 0; i < rows; ++i) {
        const T* const sums =
            static_cast<const T*>(acc) + i / pitch * pitch * acc_stride + i % pitch;
        for (int64_t first = 0; first < columns; first += piece) {
            const int64_t width = std::min(piece, columns - first);
            T line[piece];
            for (int64_t j = 0; j < width; ++j) line[j] = sums[(first + j) * pitch];
            put(row + i, 1, column + first, width, reinterpret_cast<const char*>(line), piece);
        }
    }
}

// out = scale * the sums of x's rows times what `generate` makes of columns and depth. Column 0 of
// x lies `origin` into a block of depth.
void multiply(const Product& product, const ConstTensor& x, int64_t origin, double scale,
              const Tensor& out, PackFn generate) {
    const int64_t out_columns = out.shape[out.rank - 1];
    const LeftOperand left(product, x, origin);
    const MatmulKernel& kernel = product.matmul;
    const Rows out_rows(out);
    const MatmulProblem problem{
        .rows = left.rows(),
        .depth = left.depth(),
        .columns = out_columns,
        .depth_origin = left.depth_origin(),
        .pack_columns = product.generate_columns,
    };
    cpu::matmul(
        kernel, nullptr, problem,
        [&](int64_t row, int64_t rows, int64_t k, int64_t depth, void* packed) {
            left.pack(row, rows, k, depth, packed);
        },
        generate,
        [&](int64_t row, int64_t rows, int64_t column, int64_t columns, const void* acc,
            int64_t acc_stride) {
            const auto put = [&](int64_t first, int64_t count, int64_t left_column, int64_t width,
                                 const char* sums, int64_t sums_stride) {
                out_rows.for_each_run(
                    first, count,
                    [&](int64_t start, int64_t length, int64_t offset, int64_t stride) {
                        const Matrix target{out.as<char>() + offset * item_size(out.dtype),
                                            out.dtype,
                                            length,
                                            out_columns,
                                            stride,
                                            out.strides[out.rank - 1]};
                        store_scaled(sums + (start - first) * sums_stride * kernel.acc_bytes,
                                     sums_stride, length, width, scale, target, 0, left_column);
                    });
            };
            if (kernel.acc_rows == 1) {
                put(row, rows, column, columns, static_cast<const char*>(acc), acc_stride);
            } else if (kernel.acc_bytes == sizeof(float)) {
                for_each_panel_row<float>(kernel, rows, columns, acc, acc_stride, row, column, put);
            } else {
                for_each_panel_row<double>(kernel, rows, columns, acc, acc_stride, row, column,
                                           put);
            }
        });
}

// The entries as float64.
void block_products(const Law& law, uint64_t first_row, uint64_t first_column, const Tensor& out) {
    const Product& product = *product_of(law.kind, Dtype::kFloat64);
    const GenerateFn generate =
        active_projection_kernels().generate_entries[static_cast<int>(law.kind)];
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
            generate(law, first_column + static_cast<uint64_t>(column),
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

void block_float64(const Law& law, uint64_t first_row, uint64_t first_column, const Tensor& out) {
    if (is_hashed(law.kind)) return block_hashed(law, first_row, first_column, out);
    if (law.kind == Kind::kSrht) return block_srht(law, first_row, first_column, out);
    block_products(law, first_row, first_column, out);
}

}  // namespace

void project(const ConstTensor& x, const Law& law, uint64_t first_feature, const Tensor& out) {
    if (is_hashed(law.kind)) return project_hashed(x, law, first_feature, out);
    if (law.kind == Kind::kSrht) return project_srht(x, law, first_feature, out);
    const Product& product = *product_of(law.kind, x.dtype);
    const auto origin = static_cast<int64_t>(first_feature % kDepthBlock);
    // Feature 0 of the first group, which begins in the same block.
    const uint64_t first =
        first_feature / static_cast<uint64_t>(product.group) * static_cast<uint64_t>(product.group);
    multiply(product, x, origin, law.scale, out,
             [&](int64_t column, int64_t columns, int64_t k, int64_t depth, void* packed) {
                 product.generate(law, first + static_cast<uint64_t>(k),
                                  static_cast<uint64_t>(column), columns, depth, packed);
             });
}

void back_project(const ConstTensor& y, const Law& law, uint64_t first_feature, const Tensor& out) {
    if (is_hashed(law.kind)) return back_project_hashed(y, law, first_feature, out);
    if (law.kind == Kind::kSrht) return back_project_srht(y, law, first_feature, out);
    const Product& product = *product_of(law.kind, y.dtype);
    multiply(product, y, 0, law.scale, out,
             [&](int64_t column, int64_t columns, int64_t k, int64_t depth, void* packed) {
                 product.generate_adjoint(law, first_feature + static_cast<uint64_t>(column),
                                          static_cast<uint64_t>(k), columns, depth, packed);
             });
}

void block(const Law& law, uint64_t first_row, uint64_t first_column, const Tensor& out) {
    if (out.dtype == Dtype::kFloat64) return block_float64(law, first_row, first_column, out);
    // Any part is that of the whole: parts of 1 MiB, rounded one after another.
    constexpr int64_t kMostColumns = 1 << 12;
    constexpr int64_t kMostEntries = 1 << 17;
    const int64_t columns = std::min(out.shape[1], kMostColumns);
    if (columns == 0) return;
    const int64_t rows = std::clamp<int64_t>(out.shape[0], 1, kMostEntries / columns);
    const Scratch entries(rows * columns * item_size(Dtype::kFloat64));
    for (int64_t row = 0; row < out.shape[0]; row += rows) {
        for (int64_t column = 0; column < out.shape[1]; column += columns) {
            const int64_t shape[] = {std::min(rows, out.shape[0] - row),
                                     std::min(columns, out.shape[1] - column)};
            const int64_t strides[] = {shape[1], 1};
            block_float64(law, first_row + static_cast<uint64_t>(row),
                          first_column + static_cast<uint64_t>(column),
                          {{entries.as<double>(), Dtype::kFloat64, 2, shape, strides}});
            float* const corner = out.as<float>() + row * out.strides[0] + column * out.strides[1];
            for (int64_t i = 0; i < shape[0]; ++i) {
                for (int64_t j = 0; j < shape[1]; ++j) {
                    corner[i * out.strides[0] + j * out.strides[1]] =
                        static_cast<float>(entries.as<double>()[i * shape[1] + j]);
                }
            }
        }
    }
}

}  // namespace slipstick::cpu::projection
