#include "mitchell/sums.hpp"

#include <algorithm>
#include <limits>
#include <type_traits>

#include "core/error.hpp"
#include "mitchell/operands.hpp"

namespace slipstick::mitchell {
namespace {

uint64_t largest_entry(const Table& table) {
    uint64_t largest = 0;
    for (const uint16_t entry : table.entries) {
        const uint64_t magnitude =
            table.is_signed ? magnitude_of_integer(static_cast<int16_t>(entry)) : entry;
        largest = std::max(largest, magnitude);
    }
    return largest;
}

Wide highest_sum(Dtype dtype) {
    const Dtype sum = sum_dtype(dtype);
    const bool is_signed = sum == Dtype::kInt32 || sum == Dtype::kInt64;
    return (Wide{1} << (item_size(sum) * 8 - (is_signed ? 1 : 0))) - 1;
}

}  // namespace

Wide largest_product(Dtype dtype, const Method& method) {
    if (method.kind == Kind::kTable) return largest_entry(*method.table);
    return dispatch_integer(dtype, []<class T>() {
        using Product = Wider<T>;
        const auto highest = static_cast<uint64_t>(std::numeric_limits<Product>::max());
        return std::is_signed_v<Product> ? highest + 1 : highest;
    });
}

// An offset d gives at most 1 + d. DRUM and MBM set the last bit kept, which makes an operand at
// most 3/2 of what it was and a product 9/4; the ones of ALMSOA at most double it, and rounding and
// offset of LMul(1) give 2.16.
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

bool sums_fit(Dtype dtype, int64_t depth, Wide product) {
    // One product fits, since its own dtype is no wider than that of the sum.
    return depth <= 1 || static_cast<Wide>(depth) * product <= highest_sum(dtype);
}

void check_sums_fit(const char* function, Named left, Named right, int64_t depth, Wide product) {
    const Dtype dtype = left.tensor.dtype;
    if (sums_fit(dtype, depth, product)) return;
    refuse_value(function, "`", left.name, "` and `", right.name,
                 "` must be small enough for exact sums in ", name(sum_dtype(dtype)), ", got ",
                 depth, " products of ", name(dtype), " that could add up to ",
                 static_cast<double>(static_cast<Wide>(depth) * product));
}

void check_sums_by_bound(const char* function, Named left, Named right, const Method& method,
                         int64_t depth) {
    check_sums_fit(function, left, right, depth, largest_product(left.tensor.dtype, method));
}

}  // namespace slipstick::mitchell
