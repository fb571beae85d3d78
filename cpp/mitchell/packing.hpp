// Panels of elements as lanes, for every kernel that packs. Included by *.simd.cpp alone.
#pragma once

#include "core/tile.hpp"
#include "mitchell/kernels.hpp"
#include "mitchell/lane_packing.hpp"
#include "mitchell/macs.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

using mitchell::Packing;
using slipstick::mitchell::LanePacking;

// For SumMac, either operand, and the right one of FlushMac.
template <int height, class T, class Sum>
void pack_sums(const Packing& shared, const void* source, int64_t stride, int64_t depth_stride,
               int64_t count, int64_t depth, void* packed) {
    using Lane = LaneOf<Sum>;
    const LanePacking<Lane> packing(shared);
    const auto pack = [&](auto convert) {
        pack_panels<height>(static_cast<const T*>(source), stride, depth_stride, count, depth,
                            static_cast<Lane*>(packed), convert, packing.zero);
    };
    if (packing.changes) {
        pack([=](T value) { return slipstick::mitchell::summand<Sum, true>(packing, value); });
    } else {
        pack([=](T value) { return slipstick::mitchell::summand<Sum, false>(packing, value); });
    }
}

// For FlushMac: bits and threshold of each element of the left operand.
template <int height, class T, class Sum, bool low_bits>
void pack_thresholds(const Packing& shared, const void* source, int64_t stride,
                     int64_t depth_stride, int64_t count, int64_t depth, void* packed) {
    using Lane = LaneOf<Sum>;
    using Left = typename FlushMac<Sum, low_bits>::Left;
    const LanePacking<Lane> packing(shared);
    const auto convert = [&](T value) {
        return slipstick::mitchell::thresholded<Sum>(packing, value);
    };
    pack_panels<height>(static_cast<const T*>(source), stride, depth_stride, count, depth,
                        static_cast<Left*>(packed), convert,
                        slipstick::mitchell::no_product<Lane>());
}

}  // namespace
}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
