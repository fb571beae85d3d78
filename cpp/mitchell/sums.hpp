// Whether sums of integer products fit their dtype, as far as dtype and method say.
#pragma once

#include "core/checks.hpp"
#include "mitchell/method.hpp"

namespace slipstick::mitchell {

using Wide = unsigned __int128;  // 2^63 products of up to 2^64 add up to 2^127

// The magnitude that no product exceeds: it saturates there, or is a table's largest entry.
Wide largest_product(Dtype dtype, const Method& method);

// How many times the exact product a method's can be.
uint64_t growth_of(const Method& method);

// Whether a sum of `depth` products of operands of `dtype` fits, none of them above `product`.
bool sums_fit(Dtype dtype, int64_t depth, Wide product);

// Refuses, in the name of `function`, sums that do not fit.
void check_sums_fit(const char* function, Named left, Named right, int64_t depth, Wide product);

// The check for a device that must not wait for its data.
void check_sums_by_bound(const char* function, Named left, Named right, const Method& method,
                         int64_t depth);

}  // namespace slipstick::mitchell
