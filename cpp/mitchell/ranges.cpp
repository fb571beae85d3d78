#include "mitchell/ranges.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>

#include "core/broadcast.hpp"
#include "core/error.hpp"
#include "mitchell/operands.hpp"

namespace slipstick::cpu::mitchell {
namespace {

// Elements that are worth a thread: 20 us.
constexpr int64_t kScanGrain = 1 << 17;

// The largest magnitude in an integer tensor, as a double (exact below 2^53, and operands have 32
// bits).
double largest_magnitude(const ConstTensor& tensor) {
    double largest = 0;
    dispatch_integer(tensor.dtype, [&]<class T>() {
        // One operand only: the tensor takes the place of the result, and is read.
        for_each_strip(
            Tensor{tensor}, {}, std::numeric_limits<int64_t>::max(), [&](const Strip& strip) {
                const auto* values = static_cast<const T*>(strip.data[0]);
                for (int64_t i = 0; i < strip.count; ++i) {
                    largest = std::max(largest,
                                       std::abs(static_cast<double>(values[i * strip.stride[0]])));
                }
            });
    });
    return largest;
}

}  // namespace

Magnitudes magnitudes_of(const ConstTensor& tensor) {
    if (!is_float(tensor.dtype) && item_size(tensor.dtype) < 4) {
        const int64_t operand_bits = item_size(tensor.dtype) * 8;
        return {1, uint64_t{1} << (operand_bits - 1), true};
    }
    const ScanFn scan = active_mitchell_matmul_kernels().matmul[tensor.dtype]->scan;
    Magnitudes result;
    std::mutex mutex;
    // One operand only: the tensor takes the place of the result, and is read.
    for_each_strip(Tensor{tensor}, {}, kScanGrain, [&](const Strip& strip) {
        Magnitudes part;
        scan(strip.data[0], strip.stride[0], strip.count, part);
        const std::lock_guard lock(mutex);
        result.lowest = std::min(result.lowest, part.lowest);
        result.highest = std::max(result.highest, part.highest);
        result.zeros |= part.zeros;
    });
    return result;
}

Magnitudes magnitudes_of(const Matrix& matrix) {
    const int64_t shape[2] = {matrix.rows, matrix.columns};
    const int64_t strides[2] = {matrix.row_stride, matrix.column_stride};
    return magnitudes_of(ConstTensor{matrix.data, matrix.dtype, 2, shape, strides});
}

void check_integer_sums(const char* function, Named left, Named right, const Method& method,
                        int64_t depth) {
    const ConstTensor& a = left.tensor;
    const ConstTensor& b = right.tensor;
    const Dtype sum = sum_dtype(a.dtype);
    const bool is_signed = sum == Dtype::kInt32 || sum == Dtype::kInt64;
    const double highest =
        std::ldexp(1.0, static_cast<int>(item_size(sum)) * 8 - (is_signed ? 1 : 0)) - 1;
    const double growth = method.bias > 0 ? 2.0 : 1.0;
    const double operand =
        std::ldexp(1.0, static_cast<int>(item_size(a.dtype)) * 8 - (is_signed ? 1 : 0)) -
        (is_signed ? 0 : 1);
    const double terms = growth * static_cast<double>(depth);
    if (terms * operand * operand < highest) return;
    const double bound = terms * largest_magnitude(a) * largest_magnitude(b);
    if (bound >= highest) {
        refuse_value(function, "`", left.name, "` and `", right.name,
                     "` must be small enough for exact sums in ", name(sum), ", got ", depth,
                     " products of ", name(a.dtype), " that could add up to ", bound);
    }
}

}  // namespace slipstick::cpu::mitchell
