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

constexpr int64_t kChunkBytes = 1 << 21;  // of nonzeros that are alive at once
constexpr int64_t kSumBytes = 1 << 23;    // of sums that are alive at once
constexpr int64_t kTileBytes = 1 << 19;   // of sums of one tile: what the second cache holds
constexpr int64_t kStoredColumns = 256;   // of a result that leave the lanes at once
constexpr int64_t kPackedRows = 64;       // rows of a tile that is packed
constexpr int64_t kRowsInPlace = 256;     // rows of one that is not: long pieces of x's lines

void make_hits(const Law& law, uint64_t feature, int64_t count, Hit* hits) {
    uint64_t features[kDepthBlock];
    for (int64_t i = 0; i < count; ++i) features[i] = feature + static_cast<uint64_t>(i);
    active_projection_hashed_kernels().hits(law, features, count, hits);
}

// The nonzeros of some blocks of features, gathered by component within each block, those of a
// component by feature.
class Blocks {
public:
    Blocks(int64_t count, const Law& law)
        : law_(law),
          size_(kDepthBlock * law.nonzeros),
          groups_(count * size_ * int64_t{sizeof(Group)}),
          terms_(count * size_ * int64_t{sizeof(Term)}),
          group_counts_(count * int64_t{sizeof(int64_t)}) {}

    const Group* groups(int64_t block) const { return groups_.as<Group>() + block * size_; }
    const Term* terms(int64_t block) const { return terms_.as<Term>() + block * size_; }
    int64_t group_count(int64_t block) const { return group_counts_.as<int64_t>()[block]; }

    // Where a component's nonzeros of a block are gathered; for one thread, and used for many
    // blocks, because it is as large as a column.
    struct Places {
        explicit Places(const Law& law)
            : hits(kDepthBlock * law.nonzeros * int64_t{sizeof(Hit)}),
              group_of(static_cast<size_t>(law.components)) {}
        Scratch hits;
        std::vector<uint64_t> group_of;  // of each component: the block's number + 1, the group
    };

    void make(int64_t block, uint64_t feature, int64_t count, Places& places) const {
        Group* const groups = groups_.as<Group>() + block * size_;
        Term* const terms = terms_.as<Term>() + block * size_;
        Hit* const hits = places.hits.as<Hit>();
        make_hits(law_, feature, count, hits);
        const int64_t size = count * law_.nonzeros;
        const uint64_t stamp = static_cast<uint64_t>(block + 1) << 32;
        uint32_t group_count = 0;
        for (int64_t i = 0; i < size; ++i) {  // `end` counts the terms at first
            const uint32_t component = hits[i] >> 1;
            uint64_t& place = places.group_of[component];
            const bool is_new = (place ^ stamp) >> 32 != 0;
            groups[group_count] = is_new ? Group{component, 0} : groups[group_count];
            place = is_new ? stamp | group_count : place;
            group_count += is_new ? 1 : 0;
            ++groups[static_cast<uint32_t>(place)].end;
        }
        uint32_t begin = 0;
        for (uint32_t g = 0; g < group_count; ++g) {
            const uint32_t terms_of_group = groups[g].end;
            groups[g].end = begin;
            begin += terms_of_group;
        }
        int64_t i = 0;
        for (int64_t f = 0; f < count; ++f) {
            for (int64_t r = 0; r < law_.nonzeros; ++r, ++i) {
                const auto group = static_cast<uint32_t>(places.group_of[hits[i] >> 1]);
                terms[groups[group].end++] = static_cast<Term>(f << 1 | (hits[i] & 1));
            }
        }
        group_counts_.as<int64_t>()[block] = group_count;
    }

private:
    const Law& law_;
    int64_t size_;  // of a block at most
    Scratch groups_;
    Scratch terms_;
    Scratch group_counts_;
};

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
    const HashedOps& ops = *active_projection_hashed_kernels().ops[x.dtype];
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
    const int64_t widest =
        std::clamp(kTileBytes / sum_row_bytes, int64_t{16}, adjacent ? kRowsInPlace : kPackedRows);
    const int64_t width = tile_width(rows, widest, ops.lanes);
    const int64_t tile_bytes = width * sum_row_bytes;
    const int64_t super =
        std::min((rows + width - 1) / width,
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
    const Blocks matrix(chunk, law);

    for (int64_t t0 = 0; t0 * width < rows; t0 += super) {
        const int64_t tiles = std::min(super, (rows - 1) / width + 1 - t0);
        for (int64_t b0 = 0; b0 < blocks; b0 += chunk) {
            const int64_t b1 = std::min(b0 + chunk, blocks);
            if (t0 == 0 || chunk < blocks) {
                // A nonzero takes about 5 ns, and a component of a thread's places 1.
                const int64_t grain = std::max<int64_t>((b1 - b0 - 1) / num_threads() + 1,
                                                        (1 << 13) / (kDepthBlock * law.nonzeros));
                parallel_for(b1 - b0, grain, [&](int64_t begin, int64_t end) {
                    Blocks::Places places(law);
                    for (int64_t b = begin; b < end; ++b) {
                        const int64_t feature = feature_of(b0 + b);
                        matrix.make(b, first_feature + static_cast<uint64_t>(feature),
                                    feature_of(b0 + b + 1) - feature, places);
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
                        if (in_place) {
                            corner = address(x, feature * stride + offsets[0]);
                        } else {
                            ops.pack(corner, offsets, height, stride, feature_of(b + 1) - feature,
                                     packed.as(), width);
                            corner = packed.as();
                        }
                        ops.scatter(matrix.groups(b - b0), matrix.group_count(b - b0),
                                    matrix.terms(b - b0), corner, in_place ? stride : width, used,
                                    sum, width);
                    }
                    if (b1 == blocks) {
                        store_tile(ops, sum, width, row, height, 0, components, law.scale, out_rows,
                                   out, turned.as());
                    }
                }
            });
        }
    }
}

void back_project_hashed(const ConstTensor& y, const Law& law, uint64_t first_feature,
                         const Tensor& out) {
    const HashedOps& ops = *active_projection_hashed_kernels().ops[y.dtype];
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
    const int64_t chunk =
        std::clamp<int64_t>(kChunkBytes / (kDepthBlock * law.nonzeros * int64_t{sizeof(Hit)}), 1,
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
        parallel_for(strips, std::max<int64_t>(1, (1 << 14) / (kDepthBlock * law.nonzeros)),
                     [&](int64_t begin, int64_t end) {
                         strip(begin, end, [&](int64_t column, int64_t count, Hit* made) {
                             make_hits(law, first_feature + static_cast<uint64_t>(j0 + column),
                                       count, made);
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
