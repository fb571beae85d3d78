#include "projection/skinny.hpp"

#include <algorithm>

#include "core/error.hpp"
#include "core/rounding.hpp"
#include "core/threads.hpp"
#include "projection/skinny_kernels.hpp"

namespace slipstick::cpu::projection {
namespace {

constexpr const char* kFunction = "randomized_svd";
constexpr int64_t kChunkProducts = 1 << 22;    // multiplications of a task: about 100 us
constexpr int64_t kColumnChunk = 128;          // columns of a task of the transposed product
constexpr int64_t kRowChunk = 1 << 14;         // rows that a partial sum of it covers, at least,
constexpr int64_t kNarrowRowChunk = 1 << 10;   // and where one task covers all columns
constexpr int64_t kPartialElements = 1 << 22;  // of all partial sums

template <class T>
const SkinnyKernel<T>& kernel_of() {
    if constexpr (sizeof(T) == sizeof(float)) {
        return active_projection_skinny_kernels().float32;
    } else {
        return active_projection_skinny_kernels().float64;
    }
}

void check(const ConstTensor& a, const ConstTensor& factor, const ConstTensor& out, int axis) {
    const bool fits = a.rank == 2 && factor.rank == 2 && out.rank == 2 &&
                      factor.shape[0] == a.shape[axis] && out.shape[0] == a.shape[1 - axis] &&
                      out.shape[1] == factor.shape[1];
    if (!fits) {
        refuse_value(kFunction, "`x` must fit its factors, got shapes ", shape_text(a), ", ",
                     shape_text(factor), " and ", shape_text(out));
    }
    const bool is_real = a.dtype == Dtype::kFloat32 || a.dtype == Dtype::kFloat64;
    if (!is_real || factor.dtype != a.dtype || out.dtype != a.dtype) {
        refuse_type(kFunction, "`x` and its factors must be float32 or float64 alike, got ",
                    describe(a), ", ", describe(factor), " and ", describe(out));
    }
    if (a.shape[1] > 1 && a.strides[1] != 1)
        refuse_value(kFunction, "`x` must have contiguous rows, got stride ", a.strides[1]);
}

// packed[panel][line][column], zeros behind the last column.
template <class T>
void pack(const ConstTensor& factor, int64_t width, T* packed) {
    const int64_t lines = factor.shape[0];
    const int64_t columns = factor.shape[1];
    parallel_for(lines, 1 << 12, [&](int64_t begin, int64_t end) {
        for (int64_t first = 0; first < columns; first += width) {
            const int64_t used = std::min(width, columns - first);
            for (int64_t line = begin; line < end; ++line) {
                const T* source = static_cast<const T*>(factor.data) + line * factor.strides[0] +
                                  first * factor.strides[1];
                T* const target = packed + first * lines + line * width;
                for (int64_t j = 0; j < width; ++j)
                    target[j] = j < used ? source[j * factor.strides[1]] : T{};
            }
        }
    });
}

template <class T>
void times(const ConstTensor& a, const ConstTensor& right, const Tensor& out) {
    const SkinnyKernel<T>& kernel = kernel_of<T>();
    const int64_t rows = a.shape[0];
    const int64_t depth = a.shape[1];
    const int64_t columns = right.shape[1];
    const int64_t width = round_up(columns, kernel.tile_columns);
    const Scratch packed(depth * width * static_cast<int64_t>(sizeof(T)));
    pack(right, kernel.tile_columns, packed.as<T>());
    const int64_t unit = 8 * kernel.tile_rows;
    const int64_t chunk = round_up(std::max<int64_t>(1, kChunkProducts / (depth * width)), unit);
    parallel_for(rows, chunk, [&](int64_t begin, int64_t end) {
        const Scratch sums(unit * width * static_cast<int64_t>(sizeof(T)));
        for (int64_t row = begin; row < end; row += unit) {
            const int64_t count = std::min(unit, end - row);
            kernel.times(static_cast<const T*>(a.data) + row * a.strides[0], a.strides[0], count,
                         depth, packed.as<T>(), width / kernel.tile_columns, sums.as<T>(), width);
            for (int64_t i = 0; i < count; ++i) {
                T* const target = out.as<T>() + (row + i) * out.strides[0];
                for (int64_t j = 0; j < columns; ++j)
                    target[j * out.strides[1]] = sums.as<T>()[i * width + j];
            }
        }
    });
}

template <class T>
void transposed(const ConstTensor& a, const ConstTensor& left, const Tensor& out) {
    const SkinnyKernel<T>& kernel = kernel_of<T>();
    const int64_t depth = a.shape[0];
    const int64_t columns = a.shape[1];
    const int64_t width = left.shape[1];
    const int64_t height = round_up(width, kernel.tile_rows);
    // The panels of a chunk of rows lie together: `lines` of them each.
    const int64_t most = std::max<int64_t>(1, kPartialElements / (columns * width));
    const int64_t row_chunk = columns <= kColumnChunk ? kNarrowRowChunk : kRowChunk;
    const int64_t parts = std::clamp<int64_t>((depth + row_chunk - 1) / row_chunk, 1, most);
    const int64_t lines = round_up((depth + parts - 1) / parts, 256);
    const int64_t strips = (columns + kColumnChunk - 1) / kColumnChunk;
    const Scratch packed(depth * height * static_cast<int64_t>(sizeof(T)));
    pack(left, kernel.tile_rows, packed.as<T>());
    const Scratch partial((parts > 1 ? parts * columns * width : 0) *
                          static_cast<int64_t>(sizeof(T)));
    parallel_for(parts * strips, 1, [&](int64_t begin, int64_t end) {
        const int64_t stride = kColumnChunk + kernel.tile_columns;
        const Scratch sums(height * stride * static_cast<int64_t>(sizeof(T)));
        for (int64_t task = begin; task < end; ++task) {
            const int64_t part = task / strips;
            const int64_t first = std::min(depth, part * lines);
            const int64_t count = std::min(depth, first + lines) - first;
            const int64_t column = task % strips * kColumnChunk;
            const int64_t chunk = std::min(kColumnChunk, columns - column);
            std::fill_n(sums.as<T>(), height * stride, T{});
            kernel.transposed(static_cast<const T*>(a.data) + first * a.strides[0] + column,
                              a.strides[0], count, chunk, packed.as<T>() + first * kernel.tile_rows,
                              depth * kernel.tile_rows, height / kernel.tile_rows, sums.as<T>(),
                              stride);
            for (int64_t k = 0; k < chunk; ++k) {
                for (int64_t j = 0; j < width; ++j) {
                    const T sum = sums.as<T>()[j * stride + k];
                    if (parts > 1) {
                        partial.as<T>()[(part * columns + column + k) * width + j] = sum;
                    } else {
                        out.as<T>()[(column + k) * out.strides[0] + j * out.strides[1]] = sum;
                    }
                }
            }
        }
    });
    if (parts == 1) return;
    parallel_for(columns, std::max<int64_t>(1, (1 << 16) / (parts * width)),
                 [&](int64_t begin, int64_t end) {
                     for (int64_t k = begin; k < end; ++k) {
                         for (int64_t j = 0; j < width; ++j) {
                             T sum{};
                             for (int64_t part = 0; part < parts; ++part)
                                 sum += partial.as<T>()[(part * columns + k) * width + j];
                             out.as<T>()[k * out.strides[0] + j * out.strides[1]] = sum;
                         }
                     }
                 });
}

}  // namespace

void skinny_times(const ConstTensor& a, const ConstTensor& right, const Tensor& out) {
    check(a, right, out, 1);
    if (a.dtype == Dtype::kFloat32) {
        times<float>(a, right, out);
    } else {
        times<double>(a, right, out);
    }
}

void skinny_transposed(const ConstTensor& a, const ConstTensor& left, const Tensor& out) {
    check(a, left, out, 0);
    if (a.dtype == Dtype::kFloat32) {
        transposed<float>(a, left, out);
    } else {
        transposed<double>(a, left, out);
    }
}

}  // namespace slipstick::cpu::projection
