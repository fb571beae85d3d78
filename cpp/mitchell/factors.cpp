#include "mitchell/factors.hpp"

#include <cmath>

#include "mitchell/operands.hpp"

namespace slipstick::mitchell {

FactorRules factor_rules(Dtype dtype, const Derivative& derivative) {
    using Kind = Derivative::Kind;
    const Format<uint64_t>& format = float_format(dtype);
    const Format<uint64_t>& sums = float_format(dtype == Dtype::kFloat64 ? dtype : Dtype::kFloat32);
    const int shift = sums.fraction_bits - format.fraction_bits;
    const uint64_t rebias = sums.one - (format.one << shift);
    const uint64_t fraction = (uint64_t{1} << sums.fraction_bits) - 1;
    const bool carries = derivative.kind == Kind::kCarry;
    const auto offset = static_cast<uint64_t>(
        std::nearbyint(std::ldexp(carries ? derivative.offset : 0, format.fraction_bits)));

    FactorRules rules{};
    rules.constants.fraction = carries ? fraction : 0;
    rules.constants.offset = offset << shift;
    rules.constants.keep = derivative.kind == Kind::kRemainder ? sums.sign - 1 : sums.infinity;
    rules.constants.smallest = (format.smallest << shift) + rebias;
    rules.constants.infinity = (format.infinity << shift) + rebias;
    rules.terms = derivative.kind == Kind::kRemainder ? derivative.terms : 0;
    rules.raise = carries ? (uint64_t{1} << format.fraction_bits) - 1 + offset : 0;
    rules.special = format.infinity;
    return rules;
}

}  // namespace slipstick::mitchell
