// The rules of the family that do not depend on where it runs: which keys a row sees, lambda, the
// statistics of a row. The CPU and every kernel on a GPU use these.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "core/host_device.hpp"

namespace slipstick::attention {

// The law from n, the number of keys that a row may attend, to lambda, the factor on its scores.
// One row of float64 parameters a head, or one for all:
//   kAffineLog    lambda = p0 ln n + p1
//   kClippedLog   lambda = max(p0 ln n, p1)
//   kTemperature  lambda = p3 (1 + p0 ln(1 + floor((n - 1 + p2) / p1)))
//   kGiven        lambda = values, of any float type and broadcastable to the rows
enum class Law { kAffineLog, kClippedLog, kTemperature, kGiven };

// lambda in float64, for every law but kGiven; the caller rounds it once. ln 0 is not evaluated:
// a count below 1 is taken as 1.
SLIPSTICK_HD double factor(Law law, const double* p, int64_t n) {
    const auto count = static_cast<double>(n < 1 ? 1 : n);
    switch (law) {
        case Law::kAffineLog:
            return p[0] * std::log(count) + p[1];
        case Law::kClippedLog: {
            const double growing = p[0] * std::log(count);
            return growing < p[1] ? p[1] : growing;
        }
        default:
            return p[3] * (1.0 + p[0] * std::log(1.0 + std::floor((count - 1.0 + p[2]) / p[1])));
    }
}

inline constexpr int64_t kOpen = -1;  // a side of a window without a limit

struct KeyRange {  // first <= j < last; empty ranges are 0, 0
    int64_t first;
    int64_t last;
};

struct Window {
    bool causal;
    int64_t left;
    int64_t right;
};

// What length, causal order and window leave of the keys for query `query` of so many, which stands
// at key query + keys - queries. The sides of a window are at most keys + queries, so that no sum
// overflows.
SLIPSTICK_HD KeyRange key_range(const Window& window, int64_t queries, int64_t keys, int64_t length,
                                int64_t query) {
    const int64_t position = query + keys - queries;
    KeyRange seen{0, length};
    if (window.causal && position + 1 < seen.last) seen.last = position + 1;
    if (window.right != kOpen && position + window.right + 1 < seen.last)
        seen.last = position + window.right + 1;
    if (window.left != kOpen && position - window.left > 0) seen.first = position - window.left;
    return seen.first < seen.last ? seen : KeyRange{0, 0};
}

struct QueryRange {  // first <= i < last; empty ranges are 0, 0
    int64_t first;
    int64_t last;
};

// The other way round: the queries that see some of the keys `seen`, which are not none. Each of
// them does, so far as `seen` lies below `length`.
SLIPSTICK_HD QueryRange query_range(const Window& window, int64_t queries, int64_t keys,
                                    int64_t length, const KeyRange& seen) {
    if (seen.first >= length) return {0, 0};
    const int64_t offset = keys - queries;
    const int64_t last = seen.last < length ? seen.last : length;
    QueryRange range{0, queries};
    if (window.causal && seen.first - offset > range.first) range.first = seen.first - offset;
    if (window.right != kOpen && seen.first - offset - window.right > range.first)
        range.first = seen.first - offset - window.right;
    if (window.left != kOpen && last - offset + window.left < range.last)
        range.last = last - offset + window.left;
    return range.first < range.last ? range : QueryRange{0, 0};
}

template <class Acc>
struct RowStats {
    Acc lse;
    Acc entropy;
    Acc max_logit;
};

// Of m, the largest score; l, the sum of e^(s - m); a, the sum of e^(s - m) (s - m). `empty` where
// the row sees no key.
template <class Acc>
SLIPSTICK_HD RowStats<Acc> row_stats(bool empty, Acc maximum, Acc sum, Acc moment) {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    if (empty) return {static_cast<Acc>(-infinity), Acc{0}, static_cast<Acc>(-infinity)};
    // l is 0 where all visible scores are -inf, and NaN where one is NaN or +inf.
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const double total = sum == 0 ? nan : static_cast<double>(sum);
    double largest = maximum;
    const double lse = largest + std::log(total);
    const double entropy = std::log(total) - moment / total;
    if (sum != sum && largest != infinity) largest = nan;
    return {static_cast<Acc>(lse), static_cast<Acc>(entropy), static_cast<Acc>(largest)};
}

}  // namespace slipstick::attention
