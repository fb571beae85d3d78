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

constexpr int64_t kGrain = 1 << 16;      // products that are worth a thread: 10 us
constexpr int64_t kTurnedColumns = 128;  // of a strip: eight panels share the packed left operand

// The left operand has few rows.
bool multiply_few_rows(const Method& method, const Matrix& a, const Matrix& b, double multiplier,
                       const Matrix& out) {
    const bool turned = b.column_stride != 1;
    if (turned && b.row_stride != 1) return false;
    const std::optional<ThinPlan> plan =
        make_thin_plan(a.dtype, method, magnitudes_of(a), a.columns);
    if (!plan) return false;

    const Thin& kernels = *active_mitchell_thin_kernels().thin[a.dtype];
    const ThinPath& path = plan->masked ? kernels.masked : kernels.plain;
    const int64_t sum_bytes = a.dtype == Dtype::kFloat64 ? 8 : 4;
    const int64_t width = thin_columns(a.rows);
    // As many strips as threads at least, of whole cache lines.
    const int64_t share = (b.columns / num_threads() + 63) / 64 * 64;
    const int64_t step = std::clamp<int64_t>(share, 64, turned ? kTurnedColumns : width);
    const int64_t strips = (b.columns + step - 1) / step;
    const int64_t grain = std::max<int64_t>(1, kGrain / (step * a.columns * a.rows + 1));
    std::atomic<bool> in_range{true};
    parallel_for(strips, grain, [&](int64_t begin, int64_t end) {
        const Scratch left(a.rows * kThinDepth * path.left_bytes);
        const Scratch total(kThinSums * sum_bytes);
        for (int64_t strip = begin; strip < end && in_range; ++strip) {
            const int64_t column = strip * step;
            const int64_t columns = std::min(step, b.columns - column);
            Magnitudes seen;
            for (int64_t k = 0; k < a.columns; k += kThinDepth) {
                const int64_t depth = std::min<int64_t>(kThinDepth, a.columns - k);
                for (int64_t i = 0; i < a.rows; ++i) {
                    path.pack_left(plan->left, address(a, i, k), 0, a.column_stride, 1, depth,
                                   left.as<char>() + i * kThinDepth * path.left_bytes);
                }
                (turned ? path.run_turned : path.run)(plan->mac, left.as(), a.rows,
                                                      address(b, k, column),
                                                      turned ? b.column_stride : b.row_stride,
                                                      depth, columns, total.as(), k > 0, seen);
            }
            if (seen.lowest < plan->lowest || seen.highest > plan->highest) in_range = false;
            store_scaled(total.as(), width, a.rows, columns, multiplier, out, 0, column);
        }
    });
    return in_range;
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
