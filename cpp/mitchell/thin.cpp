#include "mitchell/thin.hpp"

#include <algorithm>
#include <atomic>
#include <optional>

#include "core/matmul.hpp"
#include "mitchell/kernels.hpp"
#include "mitchell/matrices.hpp"
#include "mitchell/operands.hpp"
#include "mitchell/plan.hpp"
#include "mitchell/ranges.hpp"

namespace slipstick::cpu::mitchell {
namespace {

constexpr int64_t kGrain = 1 << 16;  // products that are worth a thread: 10 us

// The left operand has few rows.
bool multiply_few_rows(const Method& method, const Matrix& a, const Matrix& b, double multiplier,
                       const Matrix& out) {
    const bool turned = b.column_stride != 1;
    if (turned && b.row_stride != 1) return false;
    const std::optional<ThinPlan> plan = make_thin_plan(a.dtype, method, magnitudes_of(a));
    if (!plan) return false;

    const Thin& kernels = *active_mitchell_thin_kernels().thin[a.dtype];
    const int64_t sum_bytes = a.dtype == Dtype::kFloat64 ? 8 : 4;
    const Scratch left(std::max<int64_t>(1, a.rows * a.columns * kernels.left_bytes));
    for (int64_t i = 0; i < a.rows; ++i) {
        kernels.pack_left(plan->left, address(a, i, 0), 0, a.column_stride, 1, a.columns,
                          left.as<char>() + i * a.columns * kernels.left_bytes);
    }
    const int64_t width = thin_columns(a.rows);
    // As many strips as threads at least, of whole cache lines.
    const int64_t share = (b.columns / num_threads() + 63) / 64 * 64;
    const int64_t step = turned ? kThinPanel : std::clamp<int64_t>(share, 64, width);
    const int64_t strips = (b.columns + step - 1) / step;
    const int64_t grain = std::max<int64_t>(1, kGrain / (step * a.columns * a.rows + 1));
    std::atomic<uint64_t> highest{0};
    parallel_for(strips, grain, [&](int64_t begin, int64_t end) {
        const Scratch total(kThinSums * sum_bytes);
        const Scratch panel(turned ? kThinPanel * kDepthBlock * sum_bytes : 1);
        uint64_t own = 0;
        for (int64_t strip = begin; strip < end && own <= plan->highest; ++strip) {
            const int64_t column = strip * step;
            const int64_t columns = std::min(step, b.columns - column);
            // At least once, so that a product of depth 0 hands out zeros.
            for (int64_t k = 0; k == 0 || k < a.columns; k += kDepthBlock) {
                const int64_t depth = std::min(kDepthBlock, a.columns - k);
                const void* lines = address(b, k, column);
                if (turned) {
                    kernels.turn(lines, b.column_stride, columns, depth, panel.as());
                    lines = panel.as();
                }
                (turned ? kernels.run_turned : kernels.run)(
                    left.as<char>() + k * kernels.left_bytes, a.columns, a.rows, lines,
                    turned ? kThinPanel : b.row_stride, depth, columns, total.as(), k > 0, own);
            }
            store_scaled(total.as(), width, a.rows, columns, multiplier, out, 0, column);
        }
        uint64_t seen = highest;
        while (seen < own && !highest.compare_exchange_weak(seen, own)) continue;
    });
    return highest <= plan->highest;
}

}  // namespace

bool multiply_thin(const Method& method, const Matrix& a, const Matrix& b, double multiplier,
                   const Matrix& out) {
    if (!is_float(a.dtype) || method.kind != Kind::kMitchell || a.columns == 0) return false;
    if (a.rows <= kThinRows && a.rows <= b.columns)
        return multiply_few_rows(method, a, b, multiplier, out);
    // The product commutes, bit for bit: c^T = b^T a^T.
    if (b.columns <= kThinRows) {
        return multiply_few_rows(method, transposed(b), transposed(a), multiplier, transposed(out));
    }
    return false;
}

}  // namespace slipstick::cpu::mitchell
