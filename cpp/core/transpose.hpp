// Exchanging the rows and columns of a square of elements in registers. Included by *.simd.cpp
// alone.
#pragma once

#include <utility>

#include "core/simd.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

// The low or the high halves of groups of `group` lanes, `unit` lanes of a and of b in turn.
template <int group, int unit, bool high, class V, int... lane>
SLIPSTICK_INLINE V unpack(V a, V b, std::integer_sequence<int, lane...>) {
    constexpr int lanes = sizeof...(lane);
    constexpr int half = high ? group / 2 : 0;
    return __builtin_shufflevector(a, b,
                                   (lane / group * group + half + lane % group / (2 * unit) * unit +
                                    lane % unit + (lane / unit % 2 == 0 ? 0 : lanes))...);
}

// Blocks of `size` lanes: the even ones of a and b in turn, or the odd ones.
template <int size, bool odd, class V, int... lane>
SLIPSTICK_INLINE V pick(V a, V b, std::integer_sequence<int, lane...>) {
    constexpr int lanes = sizeof...(lane);
    return __builtin_shufflevector(
        a, b,
        (lane / size % 2 == 0 ? lane + (odd ? size : 0) : lanes + lane - (odd ? 0 : size))...);
}

// rows[i][j] becomes rows[j][i], for elements of 4 or 8 bytes. First in units of 16 bytes, which
// shuffles of one cycle serve, then of the units.
template <class T>
SLIPSTICK_INLINE void transpose(Vec<T> (&rows)[kLanes<T>]) {
    constexpr int lanes = kLanes<T>;
    constexpr int unit = 16 / static_cast<int>(sizeof(T));
    constexpr int units = lanes / unit;
    constexpr std::make_integer_sequence<int, lanes> all{};
    Vec<T> columns[unit][units];
#pragma GCC unroll 4
    for (int u = 0; u < units; ++u) {
        Vec<T>* const row = rows + u * unit;
        if constexpr (unit == 2) {
            columns[0][u] = unpack<2, 1, false>(row[0], row[1], all);
            columns[1][u] = unpack<2, 1, true>(row[0], row[1], all);
        } else {
            const Vec<T> low01 = unpack<4, 1, false>(row[0], row[1], all);
            const Vec<T> low23 = unpack<4, 1, false>(row[2], row[3], all);
            const Vec<T> high01 = unpack<4, 1, true>(row[0], row[1], all);
            const Vec<T> high23 = unpack<4, 1, true>(row[2], row[3], all);
            columns[0][u] = unpack<4, 2, false>(low01, low23, all);
            columns[1][u] = unpack<4, 2, true>(low01, low23, all);
            columns[2][u] = unpack<4, 2, false>(high01, high23, all);
            columns[3][u] = unpack<4, 2, true>(high01, high23, all);
        }
    }
#pragma GCC unroll 4
    for (int j = 0; j < unit; ++j) {
        Vec<T>* const column = columns[j];
        const auto exchange = [&]<int distance>(int first) {
            const Vec<T> a = column[first];
            const Vec<T> b = column[first + distance];
            column[first] = pick<distance * unit, false>(a, b, all);
            column[first + distance] = pick<distance * unit, true>(a, b, all);
        };
        if constexpr (units == 4) {
            exchange.template operator()<2>(0);
            exchange.template operator()<2>(1);
            exchange.template operator()<1>(0);
            exchange.template operator()<1>(2);
        } else if constexpr (units == 2) {
            exchange.template operator()<1>(0);
        }
#pragma GCC unroll 4
        for (int u = 0; u < units; ++u) rows[u * unit + j] = column[u];
    }
}

}  // namespace
}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
