// Which kernel may form a sum of products of numbers in a certain range, and what the operands have
// to become for it: the rules, for every device. A GPU evaluates them itself, so that nobody waits
// for the ranges.
#pragma once

#include "core/chain.hpp"
#include "core/dtype.hpp"
#include "core/host_device.hpp"
#include "mitchell/method.hpp"
#include "mitchell/operands.hpp"
#include "mitchell/plan_data.hpp"

namespace slipstick::mitchell {

// All that is known of a product before its operands are looked at.
struct Product {
    Dtype dtype;
    Kind kind;
    int64_t width;  // the method's own, as its description has it
    double bias;
    Parameters parameters;
    int64_t depth;  // of the longest sum
    Path path;      // wanted
};

// The kernels. All but kExact give the same bits where they may run, those of kGeneral.
enum class Kernel : uint8_t {
    kSums,        // patterns added, nothing else: for a range that has been certified
    kLowSums,     // and low bits set
    kFlushed,     // zeros and underflow handled for each product; no overflow
    kLowFlushed,  // and low bits set
    kExact,       // ordinary products of changed operands
    kGeneral,     // the method's own rules
    kLookup,      // a table of all products of 8-bit operands
};

struct Choice {
    Kernel kernel = Kernel::kGeneral;
    bool allowed = true;  // false: the range does not allow the wanted path, `kernel` serves
    Packing left;
    Packing right;
    MacConstants mac;
};

// The binary format of a dtype; for an integer of n bits n - 1 fraction bits behind the leading
// one.
struct Shape {
    int fraction_bits;
    int bias;     // the exponent field of 1.0
    int highest;  // the highest exponent field of a finite number
};
SLIPSTICK_HD Shape shape_of(Dtype dtype) {
    switch (dtype) {
        case Dtype::kFloat32:
            return {23, 127, 254};
        case Dtype::kFloat64:
            return {52, 1023, 2046};
        case Dtype::kFloat16:
            return {10, 15, 30};
        case Dtype::kBFloat16:
            return {7, 127, 254};
        default:
            return {static_cast<int>(item_size(dtype)) * 8 - 1, 0, 0};
    }
}
// The format that sums are kept in, and products formed in.
SLIPSTICK_HD Dtype chain_dtype(Dtype dtype) {
    if (is_float(dtype)) return dtype == Dtype::kFloat64 ? dtype : Dtype::kFloat32;
    return item_size(dtype) == 1 ? Dtype::kFloat32 : Dtype::kFloat64;
}

SLIPSTICK_HD int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
SLIPSTICK_HD int64_t greatest(int64_t a, int64_t b) { return a < b ? b : a; }
SLIPSTICK_HD int bit_width(uint64_t value) { return value == 0 ? 0 : 64 - __builtin_clzll(value); }
SLIPSTICK_HD int64_t ceil_log2(int64_t value) {
    return bit_width(static_cast<uint64_t>(value - 1));
}
SLIPSTICK_HD uint64_t low_ones(int count) { return (uint64_t{1} << count) - 1; }
// 2^exponent, a normal number.
SLIPSTICK_HD double power_of_two(int64_t exponent) {
    return bits::as_double(static_cast<uint64_t>(exponent + 1023) << 52);
}

// Exponent fields, in the format of the sums, of an operand's numbers other than zero.
struct Fields {
    int64_t lowest;
    int64_t highest;
    bool zeros;
    SLIPSTICK_HD int64_t range() const { return highest - lowest; }
};

SLIPSTICK_HD Fields fields_of(Dtype dtype, const Magnitudes& magnitudes, const Shape& shape,
                              const Shape& sums) {
    if (magnitudes.lowest > magnitudes.highest) return {sums.bias, sums.bias, true};
    if (is_float(dtype)) {
        const int rebias = sums.bias - shape.bias;
        return {static_cast<int64_t>(magnitudes.lowest >> shape.fraction_bits) + rebias,
                static_cast<int64_t>(magnitudes.highest >> shape.fraction_bits) + rebias,
                magnitudes.zeros};
    }
    return {int64_t{sums.bias} + bit_width(magnitudes.lowest) - 1,
            int64_t{sums.bias} + bit_width(magnitudes.highest) - 1, magnitudes.zeros};
}

SLIPSTICK_HD OperandChange change_of(const Product& product, const Shape& shape,
                                     const Shape& sums) {
    const int dropped = sums.fraction_bits - shape.fraction_bits;  // below the operand's last place
    const auto width = static_cast<int>(least(product.width, 64));
    OperandChange change;
    switch (product.kind) {
        case Kind::kLMul:
        case Kind::kLMulFormula:
            if (width > 0 && width < shape.fraction_bits) {
                const int last = sums.fraction_bits - width;
                change.half = low_ones(last - 1);
                change.odd = 1;
                change.odd_shift = last;
                change.keep = ~low_ones(last);
            }
            break;
        case Kind::kMitchW: {
            const int kept = width - 1 < shape.fraction_bits ? width - 1 : shape.fraction_bits;
            change.keep = ~low_ones(sums.fraction_bits - kept);
            break;
        }
        case Kind::kAlmSoa:
            change.keep = ~low_ones(dropped + width - 1);
            break;
        case Kind::kDrum:
            if (width <= shape.fraction_bits) {
                const int last = sums.fraction_bits - (width - 1);
                change.keep = ~low_ones(last);
                change.set = width == 1 ? 0 : uint64_t{1} << last;
                if (!is_float(product.dtype)) {
                    change.set_from = static_cast<uint64_t>(sums.bias + width)
                                      << sums.fraction_bits;
                }
                // An integer of at most `width` bits has none below the last place kept.
            }
            break;
        default:
            break;
    }
    return change;
}

SLIPSTICK_HD bool is_bit_sum(const Product& product) {
    switch (product.kind) {
        case Kind::kMitchell:
            return is_float(product.dtype) || product.bias == 0;
        case Kind::kMitchW:
            return true;
        case Kind::kLMul:
        case Kind::kAlmSoa:
            return is_float(product.dtype);
        default:
            return false;
    }
}

// Whether the method's products are ordinary products of changed operands.
SLIPSTICK_HD bool is_exact_in_disguise(Dtype dtype, Kind kind, int64_t width) {
    switch (kind) {
        case Kind::kDrum:
            // (-128)^2 becomes 192^2, which saturates in int16, and -32768^2 likewise.
            if (width == 2 && (dtype == Dtype::kInt8 || dtype == Dtype::kInt16)) return false;
            return item_size(dtype) < 4 || is_float(dtype);
        case Kind::kIlm:
            return item_size(dtype) < 4 || is_float(dtype);
        case Kind::kLMulFormula:
            return is_float(dtype);
        default:
            return false;
    }
}

// The terms of an exact product that an element becomes.
SLIPSTICK_HD int exact_terms(const Product& product) {
    if (product.path == Path::kExact) return 1;
    return product.kind == Kind::kIlm || product.kind == Kind::kLMulFormula ? 2 : 1;
}

// The bits of 1.0.
SLIPSTICK_HD uint64_t one_of(const Shape& format) {
    return static_cast<uint64_t>(format.bias) << format.fraction_bits;
}

// The method's offset in the format of the sums, of floats.
SLIPSTICK_HD int64_t offset_of(const Parameters& parameters, const Shape& shape,
                               const Shape& sums) {
    return static_cast<int64_t>((one_of(shape) - parameters.c)
                                << (sums.fraction_bits - shape.fraction_bits));
}

// The logarithm of the longest chain's length, rounded up.
SLIPSTICK_HD int64_t chain_log2(int64_t depth) {
    return ceil_log2(greatest(1, least(depth, kDepthBlock)));
}

// How many places a product with a zero stays below the smallest other one, so that a chain of
// 2^length terms is exact.
SLIPSTICK_HD int64_t zero_gap(int fraction_bits, int64_t length) {
    return 2 * fraction_bits + 4 + length;
}

// Where zeros of either operand go and what the exponents become, for sums of patterns alone: see
// README.md, "Zeros that cost nothing". False, and nothing done, where they cannot.
SLIPSTICK_HD bool certify(const Product& product, const Fields& a, const Fields& b, int64_t offset,
                          bool low_bits, Choice& choice) {
    const bool floats = is_float(product.dtype);
    const Shape shape = shape_of(product.dtype);
    const Shape sums = shape_of(chain_dtype(product.dtype));
    const int64_t carry = offset > 0 ? 2 : 1;
    const int64_t length = chain_log2(product.depth);
    const int64_t gap = zero_gap(sums.fraction_bits, length) + (low_bits ? 1 : 0);
    const int64_t natural = a.lowest + b.lowest - sums.bias;
    const int rebias = sums.bias - shape.bias;
    if (floats && natural < 1 + rebias) return false;
    if (floats && a.highest + b.highest - sums.bias + carry > shape.highest + rebias) return false;
    if (a.highest + b.highest - sums.bias + carry + length > sums.highest) return false;
    // A chain of integers must be exact, and in float64 below the 2^51 that it is converted at.
    const int64_t product_bits = a.highest + b.highest - 2 * sums.bias + 2;
    if (!floats && product_bits + length > (sums.bias == 127 ? 24 : 51)) return false;

    const int64_t lowest = a.zeros && b.zeros ? a.range() + b.range() + 2 + 2 * gap
                           : a.zeros          ? b.range() + 1 + gap
                           : b.zeros          ? a.range() + 1 + gap
                                              : 1;
    const int64_t first = greatest(lowest, natural);  // the field of the smallest product
    const int64_t shift = first - natural;
    if (first + a.range() + b.range() + carry + length > sums.highest) return false;
    if (shift > sums.bias - 7) return false;  // 2^-shift must be a normal number

    const auto field = [&](int64_t exponent) {
        return static_cast<uint64_t>(exponent) << sums.fraction_bits;
    };
    choice.left.bias = field(-a.lowest);
    choice.left.zero = field(-(b.range() + 1 + gap));
    choice.right.bias = field(first - b.lowest) + static_cast<uint64_t>(offset);
    choice.right.zero = field(first - (a.range() + 1 + gap));
    choice.mac.unscale = power_of_two(-shift);
    if (a.zeros || b.zeros)
        choice.mac.smallest_chain = power_of_two(first - sums.bias - sums.fraction_bits - 1);
    return true;
}

// What 8-bit and 16-bit integers can be, whatever an operand holds.
SLIPSTICK_HD Magnitudes limits_of(Dtype dtype) {
    return {1, uint64_t{1} << (item_size(dtype) * 8 - 1), true};
}

// The kernel of a product whose operands are `a` and `b` as scanned, or for integers the limits of
// what they hold.
SLIPSTICK_HD Choice choose(const Product& product, const Magnitudes& a, const Magnitudes& b) {
    const Dtype dtype = product.dtype;
    const bool floats = is_float(dtype);
    const Shape shape = shape_of(dtype);
    const Shape sums = shape_of(chain_dtype(dtype));
    Choice choice{};
    choice.mac.parameters = product.parameters;
    if (product.path == Path::kExact) {
        choice.kernel = Kernel::kExact;
        return choice;
    }
    if (product.kind == Kind::kRaw) {
        // Wrapped patterns of 16 bits are not those of 32.
        if (shape.fraction_bits == sums.fraction_bits) {
            choice.kernel = Kernel::kSums;
            choice.left.bias = uint64_t{0} - product.parameters.c;
        }
        return choice;
    }
    choice.left.change = choice.right.change = change_of(product, shape, sums);
    const bool rounds = choice.left.change.odd != 0;
    choice.left.smallest = choice.right.smallest =
        static_cast<uint64_t>(floats ? 1 + sums.bias - shape.bias : 1) << sums.fraction_bits;
    Fields fields_a = fields_of(dtype, a, shape, sums);
    Fields fields_b = fields_of(dtype, b, shape, sums);
    // Rounding lifts the greatest numbers of a format to infinity, though not their products.
    const bool lifted =
        floats && rounds && greatest(fields_a.highest, fields_b.highest) == sums.highest;
    if (is_exact_in_disguise(dtype, product.kind, product.width) && !lifted) {
        choice.kernel = Kernel::kExact;
        choice.left.terms = choice.right.terms = exact_terms(product);
        if (product.kind == Kind::kIlm) {
            choice.left.leading_ones = choice.right.leading_ones =
                static_cast<int>(product.width) + 1;
        } else if (product.kind == Kind::kLMulFormula) {
            choice.left.formula = choice.right.formula =
                1 - static_cast<double>(product.parameters.fraction) * 0x1p-64;
        }
        return choice;
    }

    if (is_bit_sum(product) && product.path != Path::kGeneral) {
        if (rounds) {  // may carry into the exponent
            ++fields_a.highest;
            ++fields_b.highest;
        }
        const int64_t offset = floats ? offset_of(product.parameters, shape, sums) : 0;
        const bool low_bits = product.kind == Kind::kAlmSoa;
        if (low_bits) {
            choice.mac.low_bits = low_ones(static_cast<int>(product.width))
                                  << (sums.fraction_bits - shape.fraction_bits);
        }
        const int highest = shape.highest + sums.bias - shape.bias;
        const bool finite = !floats || greatest(fields_a.highest, fields_b.highest) <= highest;
        if (finite && product.path != Path::kFlushed &&
            certify(product, fields_a, fields_b, offset, low_bits, choice)) {
            choice.kernel = low_bits ? Kernel::kLowSums : Kernel::kSums;
            return choice;
        }
        const int64_t carry = offset > 0 ? 2 : 1;
        const bool overflows = fields_a.highest + fields_b.highest - sums.bias + carry > highest;
        if (floats && finite && !overflows && product.path != Path::kSums) {
            choice.kernel = low_bits ? Kernel::kLowFlushed : Kernel::kFlushed;
            choice.left.bias = static_cast<uint64_t>(offset) - one_of(sums);
            return choice;
        }
    }
    choice.allowed = product.path == Path::kAuto || product.path == Path::kGeneral;
    choice.kernel = item_size(dtype) == 1 ? Kernel::kLookup : Kernel::kGeneral;
    choice.left = choice.right = {};
    return choice;
}

// The kernels that `choose` can name for a product whatever its operands are: bit 1 << kernel for
// each. A GPU launches all of them, and all but the one that is chosen return at once.
SLIPSTICK_HD unsigned candidates(const Product& product) {
    const auto bit = [](Kernel kernel) { return 1u << static_cast<int>(kernel); };
    const bool floats = is_float(product.dtype);
    // Of integers of 8 and 16 bits everything is known.
    if (!floats && item_size(product.dtype) < 4) {
        const Magnitudes limits = limits_of(product.dtype);
        return bit(choose(product, limits, limits).kernel);
    }
    if (product.path == Path::kExact || product.kind == Kind::kRaw)
        return bit(choose(product, {}, {}).kernel);
    if (is_exact_in_disguise(product.dtype, product.kind, product.width)) {
        const bool rounds =
            change_of(product, shape_of(product.dtype), shape_of(chain_dtype(product.dtype))).odd !=
            0;
        return bit(Kernel::kExact) | (rounds ? bit(Kernel::kGeneral) : 0);
    }
    unsigned kernels = bit(Kernel::kGeneral);
    if (!is_bit_sum(product) || product.path == Path::kGeneral) return kernels;
    const bool low_bits = product.kind == Kind::kAlmSoa;
    if (product.path != Path::kFlushed) kernels |= bit(low_bits ? Kernel::kLowSums : Kernel::kSums);
    if (floats && product.path != Path::kSums)
        kernels |= bit(low_bits ? Kernel::kLowFlushed : Kernel::kFlushed);
    return kernels;
}

}  // namespace slipstick::mitchell
