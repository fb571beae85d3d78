// How single elements become lanes, on every device: the bits of their value in the type that sums
// are kept in, changed as a Packing says.
#pragma once

#include <type_traits>

#include "core/dtype.hpp"
#include "core/host_device.hpp"
#include "mitchell/formats.hpp"
#include "mitchell/plan_data.hpp"
#include "mitchell/product.hpp"

namespace slipstick::mitchell {

template <class Sum>
using SumLane = std::conditional_t<sizeof(Sum) == 8, uint64_t, uint32_t>;

template <class Lane>
inline constexpr Lane kSign = Lane{1} << (8 * sizeof(Lane) - 1);

template <class Lane>
SLIPSTICK_HD Lane magnitude_of(Lane lane) {
    return lane & (kSign<Lane> - 1);
}

SLIPSTICK_HD float from_bits(uint32_t lane) { return bits::as_float(lane); }
SLIPSTICK_HD double from_bits(uint64_t lane) { return bits::as_double(lane); }

// The bits of an element's value in lanes of Sum. A subnormal float16 stays below the widened
// smallest normal one, whatever else becomes of it.
template <class T, class Sum>
SLIPSTICK_HD SumLane<Sum> widened(T value) {
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
SLIPSTICK_HD bool is_special(T value) {
    if constexpr (std::is_integral_v<T>) {
        return false;
    } else {
        Pattern<T> pattern;
        __builtin_memcpy(&pattern, &value, sizeof pattern);
        return is_special(pattern, format<T, Pattern<T>>());
    }
}

// The value itself.
template <class Sum, class T>
SLIPSTICK_HD Sum number(T value) {
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

    SLIPSTICK_HD explicit LanePacking(const Packing& packing)
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

    SLIPSTICK_HD Lane changed(Lane magnitude) const {
        const Lane rounded = (magnitude + half + ((magnitude >> odd_shift) & odd)) & keep;
        return rounded | (less(magnitude, set_from) ? Lane{0} : set);
    }
    SLIPSTICK_HD bool is_zero(Lane magnitude) const { return less(magnitude, smallest); }
    // All bits where it is; magnitudes leave the top bit clear.
    SLIPSTICK_HD Lane all_if_zero(Lane magnitude) const {
        return static_cast<Lane>(as_signed(magnitude - smallest) >> (8 * sizeof(Lane) - 1));
    }

    // Magnitudes leave the top bit clear, and signed comparisons are one instruction.
    SLIPSTICK_HD static bool less(Lane a, Lane b) { return as_signed(a) < as_signed(b); }
};

// An element for sums of patterns, either operand, and the right one of flushed sums. `changes`:
// whether the packing changes magnitudes.
template <class Sum, bool changes, class T>
SLIPSTICK_HD SumLane<Sum> summand(const LanePacking<SumLane<Sum>>& packing, T value) {
    using Lane = SumLane<Sum>;
    const Lane lane = widened<T, Sum>(value);
    const Lane magnitude = magnitude_of(lane);
    const Lane sign = lane ^ magnitude;
    const Lane result = ((changes ? packing.changed(magnitude) : magnitude) | sign) + packing.bias;
    // In arithmetic: a branch here would keep a CPU's loop from vectors.
    const Lane is_zero = packing.all_if_zero(magnitude);
    return (result & ~is_zero) | (packing.zero & is_zero);
}

// A left element of flushed sums: magnitudes of the right one above `threshold` give a normal
// product.
template <class Lane>
struct Thresholded {
    Lane bits;
    Lane threshold;
};
// One that gives none, which is also what pads a panel.
template <class Lane>
SLIPSTICK_HD constexpr Thresholded<Lane> no_product() {
    return {0, static_cast<Lane>(kSign<Lane> - 1)};
}

template <class Sum, class T>
SLIPSTICK_HD Thresholded<SumLane<Sum>> thresholded(const LanePacking<SumLane<Sum>>& packing,
                                                   T value) {
    using Lane = SumLane<Sum>;
    const Lane lane = widened<T, Sum>(value);
    const Lane magnitude = magnitude_of(lane);
    if (packing.is_zero(magnitude)) return no_product<Lane>();
    const Lane change = packing.changed(magnitude);
    // change + bias + |right| >= smallest, and |right| >= smallest
    const Lane above = change + packing.bias;
    const bool enlarges = as_signed(above) >= 0;
    return {(change | (lane ^ magnitude)) + packing.bias,
            (enlarges ? packing.smallest : packing.smallest - above) - 1};
}

// The leading power of two with the value's sign; 0 for 0.
template <class Sum>
SLIPSTICK_HD Sum leading_power(Sum value) {
    using Lane = SumLane<Sum>;
    constexpr auto mask = static_cast<Lane>(kSign<Lane> | format<Sum, Lane>().infinity);
    return from_bits(static_cast<Lane>(bits::of(value) & mask));
}

// An element as the first or second term of a changed exact product: with E(v) the leading power of
// two of v, and v' what is left of v without its first leading ones,
//   changed    v
//   ILM        a b - a' b'                                       T less the last residual
//   formula    a E(b) + E(a) (b - (1 - c) E(b))
// The second term of what is not finite is 0, and the first one carries it into the sum.
template <class Sum, bool left>
struct ExactTerms {
    using Lane = SumLane<Sum>;
    LanePacking<Lane> lanes;
    Sum formula;
    int leading_ones;

    SLIPSTICK_HD explicit ExactTerms(const Packing& packing)
        : lanes(packing),
          formula(static_cast<Sum>(packing.formula)),
          leading_ones(packing.leading_ones) {}

    template <class T>
    SLIPSTICK_HD Sum first(T raw) const {
        const Sum value = element(raw);
        const bool power = formula > 0 && !left && is_finite(value);
        return power ? leading_power(value) : value;
    }
    template <class T>
    SLIPSTICK_HD Sum second(T raw) const {
        const Sum value = element(raw);
        if (!is_finite(value)) return 0;
        if (formula > 0) {
            const Sum power = leading_power(value);
            return left ? power : value - formula * power;
        }
        // Of the significand: what is left of a small number itself may be subnormal.
        constexpr Format<Lane> f = format<Sum, Lane>();
        const auto pattern = static_cast<Lane>(bits::of(value));
        Sum rest =
            from_bits(static_cast<Lane>((pattern & ((Lane{1} << f.fraction_bits) - 1)) | f.one));
        for (int i = 0; i < leading_ones && rest != 0; ++i) rest -= leading_power(rest);
        rest *= leading_power(value);
        return left ? -rest : rest;
    }

private:
    template <class T>
    SLIPSTICK_HD Sum element(T value) const {
        if (lanes.smallest == 0 || is_special(value)) return number<Sum>(value);
        const Lane lane = widened<T, Sum>(value);
        const Lane magnitude = magnitude_of(lane);
        if (lanes.is_zero(magnitude)) return 0;
        return from_bits(static_cast<Lane>(lanes.changed(magnitude) | (lane ^ magnitude)));
    }
    SLIPSTICK_HD static bool is_finite(Sum value) {
        constexpr Lane infinity = format<Sum, Lane>().infinity;
        return magnitude_of(static_cast<Lane>(bits::of(value))) < infinity;
    }
};

}  // namespace slipstick::mitchell
