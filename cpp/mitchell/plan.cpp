#include "mitchell/plan.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <optional>

#include "core/error.hpp"
#include "mitchell/operands.hpp"
#include "mitchell/product.hpp"

namespace slipstick::cpu::mitchell {
namespace {

// The binary format of a dtype; for an integer of n bits n - 1 fraction bits behind the leading
// one.
struct Shape {
    int fraction_bits;
    int bias;     // the exponent field of 1.0
    int highest;  // the highest exponent field of a finite number
};
Shape shape_of(Dtype dtype) {
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
Dtype chain_dtype(Dtype dtype) {
    if (is_float(dtype)) return dtype == Dtype::kFloat64 ? dtype : Dtype::kFloat32;
    return item_size(dtype) == 1 ? Dtype::kFloat32 : Dtype::kFloat64;
}

// Exponent fields, in the format of the sums, of an operand's numbers other than zero.
struct Fields {
    int64_t lowest;
    int64_t highest;
    bool zeros;
    int64_t range() const { return highest - lowest; }
};

Fields fields_of(Dtype dtype, const Magnitudes& magnitudes, const Shape& shape, const Shape& sums) {
    if (magnitudes.lowest > magnitudes.highest) return {sums.bias, sums.bias, true};
    if (is_float(dtype)) {
        const int rebias = sums.bias - shape.bias;
        return {static_cast<int64_t>(magnitudes.lowest >> shape.fraction_bits) + rebias,
                static_cast<int64_t>(magnitudes.highest >> shape.fraction_bits) + rebias,
                magnitudes.zeros};
    }
    const auto field = [&](uint64_t magnitude) {
        return int64_t{sums.bias} + static_cast<int>(std::bit_width(magnitude)) - 1;
    };
    return {field(magnitudes.lowest), field(magnitudes.highest), magnitudes.zeros};
}

constexpr uint64_t low_ones(int count) { return (uint64_t{1} << count) - 1; }

OperandChange change_of(const Method& method, const Shape& shape, const Shape& sums, bool integer) {
    const int dropped = sums.fraction_bits - shape.fraction_bits;  // below the operand's last place
    const auto width = static_cast<int>(std::min<int64_t>(method.width, 64));
    OperandChange change;
    switch (method.kind) {
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
        case Kind::kMitchW:
            change.keep = ~low_ones(sums.fraction_bits - std::min(width - 1, shape.fraction_bits));
            break;
        case Kind::kAlmSoa:
            change.keep = ~low_ones(dropped + width - 1);
            break;
        case Kind::kDrum:
            if (width <= shape.fraction_bits) {
                const int last = sums.fraction_bits - (width - 1);
                change.keep = ~low_ones(last);
                change.set = width == 1 ? 0 : uint64_t{1} << last;
                if (integer) {
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

bool is_bit_sum(Dtype dtype, const Method& method) {
    switch (method.kind) {
        case Kind::kMitchell:
            return is_float(dtype) || method.bias == 0;
        case Kind::kMitchW:
            return true;
        case Kind::kLMul:
        case Kind::kAlmSoa:
            return is_float(dtype);
        default:
            return false;
    }
}

int64_t ceil_log2(int64_t value) { return std::bit_width(static_cast<uint64_t>(value - 1)); }

// The bits of 1.0.
uint64_t one_of(const Shape& format) {
    return static_cast<uint64_t>(format.bias) << format.fraction_bits;
}

// How many places a product with a zero stays below the smallest other one, so that a chain of
// 2^length terms is exact.
int64_t zero_gap(int fraction_bits, int64_t length) { return 2 * fraction_bits + 4 + length; }

// Where zeros of either operand go and what the exponents become, for sums of patterns alone: see
// README.md, "Zeros that cost nothing".
std::optional<Plan> certified(Dtype dtype, const Plan& base, const Fields& a, const Fields& b,
                              int64_t offset, bool low_bits, int64_t depth) {
    const Shape shape = shape_of(dtype);
    const Shape sums = shape_of(chain_dtype(dtype));
    const int64_t carry = offset > 0 ? 2 : 1;
    const int64_t length = ceil_log2(std::max<int64_t>(1, std::min(depth, kDepthBlock)));
    const int64_t gap = zero_gap(sums.fraction_bits, length) + (low_bits ? 1 : 0);
    const int64_t natural = a.lowest + b.lowest - sums.bias;
    const int rebias = sums.bias - shape.bias;
    if (is_float(dtype) && natural < 1 + rebias) return {};
    if (is_float(dtype) && a.highest + b.highest - sums.bias + carry > shape.highest + rebias)
        return {};
    if (a.highest + b.highest - sums.bias + carry + length > sums.highest) return {};
    // A chain of integers must be exact, and in float64 below the 2^51 that it is converted at.
    const int64_t product_bits = a.highest + b.highest - 2 * sums.bias + 2;
    if (!is_float(dtype) && product_bits + length > (sums.bias == 127 ? 24 : 51)) return {};

    const int64_t least = a.zeros && b.zeros ? a.range() + b.range() + 2 + 2 * gap
                          : a.zeros          ? b.range() + 1 + gap
                          : b.zeros          ? a.range() + 1 + gap
                                             : 1;
    const int64_t first = std::max(least, natural);  // the field of the smallest product
    const int64_t shift = first - natural;
    if (first + a.range() + b.range() + carry + length > sums.highest) return {};
    if (shift > sums.bias - 7) return {};  // 2^-shift must be a normal number

    Plan plan = base;
    const auto field = [&](int64_t exponent) {
        return static_cast<uint64_t>(exponent) << sums.fraction_bits;
    };
    plan.left.bias = field(-a.lowest);
    plan.left.zero = field(-(b.range() + 1 + gap));
    plan.right.bias = field(first - b.lowest) + static_cast<uint64_t>(offset);
    plan.right.zero = field(first - (a.range() + 1 + gap));
    plan.mac.unscale = std::ldexp(1.0, static_cast<int>(-shift));
    if (a.zeros || b.zeros) {
        plan.mac.smallest_chain =
            std::ldexp(1.0, static_cast<int>(first) - sums.bias - sums.fraction_bits - 1);
    }
    return plan;
}

// The 65,536 products of a method for 8-bit operands: its own table, or made by the elementwise
// kernel, in 0.1 to 1 ms.
std::shared_ptr<const Table> all_products(Dtype dtype, const Method& method,
                                          const Parameters& parameters) {
    if (method.kind == Kind::kTable) return method.table;
    auto table = std::make_shared<Table>();
    table->side = 256;
    table->is_signed = dtype == Dtype::kInt8;
    table->entries.resize(256 * 256);
    std::array<uint8_t, 256> operands;
    for (int i = 0; i < 256; ++i) operands[static_cast<size_t>(i)] = static_cast<uint8_t>(i);
    const ElementwiseFn multiply = active_mitchell_integer_kernels().multiply[method.kind][dtype];
    for (size_t a = 0; a < 256; ++a) {
        multiply({256, {table->entries.data() + 256 * a, &operands[a], operands.data()}, {1, 0, 1}},
                 parameters);
    }
    return table;
}

}  // namespace

bool is_exact_in_disguise(Dtype dtype, const Method& method) {
    switch (method.kind) {
        case Kind::kDrum:
            // (-128)^2 becomes 192^2, which saturates in int16, and -32768^2 likewise.
            if (method.width == 2 && (dtype == Dtype::kInt8 || dtype == Dtype::kInt16))
                return false;
            [[fallthrough]];
        case Kind::kIlm:
            return item_size(dtype) < 4 || is_float(dtype);
        case Kind::kLMulFormula:
            return is_float(dtype);
        default:
            return false;
    }
}

std::optional<ThinPlan> make_thin_plan(Dtype dtype, const Method& method, const Magnitudes& a,
                                       int64_t depth) {
    if (!is_float(dtype) || method.kind != Kind::kMitchell) return {};
    const Shape shape = shape_of(dtype);
    const Shape sums = shape_of(chain_dtype(dtype));
    const Fields fields = fields_of(dtype, a, shape, sums);
    const int rebias = sums.bias - shape.bias;
    const int64_t offset =
        static_cast<int64_t>((one_of(shape) - parameters("matmul", dtype, method).c)
                             << (sums.fraction_bits - shape.fraction_bits));
    const int64_t carry = offset > 0 ? 2 : 1;
    const int64_t length = ceil_log2(std::max<int64_t>(1, std::min(depth, kDepthBlock)));
    // The smallest exponent on the left becomes 0: what a zero on the right gives stays below the
    // range and its carry, and no other product below the exponent on the right.
    const int64_t natural = fields.lowest - sums.bias;
    const int64_t least = std::max(fields.range() + carry + zero_gap(sums.fraction_bits, length),
                                   1 + rebias - natural);
    const int64_t most = std::min({int64_t{shape.highest} + rebias,
                                   shape.highest + rebias + sums.bias - carry - fields.highest,
                                   sums.highest + sums.bias - carry - length - fields.highest,
                                   sums.highest - carry - length - fields.range()});
    if (least > most) return {};
    const auto field = [&](int64_t exponent) {
        return static_cast<uint64_t>(exponent) << sums.fraction_bits;
    };
    ThinPlan plan{};
    plan.left.bias = static_cast<uint64_t>(offset) - field(fields.lowest);
    plan.left.smallest = field(1 + rebias);
    plan.masked = fields.zeros;
    plan.mac.unscale = std::ldexp(1.0, static_cast<int>(natural));
    plan.mac.smallest_chain =
        std::ldexp(1.0, static_cast<int>(least) - sums.bias - sums.fraction_bits - 1);
    plan.lowest = field(least);
    plan.highest = field(most + 1) - 1;
    return plan;
}

Plan make_exact_plan(Dtype dtype) {
    Plan plan{};
    plan.path = &active_mitchell_matmul_kernels().matmul[dtype]->exact;
    return plan;
}

Plan make_plan(Dtype dtype, const Method& method, const Magnitudes& a, const Magnitudes& b,
               int64_t depth, Path wanted, const char* function) {
    const Matmul& kernels = *active_mitchell_matmul_kernels().matmul[dtype];
    const Shape shape = shape_of(dtype);
    const Shape sums = shape_of(chain_dtype(dtype));
    Plan plan{};
    plan.mac.parameters = parameters(function, dtype, method);
    if (method.kind == Kind::kRaw) {
        plan.path = &kernels.sums;
        const auto c = plan.mac.parameters.c;
        // Wrapped patterns of 16 bits are not those of 32.
        if (shape.fraction_bits == sums.fraction_bits) {
            plan.left.bias = uint64_t{0} - c;
            return plan;
        }
        plan.path = active_mitchell_general_kernels().path[method.kind][dtype];
        return plan;
    }
    const OperandChange change = change_of(method, shape, sums, !is_float(dtype));
    plan.left.change = plan.right.change = change;
    plan.left.smallest = plan.right.smallest =
        static_cast<uint64_t>(is_float(dtype) ? 1 + sums.bias - shape.bias : 1)
        << sums.fraction_bits;
    // Rounding lifts the greatest numbers of a format to infinity, though not their products.
    const bool lifted = is_float(dtype) && change.odd != 0 &&
                        std::max(fields_of(dtype, a, shape, sums).highest,
                                 fields_of(dtype, b, shape, sums).highest) == sums.highest;
    if (is_exact_in_disguise(dtype, method) && !lifted) {
        plan.path = &kernels.exact;
        if (method.kind == Kind::kIlm) {
            plan.left.terms = plan.right.terms = 2;
            plan.left.leading_ones = plan.right.leading_ones = static_cast<int>(method.width) + 1;
        } else if (method.kind == Kind::kLMulFormula) {
            plan.left.terms = plan.right.terms = 2;
            plan.left.formula = plan.right.formula =
                1 - std::ldexp(static_cast<double>(plan.mac.parameters.fraction), -64);
        }
        return plan;
    }

    if (is_bit_sum(dtype, method) && wanted != Path::kGeneral) {
        Fields fields_a = fields_of(dtype, a, shape, sums);
        Fields fields_b = fields_of(dtype, b, shape, sums);
        if (change.odd != 0) {  // rounding may carry into the exponent
            ++fields_a.highest;
            ++fields_b.highest;
        }
        const int64_t offset =
            is_float(dtype) ? static_cast<int64_t>((one_of(shape) - plan.mac.parameters.c)
                                                   << (sums.fraction_bits - shape.fraction_bits))
                            : 0;
        const bool low_bits = method.kind == Kind::kAlmSoa;
        if (low_bits) {
            plan.mac.low_bits = low_ones(static_cast<int>(method.width))
                                << (sums.fraction_bits - shape.fraction_bits);
        }
        const int highest = shape.highest + sums.bias - shape.bias;
        const bool finite =
            !is_float(dtype) || std::max(fields_a.highest, fields_b.highest) <= highest;
        if (finite && wanted != Path::kFlushed) {
            if (const auto sum =
                    certified(dtype, plan, fields_a, fields_b, offset, low_bits, depth)) {
                plan = *sum;
                plan.path = low_bits ? &kernels.low_sums : &kernels.sums;
                return plan;
            }
        }
        const int64_t carry = offset > 0 ? 2 : 1;
        const bool overflows = fields_a.highest + fields_b.highest - sums.bias + carry > highest;
        if (is_float(dtype) && finite && !overflows && wanted != Path::kSums) {
            plan.path = low_bits ? &kernels.low_flushed : &kernels.flushed;
            plan.left.bias = static_cast<uint64_t>(offset) - one_of(sums);
            return plan;
        }
    }
    if (wanted != Path::kAuto && wanted != Path::kGeneral) {
        refuse_value(function, "`path` must be one that the operands' range allows, got ",
                     wanted == Path::kSums ? "sums" : "flushed");
    }
    plan.left = plan.right = {};
    const bool looked_up = item_size(dtype) == 1;
    if (looked_up) {
        plan.products = all_products(dtype, method, plan.mac.parameters);
        plan.mac.parameters.table = plan.products->entries.data();
    }
    plan.path =
        active_mitchell_general_kernels().path[looked_up ? Kind::kTable : method.kind][dtype];
    return plan;
}

}  // namespace slipstick::cpu::mitchell
