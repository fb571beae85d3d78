#include "core/matmul.hpp"

#include <algorithm>

namespace slipstick::cpu {
namespace {

constexpr int64_t kRowBlock = 96;  // 96 x 256 float32 = 96 KiB of left operand, of a 512 KiB L2
constexpr int64_t kRowSuper = 1024;    // rows whose accumulators are alive at once
constexpr int64_t kColumnSuper = 1024;  // columns likewise: 4 MiB; and that are packed at once
constexpr int64_t kColumnBlock = 128;   // columns of a task where rows alone give too few tasks
constexpr int64_t kDepthBlocksPacked = 2;  // depth blocks packed at once: 2 MiB at 1024 columns
constexpr int64_t kSerialProducts = 1 << 20;  // about 50 us: below that threads do not pay

int64_t round_up(int64_t value, int64_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

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
    // Even parts: a short last one would leave threads idle.
    const int64_t rows_super = even_part(problem.rows, kRowSuper, kernel.tile_rows);
    const int64_t pack_columns =
        problem.pack_columns > 0 ? problem.pack_columns : kernel.tile_columns;
    const int64_t columns_super = even_part(problem.columns, kColumnSuper, pack_columns);
    const int64_t packed_blocks = std::clamp<int64_t>(blocks.count(), 1, kDepthBlocksPacked);
    const int64_t right_block_bytes = columns_super * kDepthBlock * kernel.right_bytes;
    const Scratch right(packed_blocks * right_block_bytes);
    const Scratch acc(rows_super * columns_super * kernel.acc_bytes);
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
        const int64_t packs = (columns + pack_columns - 1) / pack_columns;
        for (int64_t i0 = 0; i0 < problem.rows; i0 += rows_super) {
            const int64_t rows = std::min(rows_super, problem.rows - i0);
            const int64_t row_tiles = (rows + kernel.tile_rows - 1) / kernel.tile_rows;
            const int64_t row_blocks = round_up((rows + kRowBlock - 1) / kRowBlock,
                                                rows > kRowBlock ? num_threads() : 1);
            const int64_t column_step =
                row_blocks >= 8 ? columns_super : round_up(kColumnBlock, kernel.tile_columns);
            const int64_t column_blocks = (columns + column_step - 1) / column_step;
            // At least once, so that a product of depth 0 hands out zeros.
            for (int64_t b0 = 0; b0 == 0 || b0 < blocks.count(); b0 += packed_blocks) {
                const int64_t b1 = std::min(b0 + packed_blocks, blocks.count());
                run((b1 - b0) * packs, [&](int64_t task) {
                    const int64_t block = b0 + task / packs;
                    const int64_t column = task % packs * pack_columns;
                    const int64_t depth = blocks.size(block);
                    pack_right(j0 + column, std::min(pack_columns, columns - column),
                               blocks.begin(block), depth,
                               right.as<char>() + (block - b0) * right_block_bytes +
                                   column * depth * kernel.right_bytes);
                });
                run(row_blocks * column_blocks, [&](int64_t task) {
                    const int64_t row_block = task / column_blocks;
                    const int64_t row = row_block * row_tiles / row_blocks * kernel.tile_rows;
                    const int64_t end =
                        (row_block + 1) * row_tiles / row_blocks * kernel.tile_rows;
                    const int64_t height = std::min(end, rows) - row;
                    if (height <= 0) return;
                    const int64_t column = task % column_blocks * column_step;
                    const int64_t width = std::min(column_step, columns - column);
                    char* const sums =
                        acc.as<char>() + (row * columns_super + column) * kernel.acc_bytes;
                    const Scratch left(round_up(height, kernel.tile_rows) * kDepthBlock *
                                       kernel.left_bytes);
                    if (blocks.count() == 0) {
                        kernel.multiply(mac, height, 0, width, left.as(), right.as(), sums,
                                        columns_super, false);
                    }
                    for (int64_t block = b0; block < b1; ++block) {
                        const int64_t depth = blocks.size(block);
                        pack_left(i0 + row, height, blocks.begin(block), depth, left.as());
                        kernel.multiply(mac, height, depth, width, left.as(),
                                        right.as<char>() + (block - b0) * right_block_bytes +
                                            column * depth * kernel.right_bytes,
                                        sums, columns_super, block > 0);
                    }
                    if (b1 == blocks.count())
                        finish(i0 + row, height, j0 + column, width, sums, columns_super);
                });
            }
        }
    }
}

}  // namespace slipstick::cpu
