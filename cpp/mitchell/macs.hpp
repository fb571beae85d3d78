// The Macs (core/tile.hpp) of approximate products. Included by *.simd.cpp alone.
#pragma once

#include "core/simd.hpp"
#include "core/tile.hpp"
#include "mitchell/kernels.hpp"
#include "mitchell/lane_packing.hpp"
#include "mitchell/lanes.hpp"
#include "mitchell/product.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

using mitchell::MacConstants;
using slipstick::mitchell::kSign;

template <class Sum>
using LaneOf = typename BitsOf<Sum>::Unsigned;

// A chain as it is added up: as it is, or as the integer that it holds exactly.
template <class Total, class Chain>
SLIPSTICK_INLINE Vec<Total> total(Chain chain) {
    if constexpr (std::is_floating_point_v<Total>) {
        return chain;
    } else if constexpr (sizeof(Total) == 4) {
        // Below 2^24: as a signed integer, which is one instruction on every level.
        return bit_cast<Vec<Total>>(__builtin_convertvector(chain, Vec<int32_t>));
    } else {
        // Below 2^51 the sum with 1.5 * 2^52 holds the integer in its low bits.
        const Chain shifter = broadcast(0x1.8p52);
        return bit_cast<Vec<Total>>(chain + shifter) - bit_cast<Vec<Total>>(shifter);
    }
}

// Two patterns added: the whole product, sign included, of operands whose range is certified.
// Zeros are patterns so small that whatever they give vanishes beside every other product, and
// `finish` sees to chains of nothing else.
template <class Sum, class TotalType, bool low_bits>
struct SumMac {
    using Left = LaneOf<Sum>;
    using Right = LaneOf<Sum>;
    using Acc = Sum;
    using Total = TotalType;
    static constexpr bool kHeavy = false;
    MacConstants constants;

    SLIPSTICK_INLINE Vec<Sum> operator()(Vec<Sum> acc, Left left, Vec<Right> right) const {
        Vec<Right> bits = broadcast(left) + right;
        if constexpr (low_bits) bits |= broadcast(static_cast<Left>(constants.low_bits));
        return acc + bit_cast<Vec<Sum>>(bits);
    }

    SLIPSTICK_INLINE Vec<Total> finish(Vec<Sum> chain) const {
        const auto magnitude = bit_cast<Vec<Sum>>(bit_cast<Vec<Right>>(chain) & (kSign<Right> - 1));
        const Vec<Sum> zero = {};
        chain = magnitude < static_cast<Sum>(constants.smallest_chain) ? zero : chain;
        return total<Total>(chain * static_cast<Sum>(constants.unscale));
    }
};

// The same with the zeros of the left operand masked, whatever they would give.
template <class Sum>
struct MaskedMac : SumMac<Sum, Sum, false> {
    using Lane = LaneOf<Sum>;
    struct Left {
        Lane bits;
        Lane mask;
    };

    SLIPSTICK_INLINE Vec<Sum> operator()(Vec<Sum> acc, Left left, Vec<Lane> right) const {
        return acc + bit_cast<Vec<Sum>>((broadcast(left.bits) + right) & broadcast(left.mask));
    }
};

// Sums for finite operands whose products cannot overflow: every product that is zero, or falls
// below the normal range, is masked. The threshold belongs to the left element: magnitudes of the
// right one above it give a normal product.
template <class Sum, bool low_bits>
struct FlushMac {
    using Lane = LaneOf<Sum>;
    using Left = slipstick::mitchell::Thresholded<Lane>;
    using Right = Lane;
    using Acc = Sum;
    using Total = Sum;
    static constexpr bool kHeavy = false;
    MacConstants constants;

    SLIPSTICK_INLINE Vec<Sum> operator()(Vec<Sum> acc, Left left, Vec<Lane> right) const {
        using slipstick::mitchell::as_signed;
        const Vec<Lane> magnitude = right & (kSign<Lane> - 1);
        const auto normal = as_signed(magnitude) > as_signed(broadcast(left.threshold));
        Vec<Lane> bits = broadcast(left.bits) + right;
        if constexpr (low_bits) bits |= broadcast(static_cast<Lane>(constants.low_bits));
        return acc + bit_cast<Vec<Sum>>(bits & bit_cast<Vec<Lane>>(normal));
    }
    SLIPSTICK_INLINE Vec<Sum> finish(Vec<Sum> chain) const { return chain; }
};

// Ordinary products, for methods that are exact products of changed operands. Not fused at v2, so
// that bits may differ there; integers are exact anyway.
template <class Sum, class TotalType>
struct ChangedMac : FastMac<Sum> {
    using Total = TotalType;
    SLIPSTICK_INLINE Vec<Total> finish(Vec<Sum> chain) const { return total<Total>(chain); }
};

}  // namespace
}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
