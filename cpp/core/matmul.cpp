#include "core/matmul.hpp"

#include <algorithm>

#include "core/rounding.hpp"

namespace slipstick::cpu {
namespace {

constexpr int64_t kRowBlock = 96;  // 96 x 256 float32 = 96 KiB of left operand, of a 512 KiB L2
// What is alive at once: accumulators, 4 MiB of float32, and 2 MiB of either packed operand.
constexpr int64_t kAccElements = 1 << 20;
constexpr int64_t kPackedElements = 1 << 19;
constexpr int64_t kSuper = 1024;         // rows and columns of a block that is as high as wide
constexpr int64_t kColumnBlock = 256;    // columns of a task where rows alone give too few tasks
constexpr int64_t kPackPanels = 8;       // panels that are packed at once: 512 bytes of a line
constexpr int64_t kTasksPerThread = 16;  // so that the last one to finish is not far behind
constexpr int64_t kSerialProducts = 1 << 19;  // about 15 us: below that threads do not pay

// The length of the parts where `whole` is cut into the fewest of at most `limit`: all but equal,
// and multiples of `unit`.
int64_t even_part(int64_t whole, int64_t limit, int64_t unit) {
    const int64_t parts = (whole + limit - 1) / limit;
    return round_up((whole + parts - 1) / parts, unit);
}

struct DepthBlocks {  // the blocks of k, aligned to the global index
    int64_t depth;
    int64_t origin;
    int64_t count() const { return (depth + origin + kDepthBlock - 1) / kDepthBlock; }
    int64_t begin(int64_t block) const {
        return std::max<int64_t>(0, block * kDepthBlock - origin);
    }
    int64_t size(int64_t block) const {
        return std::min(depth, (block + 1) * kDepthBlock - origin) - begin(block);
    }
};

}  // namespace

void matmul(const MatmulKernel& kernel, const void* mac, const MatmulProblem& problem,
            PackFn pack_left, PackFn pack_right, FinishFn finish) {
    if (problem.rows == 0 || problem.columns == 0) return;
    const DepthBlocks blocks{problem.depth, problem.depth_origin % kDepthBlock};
    const int64_t pack_columns =
        problem.pack_columns > 0 ? problem.pack_columns : kPackPanels * kernel.tile_columns;
    // A narrow product takes longer blocks of the other side, and a shallow one too.
    const int64_t depth = std::clamp<int64_t>(problem.depth, 1, kDepthBlock);
    const int64_t longest = kPackedElements / depth;
    const int64_t columns_super = even_part(
        problem.columns,
        std::clamp(kAccElements / round_up(problem.rows, kernel.tile_rows), kSuper, longest),
        std::max(problem.pack_columns, kernel.tile_columns));
    const int64_t rows_super = even_part(
        problem.rows, std::clamp(kAccElements / columns_super, kSuper, longest), kernel.tile_rows);
    const int64_t packed_blocks =
        std::clamp<int64_t>(kPackedElements / (std::max(rows_super, columns_super) * depth), 1,
                            std::max<int64_t>(1, blocks.count()));
    const int64_t left_block_bytes = rows_super * depth * kernel.left_bytes;
    const int64_t right_block_bytes = columns_super * depth * kernel.right_bytes;
    const Scratch left(packed_blocks * left_block_bytes);
    const Scratch right(packed_blocks * right_block_bytes);
    // Not a power of two: the rows of a tile would share a set of the first cache.
    const int64_t acc_stride = columns_super + kernel.tile_columns;
    const Scratch acc(rows_super * acc_stride * kernel.acc_bytes);
    const bool serial = static_cast<double>(problem.rows) * static_cast<double>(problem.columns) *
                            static_cast<double>(problem.depth) <
                        kSerialProducts;
    const auto run = [serial](int64_t tasks, auto&& body) {
        parallel_for(tasks, serial ? tasks : 1, [&](int64_t begin, int64_t end) {
            for (int64_t task = begin; task < end; ++task) body(task);
        });
    };

    for (int64_t j0 = 0; j0 < problem.columns; j0 += columns_super) {
        const int64_t columns = std::min(columns_super, problem.columns - j0);
        const int64_t right_packs = (columns + pack_columns - 1) / pack_columns;
        for (int64_t i0 = 0; i0 < problem.rows; i0 += rows_super) {
            const int64_t rows = std::min(rows_super, problem.rows - i0);
            const int64_t row_tiles = (rows + kernel.tile_rows - 1) / kernel.tile_rows;
            // As many for each thread, if there are tiles enough: of 11 blocks on two threads one
            // would wait for a twelfth of the time.
            const int64_t row_blocks =
                std::min(round_up(ceil_div(rows, kRowBlock), num_threads()), row_tiles);
            // Tiles are dealt out evenly: the blocks differ by one tile at most.
            const auto row_of = [&](int64_t block) {
                return std::min(rows, block * row_tiles / row_blocks * kernel.tile_rows);
            };
            const int64_t column_step = row_blocks >= kTasksPerThread * num_threads()
                                            ? columns_super
                                            : round_up(kColumnBlock, kernel.tile_columns);
            const int64_t column_blocks = (columns + column_step - 1) / column_step;
            // At least once, so that a product of depth 0 hands out zeros.
            for (int64_t b0 = 0; b0 == 0 || b0 < blocks.count(); b0 += packed_blocks) {
                const int64_t b1 = std::min(b0 + packed_blocks, blocks.count());
                const auto left_panels = [&](int64_t block, int64_t row) {
                    return left.as<char>() + (block - b0) * left_block_bytes +
                           row * blocks.size(block) * kernel.left_bytes;
                };
                const auto right_panels = [&](int64_t block, int64_t column) {
                    return right.as<char>() + (block - b0) * right_block_bytes +
                           column * blocks.size(block) * kernel.right_bytes;
                };
                const int64_t packs = right_packs + row_blocks;
                run((b1 - b0) * packs, [&](int64_t task) {
                    const int64_t block = b0 + task / packs;
                    const int64_t begin = blocks.begin(block);
                    const int64_t part = task % packs - right_packs;
                    if (part < 0) {
                        const int64_t column = task % packs * pack_columns;
                        pack_right(j0 + column, std::min(pack_columns, columns - column), begin,
                                   blocks.size(block), right_panels(block, column));
                    } else {
                        const int64_t row = row_of(part);
                        pack_left(i0 + row, row_of(part + 1) - row, begin, blocks.size(block),
                                  left_panels(block, row));
                    }
                });
                run(row_blocks * column_blocks, [&](int64_t task) {
                    const int64_t row = row_of(task / column_blocks);
                    const int64_t height = row_of(task / column_blocks + 1) - row;
                    const int64_t column = task % column_blocks * column_step;
                    const int64_t width = std::min(column_step, columns - column);
                    char* const sums =
                        acc.as<char>() +
                        (row * acc_stride + column * kernel.acc_rows) * kernel.acc_bytes;
                    if (blocks.count() == 0) {
                        kernel.multiply(mac, height, 0, width, left.as(), right.as(), sums,
                                        acc_stride, false);
                    }
                    for (int64_t block = b0; block < b1; ++block) {
                        kernel.multiply(mac, height, blocks.size(block), width,
                                        left_panels(block, row), right_panels(block, column), sums,
                                        acc_stride, block > 0);
                    }
                    if (b1 == blocks.count())
                        finish(i0 + row, height, j0 + column, width, sums, acc_stride);
                });
            }
        }
    }
}

}  // namespace slipstick::cpu
