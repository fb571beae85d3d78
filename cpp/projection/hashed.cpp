#include "projection/hashed.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/matmul.hpp"
#include "core/rounding.hpp"
#include "core/store.hpp"
#include "core/threads.hpp"
#include "projection/hashed_kernels.hpp"
#include "projection/rows.hpp"

namespace slipstick::cpu::projection {
namespace {

constexpr int64_t kChunkBytes = 1 << 21;   // of nonzeros that are alive at once
constexpr int64_t kSumBytes = 1 << 23;     // of sums that are alive at once
constexpr int64_t kTileBytes = 1 << 18;    // of sums of one tile: half the second cache
constexpr int64_t kStoredColumns = 256;    // of a result that leave the lanes at once
constexpr int64_t kPackedRows = 64;        // rows of a tile that is packed
constexpr int64_t kRowsInPlace = 256;      // rows of one that is not: long pieces of x's lines

// The nonzeros of a block of features, sorted by component, those of a component by feature.
struct Block {
    std::vector<Group> groups;
    std::vector<Term> terms;
};

void make_hits(const Law& law, uint64_t feature, int64_t count, Hit* hits) {
    uint64_t features[kDepthBlock];
    for (int64_t i = 0; i < count; ++i) features[i] = feature + static_cast<uint64_t>(i);
    active_hashed_kernels().hits(law, features, count, hits);
}

void make_block(const Law& law, uint64_t feature, int64_t count, Block& block) {
    const auto size = static_cast<size_t>(count * law.nonzeros);
    std::vector<Hit> hits(size);
    make_hits(law, feature, count, hits.data());
    block.terms.resize(size);
    block.groups.clear();
    const auto s = static_cast<size_t>(law.nonzeros);
    if (law.components <= 16 * static_cast<int64_t>(size)) {
        std::vector<uint32_t> place(static_cast<size_t>(law.components) + 1);
        for (const Hit hit : hits) ++place[(hit >> 1) + 1];
        for (size_t i = 1; i < place.size(); ++i) {
            const uint32_t begin = place[i - 1];
            if (place[i] > 0)
                block.groups.push_back({static_cast<uint32_t>(i - 1), begin + place[i]});
            place[i] += begin;
        }
        for (size_t i = 0; i < size; ++i)
            block.terms[place[hits[i] >> 1]++] = static_cast<Term>(i / s << 1 | (hits[i] & 1));
        return;
    }
    std::vector<uint64_t> order(size);  // component, feature, sign
    for (size_t i = 0; i < size; ++i)
        order[i] = uint64_t{hits[i] >> 1} << 32 | i / s << 1 | (hits[i] & 1);
    std::sort(order.begin(), order.end());
    for (size_t i = 0; i < size; ++i) {
        const auto component = static_cast<uint32_t>(order[i] >> 32);
        block.terms[i] = static_cast<Term>(order[i]);
        if (i == 0 || block.groups.back().component != component)
            block.groups.push_back({component, 0});
        block.groups.back().end = static_cast<uint32_t>(i) + 1;
    }
}

const void* address(const ConstTensor& tensor, int64_t offset) {
    return static_cast<const char*>(tensor.data) + offset * item_size(tensor.dtype);
}

// The width of tiles, a multiple of the lanes: at most `widest`, narrower where there would be less
// than a tile a thread.
int64_t tile_width(int64_t rows, int64_t widest, int64_t lanes) {
    const int64_t wanted = std::max<int64_t>((rows + widest - 1) / widest, num_threads());
    return std::min(round_up((rows + wanted - 1) / wanted, lanes), round_up(widest, lanes));
}

// Writes `columns` columns of a tile of sums, from `column` of the result on, to rows [row, row +
// rows) of `out`. `buffer` has room for the tile turned.
void store_tile(const HashedOps& ops, const void* tile, int64_t width, int64_t row, int64_t rows,
                int64_t column, int64_t columns, double scale, const Rows& out_rows,
                const Tensor& out, void* buffer) {
    for (int64_t first = 0; first < columns; first += kStoredColumns) {
        const int64_t count = std::min(kStoredColumns, columns - first);
        ops.unpack(static_cast<const char*>(tile) + first * width * ops.sum_bytes, width, rows,
                   count, buffer, kStoredColumns);
        out_rows.for_each_run(
            row, rows, [&](int64_t start, int64_t length, int64_t offset, int64_t stride) {
                const Matrix target{const_cast<void*>(address(out, offset)),
                                    out.dtype,
                                    length,
                                    out.shape[out.rank - 1],
                                    stride,
                                    out.strides[out.rank - 1]};
                store_scaled(static_cast<const char*>(buffer) +
                                 (start - row) * kStoredColumns * ops.sum_bytes,
                             kStoredColumns, length, count, scale, target, 0, column + first);
            });
    }
}

}  // namespace

void project_hashed(const ConstTensor& x, const Law& law, uint64_t first_feature,
                    const Tensor& out) {
    const HashedOps& ops = *active_hashed_kernels().ops[x.dtype];
    const Rows x_rows(x);
    const Rows out_rows(out);
    const int64_t rows = x_rows.count();
    if (rows == 0) return;
    const int64_t features = x.shape[x.rank - 1];
    const int64_t stride = x.strides[x.rank - 1];
    const int64_t components = law.components;

    // Rows next to each other in memory already stand in lanes.
    bool adjacent = ops.reads_in_place;
    x_rows.for_each_run(0, rows, [&](int64_t, int64_t length, int64_t, int64_t step) {
        adjacent &= length == rows && step == 1;
    });
    const int64_t sum_row_bytes = round_up(components, ops.lanes) * ops.sum_bytes;
    const int64_t widest = std::clamp(kTileBytes / sum_row_bytes, int64_t{16},
                                      adjacent ? kRowsInPlace : kPackedRows);
    const int64_t width = tile_width(rows, widest, ops.lanes);
    const int64_t tile_bytes = width * sum_row_bytes;
    const int64_t super = std::min(
        (rows + width - 1) / width,
        std::max<int64_t>(kSumBytes / tile_bytes, 2 * num_threads()));  // tiles at once
    const Scratch sums(super * tile_bytes);

    const int64_t origin = static_cast<int64_t>(first_feature % kDepthBlock);
    const int64_t blocks = (origin + features - 1) / kDepthBlock + 1;
    const auto feature_of = [&](int64_t block) {
        return std::clamp<int64_t>(block * kDepthBlock - origin, 0, features);
    };
    const int64_t chunk = std::clamp<int64_t>(
        kChunkBytes / (kDepthBlock * law.nonzeros * int64_t{sizeof(Term) + sizeof(Group)}), 1,
        blocks);
    std::vector<Block> matrix(static_cast<size_t>(chunk));

    for (int64_t t0 = 0; t0 * width < rows; t0 += super) {
        const int64_t tiles = std::min(super, (rows - 1) / width + 1 - t0);
        for (int64_t b0 = 0; b0 < blocks; b0 += chunk) {
            const int64_t b1 = std::min(b0 + chunk, blocks);
            if (t0 == 0 || chunk < blocks) {
                const int64_t block_work = kDepthBlock * law.nonzeros;  // about 5 ns each
                parallel_for(b1 - b0, std::max<int64_t>(1, (1 << 13) / block_work),
                             [&](int64_t begin, int64_t end) {
                                 for (int64_t b = begin; b < end; ++b) {
                                     const int64_t feature = feature_of(b0 + b);
                                     make_block(law, first_feature + static_cast<uint64_t>(feature),
                                                feature_of(b0 + b + 1) - feature,
                                                matrix[static_cast<size_t>(b)]);
                                 }
                             });
            }
            const bool serial = tiles * width * (b1 - b0) * kDepthBlock * law.nonzeros < 1 << 17;
            parallel_for(tiles, serial ? tiles : 1, [&](int64_t begin, int64_t end) {
                const Scratch packed(width * kDepthBlock * ops.sum_bytes);
                const Scratch turned(width * kStoredColumns * ops.sum_bytes);
                for (int64_t tile = begin; tile < end; ++tile) {
                    const int64_t row = (t0 + tile) * width;
                    const int64_t height = std::min(width, rows - row);
                    char* const sum = sums.as<char>() + tile * tile_bytes;
                    if (b0 == 0) std::memset(sum, 0, static_cast<size_t>(tile_bytes));
                    int64_t offsets[kRowsInPlace];
                    row_offsets(x_rows, row, height, offsets);
                    const bool in_place = adjacent && height % ops.lanes == 0;
                    const int64_t used = round_up(height, ops.lanes);
                    for (int64_t b = b0; b < b1; ++b) {
                        const int64_t feature = feature_of(b);
                        const void* corner = address(x, feature * stride);
                        const Block& block = matrix[static_cast<size_t>(b - b0)];
                        const auto groups = static_cast<int64_t>(block.groups.size());
                        if (in_place) {
                            corner = address(x, feature * stride + offsets[0]);
                        } else {
                            ops.pack(corner, offsets, height, stride, feature_of(b + 1) - feature,
                                     packed.as(), width);
                            corner = packed.as();
                        }
                        ops.scatter(block.groups.data(), groups, block.terms.data(), corner,
                                    in_place ? stride : width, used, sum, width);
                    }
                    if (b1 == blocks) {
                        store_tile(ops, sum, width, row, height, 0, components, law.scale,
                                   out_rows, out, turned.as());
                    }
                }
            });
        }
    }
}

void back_project_hashed(const ConstTensor& y, const Law& law, uint64_t first_feature,
                         const Tensor& out) {
    const HashedOps& ops = *active_hashed_kernels().ops[y.dtype];
    const Rows y_rows(y);
    const Rows out_rows(out);
    const int64_t rows = y_rows.count();
    const int64_t features = out.shape[out.rank - 1];
    if (rows == 0 || features == 0) return;
    const int64_t stride = y.strides[y.rank - 1];
    const int64_t component_bytes = law.components * ops.sum_bytes;
    const int64_t width = tile_width(
        rows, std::clamp(kTileBytes / component_bytes, int64_t{16}, kPackedRows), ops.lanes);
    const int64_t tiles = (rows - 1) / width + 1;
    const int64_t chunk = std::clamp<int64_t>(
        kChunkBytes / (kDepthBlock * law.nonzeros * int64_t{sizeof(Hit)}), 1,
        (features - 1) / kDepthBlock + 1);
    const Scratch hits(chunk * kDepthBlock * law.nonzeros * int64_t{sizeof(Hit)});

    for (int64_t j0 = 0; j0 < features; j0 += chunk * kDepthBlock) {
        const int64_t columns = std::min(chunk * kDepthBlock, features - j0);
        const auto strip = [&](int64_t begin, int64_t end, auto&& body) {
            for (int64_t b = begin; b < end; ++b) {
                const int64_t column = b * kDepthBlock;
                body(column, std::min(kDepthBlock, columns - column),
                     hits.as<Hit>() + column * law.nonzeros);
            }
        };
        const int64_t strips = (columns - 1) / kDepthBlock + 1;
        parallel_for(
            strips, std::max<int64_t>(1, (1 << 14) / (kDepthBlock * law.nonzeros)),
            [&](int64_t begin, int64_t end) {
                strip(begin, end, [&](int64_t column, int64_t count, Hit* made) {
                    make_hits(law, first_feature + static_cast<uint64_t>(j0 + column), count, made);
                });
            });
        const bool serial = rows * columns * law.nonzeros < 1 << 17;
        parallel_for(tiles, serial ? tiles : 1, [&](int64_t begin, int64_t end) {
            const Scratch packed(width * component_bytes);
            const Scratch sums(width * kDepthBlock * ops.sum_bytes);
            const Scratch turned(width * kStoredColumns * ops.sum_bytes);
            for (int64_t tile = begin; tile < end; ++tile) {
                const int64_t row = tile * width;
                const int64_t height = std::min(width, rows - row);
                int64_t offsets[kPackedRows];
                row_offsets(y_rows, row, height, offsets);
                if (height < width) {  // padding that is packed never, and summed
                    std::memset(packed.as(), 0, static_cast<size_t>(width * component_bytes));
                }
                ops.pack(y.data, offsets, height, stride, law.components, packed.as(), width);
                strip(0, strips, [&](int64_t column, int64_t count, const Hit* made) {
                    ops.gather(made, law.nonzeros, count, packed.as(), width, sums.as());
                    store_tile(ops, sums.as(), width, row, height, j0 + column, count, law.scale,
                               out_rows, out, turned.as());
                });
            }
        });
    }
}

void block_hashed(const Law& law, uint64_t first_row, uint64_t first_column, const Tensor& out) {
    const int64_t rows = out.shape[0];
    const int64_t columns = out.shape[1];
    if (rows == 0 || columns == 0) return;
    const int64_t strips = (columns - 1) / kDepthBlock + 1;
    parallel_for(strips, 1, [&](int64_t begin, int64_t end) {
        const Scratch hits(kDepthBlock * law.nonzeros * int64_t{sizeof(Hit)});
        for (int64_t strip = begin; strip < end; ++strip) {
            const int64_t column = strip * kDepthBlock;
            const int64_t count = std::min(kDepthBlock, columns - column);
            make_hits(law, first_column + static_cast<uint64_t>(column), count, hits.as<Hit>());
            double* const corner = out.as<double>() + column * out.strides[1];
            for (int64_t i = 0; i < rows; ++i) {
                for (int64_t j = 0; j < count; ++j)
                    corner[i * out.strides[0] + j * out.strides[1]] = 0;
            }
            for (int64_t j = 0; j < count; ++j) {
                for (int64_t r = 0; r < law.nonzeros; ++r) {
                    const Hit hit = hits.as<Hit>()[j * law.nonzeros + r];
                    const auto i = static_cast<int64_t>(hit >> 1) - static_cast<int64_t>(first_row);
                    if (i < 0 || i >= rows) continue;
                    corner[i * out.strides[0] + j * out.strides[1]] =
                        (hit & 1) != 0 ? -law.scale : law.scale;
                }
            }
        }
    });
}

}  // namespace slipstick::cpu::projection
