#include "mitchell/ranges.hpp"

#include <algorithm>
#include <limits>
#include <mutex>

#include "core/broadcast.hpp"
#include "mitchell/operands.hpp"
#include "mitchell/plan_rules.hpp"
#include "mitchell/sums.hpp"

namespace slipstick::cpu::mitchell {
namespace {

// Elements that are worth a thread: 20 us.
constexpr int64_t kScanGrain = 1 << 17;

// The largest magnitude in an integer tensor.
uint64_t largest_magnitude(const ConstTensor& tensor) {
    uint64_t largest = 0;
    dispatch_integer(tensor.dtype, [&]<class T>() {
        // One operand only: the tensor takes the place of the result, and is read.
        for_each_strip(
            Tensor{tensor}, {}, std::numeric_limits<int64_t>::max(), [&](const Strip& strip) {
                const auto* values = static_cast<const T*>(strip.data[0]);
                for (int64_t i = 0; i < strip.count; ++i) {
                    largest = std::max(largest, slipstick::mitchell::magnitude_of_integer(
                                                    values[i * strip.stride[0]]));
                }
            });
    });
    return largest;
}

void check_integer_sums(const char* function, Named left, Named right, const Method& method,
                        int64_t depth) {
    const Dtype dtype = left.tensor.dtype;
    Wide product = largest_product(dtype, method);
    if (sums_fit(dtype, depth, product)) return;
    if (method.kind != Kind::kTable) {
        const Wide exact = Wide{largest_magnitude(left.tensor)} * largest_magnitude(right.tensor);
        product = std::min(product, growth_of(method) * exact);
    }
    check_sums_fit(function, left, right, depth, product);
}

}  // namespace

Magnitudes magnitudes_of(const ConstTensor& tensor) {
    if (!is_float(tensor.dtype) && item_size(tensor.dtype) < 4) return limits_of(tensor.dtype);
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

const Sums& cpu_sums() {
    static constexpr Sums kSums{&is_operand, kAllDtypes, kFloatDtypes, &check_integer_sums};
    return kSums;
}

}  // namespace slipstick::cpu::mitchell
