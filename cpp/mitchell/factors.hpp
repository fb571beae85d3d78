// The factors of exact gradients: the derivatives of piecewise linear products, bit for bit, for
// one number or for a vector of them, on every device.
#pragma once

#include "core/host_device.hpp"
#include "mitchell/product.hpp"
#include "mitchell/results.hpp"

namespace slipstick::mitchell {

// The bits of a factor, from those of an operand b and of its partner a, in lanes of the sums:
//   ((|b| + (|a| & fraction) + offset) & keep), with b's sign; 0 for b below `smallest`, and from
// `infinity` on infinite; NaN where a or b is infinite or NaN.
template <class Lane>
struct FactorConstants {
    Lane fraction;  // 0: the partner's has no part in it
    Lane offset;
    Lane keep;
    Lane smallest;
    Lane infinity;  // of the operands' own format

    template <class To>
    SLIPSTICK_HD FactorConstants<To> as() const {
        return {static_cast<To>(fraction), static_cast<To>(offset), static_cast<To>(keep),
                static_cast<To>(smallest), static_cast<To>(infinity)};
    }
};

// Of a dtype and a derivative.
struct FactorRules {
    FactorConstants<uint64_t> constants;
    int64_t terms;     // leading ones that are left of b before all else; 0: all
    uint64_t raise;    // the most that a partner adds, in the operands' own format
    uint64_t special;  // magnitudes from here on are infinite or NaN, there too

    // Whether no factor is, of operands with no greater magnitudes.
    SLIPSTICK_HD bool all_finite(uint64_t highest, uint64_t highest_partner) const {
        return highest + raise < special && highest_partner < special;
    }
};
FactorRules factor_rules(Dtype dtype, const Derivative& derivative);

// What a partner adds to the magnitude of b, whatever b is.
template <class Lane, class U>
SLIPSTICK_HD U partner_of(U a, const FactorConstants<Lane>& constants, const Format<Lane>& f) {
    const U zero{};
    const U magnitude = magnitude_of(a, f);
    const auto fraction = static_cast<U>(magnitude & constants.fraction);
    return static_cast<U>((as_signed(magnitude) < as_signed(constants.smallest) ? zero : fraction) +
                          constants.offset);
}

// The bits of a NaN where a makes the factor one, else 0.
template <class Lane, class U>
SLIPSTICK_HD U undefined_by(U a, const Format<Lane>& f) {
    const U zero{};
    return is_special(a, f) ? zero + f.nan : zero;
}

// The bits of b's factor that may be set; where `finite`, the sign among them.
template <bool finite, class Lane, class U>
SLIPSTICK_HD U factor_mask(U b, const FactorConstants<Lane>& constants, const Format<Lane>& f) {
    const U zero{};
    const U kept = zero + static_cast<Lane>(finite ? constants.keep | f.sign : constants.keep);
    return as_signed(magnitude_of(b, f)) < as_signed(constants.smallest) ? zero : kept;
}

// The factor. `finite`: none of all is infinite or NaN.
template <bool finite, class Lane, class U>
SLIPSTICK_HD U factor_of(U b, U mask, U partner, U undefined,
                         const FactorConstants<Lane>& constants, const Format<Lane>& f) {
    if constexpr (finite) {
        return static_cast<U>((b + partner) & mask);
    } else {
        const U zero{};
        const U magnitude = magnitude_of(b, f);
        const auto raised = static_cast<U>(magnitude + partner);  // cannot reach the sign twice
        const auto beyond = raised >= constants.infinity;
        const U limited = beyond ? zero + f.infinity : raised;
        const auto factor = static_cast<U>((limited & mask) | (b & f.sign));
        const U defined = magnitude >= f.infinity ? zero + f.nan : factor;
        return static_cast<U>(defined | undefined);
    }
}

}  // namespace slipstick::mitchell
