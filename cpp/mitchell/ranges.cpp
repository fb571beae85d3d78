#include "mitchell/ranges.hpp"

#include <algorithm>
#include <limits>
#include <mutex>
#include <type_traits>

#include "core/broadcast.hpp"
#include "core/error.hpp"
#include "mitchell/operands.hpp"

namespace slipstick::cpu::mitchell {
namespace {

// Elements that are worth a thread: 20 us.
constexpr int64_t kScanGrain = 1 << 17;

using Wide = unsigned __int128;  // 2^63 products of up to 2^64 add up to 2^127

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

// The magnitude that no product of `dtype` exceeds: it saturates there.
uint64_t largest_product(Dtype dtype) {
    return dispatch_integer(dtype, []<class T>() {
        using Product = slipstick::mitchell::Wider<T>;
        const auto highest = static_cast<uint64_t>(std::numeric_limits<Product>::max());
        return std::is_signed_v<Product> ? highest + 1 : highest;
    });
}

uint64_t largest_entry(const Table& table) {
    uint64_t largest = 0;
    for (const uint16_t entry : table.entries) {
        const uint64_t magnitude =
            table.is_signed ? slipstick::mitchell::magnitude_of_integer(static_cast<int16_t>(entry))
                            : entry;
        largest = std::max(largest, magnitude);
    }
    return largest;
}

// How many times the exact product a method's can be. An offset d gives at most 1 + d. DRUM and MBM
// set the last bit kept, which makes an operand at most 3/2 of what it was and a product 9/4; the
// ones of ALMSOA at most double it, and rounding and offset of LMul(1) give 2.16.
uint64_t growth_of(const Method& method) {
    switch (method.kind) {
        case Kind::kMitchell:
            return method.bias > 0 ? 2 : 1;
        case Kind::kMitchW:
        case Kind::kIlm:
        case Kind::kOperandDecomposition:
            return 1;
        default:
            return 4;
    }
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
    const Wide highest = (Wide{1} << (item_size(sum) * 8 - (is_signed ? 1 : 0))) - 1;
    const auto terms = static_cast<Wide>(depth);
    const bool looked_up = method.kind == Kind::kTable;
    Wide product = looked_up ? largest_entry(*method.table) : largest_product(a.dtype);
    // One product fits, since its own dtype is no wider than that of the sum.
    if (depth <= 1 || terms * product <= highest) return;
    if (!looked_up) {
        const Wide exact = Wide{largest_magnitude(a)} * largest_magnitude(b);
        product = std::min(product, growth_of(method) * exact);
    }
    const Wide bound = terms * product;
    if (bound > highest) {
        refuse_value(function, "`", left.name, "` and `", right.name,
                     "` must be small enough for exact sums in ", name(sum), ", got ", depth,
                     " products of ", name(a.dtype), " that could add up to ",
                     static_cast<double>(bound));
    }
}

}  // namespace slipstick::cpu::mitchell
