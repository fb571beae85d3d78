// How single elements become lanes, for every kernel that packs. Included by *.simd.cpp alone.
#pragma once

#include "core/tile.hpp"
#include "mitchell/kernels.hpp"
#include "mitchell/lanes.hpp"
#include "mitchell/macs.hpp"
#include "mitchell/product.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

using mitchell::Packing;

// The bits of an element's value in lanes of Sum. A subnormal float16 stays below the widened
// smallest normal one, whatever else becomes of it.
template <class T, class Sum>
SLIPSTICK_INLINE LaneOf<Sum> widened(T value) {
    if constexpr (DtypeOf<T>::value == Dtype::kFloat16) {
        const uint32_t magnitude = value.bits & 0x7fffu;
        return ((value.bits & 0x8000u) << 16) | ((magnitude << 13) + 0x38000000u);
    } else if constexpr (DtypeOf<T>::value == Dtype::kBFloat16) {
        return uint32_t{value.bits} << 16;
    } else {
        return bits::of(static_cast<Sum>(value));
    }
}

// Infinities and NaNs, whose widened float16 pattern is an ordinary number's.
template <class T>
SLIPSTICK_INLINE bool is_special(T value) {
    if constexpr (std::is_integral_v<T>) {
        return false;
    } else {
        const auto pattern = bit_cast<Pattern<T>>(value);
        return slipstick::mitchell::is_special(pattern, format<T, Pattern<T>>());
    }
}
template <class Sum, class T>
SLIPSTICK_INLINE Sum number(T value) {
    if constexpr (sizeof(T) == 2 && !std::is_integral_v<T>) {
        return to_float(value);
    } else {
        return static_cast<Sum>(value);
    }
}

// A Packing in lanes: arithmetic in 64 bits would halve the speed of packing.
template <class Lane>
struct LanePacking {
    Lane half, odd, keep, set, set_from, bias, zero, smallest;
    int odd_shift;
    bool changes;

    explicit LanePacking(const Packing& packing)
        : half(static_cast<Lane>(packing.change.half)),
          odd(static_cast<Lane>(packing.change.odd)),
          keep(static_cast<Lane>(packing.change.keep)),
          set(static_cast<Lane>(packing.change.set)),
          set_from(static_cast<Lane>(packing.change.set_from)),
          bias(static_cast<Lane>(packing.bias)),
          zero(static_cast<Lane>(packing.zero)),
          smallest(static_cast<Lane>(packing.smallest)),
          odd_shift(packing.change.odd_shift),
          changes(half != 0 || keep != static_cast<Lane>(~Lane{0}) || set != 0) {}

    SLIPSTICK_INLINE Lane changed(Lane magnitude) const {
        const Lane rounded = (magnitude + half + ((magnitude >> odd_shift) & odd)) & keep;
        return rounded | (less(magnitude, set_from) ? Lane{0} : set);
    }
    SLIPSTICK_INLINE bool is_zero(Lane magnitude) const { return less(magnitude, smallest); }
    // All bits where it is; magnitudes leave the top bit clear.
    SLIPSTICK_INLINE Lane all_if_zero(Lane magnitude) const {
        using slipstick::mitchell::as_signed;
        return static_cast<Lane>(as_signed(magnitude - smallest) >> (8 * sizeof(Lane) - 1));
    }

    // Magnitudes leave the top bit clear, and signed comparisons are one instruction.
    SLIPSTICK_INLINE static bool less(Lane a, Lane b) {
        using slipstick::mitchell::as_signed;
        return as_signed(a) < as_signed(b);
    }
};

template <class Lane>
SLIPSTICK_INLINE Lane magnitude_of(Lane lane) {
    return lane & (kSign<Lane> - 1);
}

// For SumMac, either operand, and the right one of FlushMac.
template <int height, class T, class Sum>
void pack_sums(const Packing& shared, const void* source, int64_t stride, int64_t depth_stride,
               int64_t count, int64_t depth, void* packed) {
    using Lane = LaneOf<Sum>;
    const LanePacking<Lane> packing(shared);
    const auto pack = [&](auto changed) {
        const auto convert = [=](T value) {
            const Lane lane = widened<T, Sum>(value);
            const Lane magnitude = magnitude_of(lane);
            const Lane sign = lane ^ magnitude;
            const Lane result = (changed(magnitude) | sign) + packing.bias;
            // In arithmetic: a branch here would keep the loop from vectors.
            const Lane is_zero = packing.all_if_zero(magnitude);
            return (result & ~is_zero) | (packing.zero & is_zero);
        };
        pack_panels<height>(static_cast<const T*>(source), stride, depth_stride, count, depth,
                            static_cast<Lane*>(packed), convert, packing.zero);
    };
    if (packing.changes) {
        pack([=](Lane magnitude) { return packing.changed(magnitude); });
    } else {
        pack([](Lane magnitude) { return magnitude; });
    }
}

// For FlushMac: bits and threshold of each element of the left operand.
template <int height, class T, class Sum, bool low_bits>
void pack_thresholds(const Packing& shared, const void* source, int64_t stride,
                     int64_t depth_stride, int64_t count, int64_t depth, void* packed) {
    using Lane = LaneOf<Sum>;
    using Left = typename FlushMac<Sum, low_bits>::Left;
    const LanePacking<Lane> packing(shared);
    constexpr Lane never = kSign<Lane> - 1;
    const auto convert = [&](T value) {
        const Lane lane = widened<T, Sum>(value);
        const Lane magnitude = magnitude_of(lane);
        if (packing.is_zero(magnitude)) return Left{0, never};
        const Lane change = packing.changed(magnitude);
        // change + bias + |right| >= smallest, and |right| >= smallest
        const Lane above = change + packing.bias;
        const bool enlarges = slipstick::mitchell::as_signed(above) >= 0;
        return Left{(change | (lane ^ magnitude)) + packing.bias,
                    (enlarges ? packing.smallest : packing.smallest - above) - 1};
    };
    pack_panels<height>(static_cast<const T*>(source), stride, depth_stride, count, depth,
                        static_cast<Left*>(packed), convert, Left{0, never});
}

}  // namespace
}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
