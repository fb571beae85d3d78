#include "core/simd.hpp"
#include "core/tile.hpp"
#include "projection/skinny_kernels.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

constexpr int64_t kDepth = 256;
constexpr int64_t kRowBlock = 8 * kTileRows;

// acc[i][j] (+)= sum over k of lines[i][k * line_step] right[k * right_step + j] for the first
// `rows` of kTileRows lines.
template <class T>
SLIPSTICK_INLINE void multiply_lines(const T* const* lines, int64_t line_step, const T* right,
                                     int64_t right_step, int64_t depth, int64_t rows, T* acc,
                                     int64_t acc_stride, bool accumulate) {
    constexpr int lanes = kLanes<T>;
    Vec<T> sums[kTileRows][kTileVectors] = {};
#pragma GCC unroll 2
    for (int64_t k = 0; k < depth; ++k) {
        Vec<T> columns[kTileVectors];
#pragma GCC unroll 2
        for (int v = 0; v < kTileVectors; ++v)
            columns[v] = load<Vec<T>>(right + k * right_step + v * lanes);
#pragma GCC unroll 12
        for (int i = 0; i < kTileRows; ++i) {
            const Vec<T> element = broadcast(lines[i][k * line_step]);
#pragma GCC unroll 2
            for (int v = 0; v < kTileVectors; ++v)
                sums[i][v] = mul_add(element, columns[v], sums[i][v]);
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < kTileRows; ++i) {
        if (i >= rows) break;
        T* const target = acc + i * acc_stride;
#pragma GCC unroll 2
        for (int v = 0; v < kTileVectors; ++v) {
            T* const place = target + v * lanes;
            store(place, accumulate ? load<Vec<T>>(place) + sums[i][v] : sums[i][v]);
        }
    }
}

template <class T>
void times(const T* a, int64_t row_stride, int64_t rows, int64_t depth, const T* right,
           int64_t panels, T* out, int64_t out_stride) {
    constexpr int64_t width = kTileColumns<T>;
    // A few rows at full depth: what they miss of `right` comes from the third cache, the rows
    // themselves come from memory in one go.
    for (int64_t first = 0; first < rows; first += kRowBlock) {
        const int64_t end = first + kRowBlock < rows ? first + kRowBlock : rows;
        for (int64_t k = 0; k < depth; k += kDepth) {
            const int64_t length = depth - k < kDepth ? depth - k : kDepth;
            for (int64_t row = first; row < end; row += kTileRows) {
                const T* lines[kTileRows];
                for (int64_t i = 0; i < kTileRows; ++i)  // the last row again, where none is left
                    lines[i] = a + (row + i < end ? row + i : end - 1) * row_stride + k;
                for (int64_t panel = 0; panel < panels; ++panel) {
                    multiply_lines(lines, 1, right + (panel * depth + k) * width, width, length,
                                   end - row, out + row * out_stride + panel * width, out_stride,
                                   k > 0);
                }
            }
        }
    }
}

// How many tiles' columns of `a` are copied at once: whole cache lines of each row, into 32 KiB.
constexpr int64_t kStrips = 2;

template <class T>
void transposed(const T* a, int64_t row_stride, int64_t depth, int64_t columns, const T* left,
                int64_t panel_stride, int64_t panels, T* out, int64_t out_stride) {
    constexpr int64_t width = kTileColumns<T>;
    // The rows of `a` lie on pages of their own, more than a core knows by heart: each is copied
    // once for all panels of `left`.
    T strips[kStrips * kDepth * width];
    for (int64_t row = 0; row < depth; row += kDepth) {
        const int64_t length = depth - row < kDepth ? depth - row : kDepth;
        for (int64_t column = 0; column < columns; column += kStrips * width) {
            const T* const block = a + row * row_stride + column;
            const int64_t rest = columns - column;
            const int64_t count = rest < kStrips * width ? (rest + width - 1) / width : kStrips;
            for (int64_t k = 0; k < length; ++k) {
                const T* const line = block + k * row_stride;
                for (int64_t strip = 0; strip < count; ++strip) {
                    T* const target = strips + (strip * kDepth + k) * width;
                    if ((strip + 1) * width <= rest) {
                        __builtin_memcpy(target, line + strip * width, width * sizeof(T));
                    } else {
                        for (int64_t j = 0; j < width; ++j)
                            target[j] = strip * width + j < rest ? line[strip * width + j] : T{};
                    }
                }
            }
            for (int64_t strip = 0; strip < count; ++strip) {
                for (int64_t panel = 0; panel < panels; ++panel) {
                    // A share of the next strips with every tile: copying alone would wait.
                    const int64_t tile = strip * panels + panel;
                    const int64_t tiles = count * panels;
                    for (int64_t k = tile * length / tiles; k < (tile + 1) * length / tiles; ++k) {
                        const T* const next = block + k * row_stride + kStrips * width;
                        for (int64_t j = 0; j < kStrips * width; j += 64 / sizeof(T))
                            __builtin_prefetch(next + j);
                    }
                    const T* lines[kTileRows];
                    for (int64_t i = 0; i < kTileRows; ++i)
                        lines[i] = left + panel * panel_stride + row * kTileRows + i;
                    multiply_lines(lines, kTileRows, strips + strip * kDepth * width, width, length,
                                   kTileRows,
                                   out + panel * kTileRows * out_stride + column + strip * width,
                                   out_stride, row > 0);
                }
            }
        }
    }
}

template <class T>
constexpr projection::SkinnyKernel<T> kSkinny = {
    .times = &times<T>,
    .transposed = &transposed<T>,
    .tile_rows = kTileRows,
    .tile_columns = kTileColumns<T>,
};

}  // namespace

const projection::SkinnyKernels projection_skinny_kernels = {
    .float32 = kSkinny<float>,
    .float64 = kSkinny<double>,
};

}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
