#include "mitchell/plan.hpp"

#include <algorithm>
#include <array>
#include <memory>

#include "core/error.hpp"
#include "mitchell/operands.hpp"
#include "mitchell/plan_rules.hpp"

namespace slipstick::cpu::mitchell {
namespace {

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

std::optional<ThinPlan> make_thin_plan(Dtype dtype, const Method& method, const Magnitudes& a,
                                       int64_t depth) {
    if (!is_float(dtype) || method.kind != Kind::kMitchell) return {};
    const Shape shape = shape_of(dtype);
    const Shape sums = shape_of(chain_dtype(dtype));
    const Fields fields = fields_of(dtype, a, shape, sums);
    const int rebias = sums.bias - shape.bias;
    if (fields.highest > shape.highest + rebias) return {};  // an infinity or a NaN
    const int64_t offset = offset_of(parameters("matmul", dtype, method), shape, sums);
    const int64_t carry = offset > 0 ? 2 : 1;
    const int64_t length = chain_log2(depth);
    // The smallest exponent on the left becomes 0: what a zero on the right gives stays below the
    // range and its carry, and no other product below the exponent on the right.
    const int64_t natural = fields.lowest - sums.bias;
    const int64_t from = std::max(fields.range() + carry + zero_gap(sums.fraction_bits, length),
                                  1 + rebias - natural);
    const int64_t to = std::min({int64_t{shape.highest} + rebias,
                                 shape.highest + rebias + sums.bias - carry - fields.highest,
                                 sums.highest + sums.bias - carry - length - fields.highest,
                                 sums.highest - carry - length - fields.range()});
    if (from > to) return {};
    const auto field = [&](int64_t exponent) {
        return static_cast<uint64_t>(exponent) << sums.fraction_bits;
    };
    ThinPlan plan{};
    plan.left.bias = static_cast<uint64_t>(offset) - field(fields.lowest);
    plan.left.smallest = field(1 + rebias);
    plan.masked = fields.zeros;
    plan.mac.unscale = power_of_two(natural);
    plan.mac.smallest_chain = power_of_two(from - sums.bias - sums.fraction_bits - 1);
    plan.lowest = field(from);
    plan.highest = field(to + 1) - 1;
    return plan;
}

Plan make_exact_plan(Dtype dtype) {
    Plan plan{};
    plan.path = &active_mitchell_matmul_kernels().matmul[dtype]->exact;
    return plan;
}

Plan make_plan(Dtype dtype, const Method& method, const Magnitudes& a, const Magnitudes& b,
               int64_t depth, Path wanted, const char* function) {
    const Choice choice = choose({dtype, method.kind, method.width, method.bias,
                                  parameters(function, dtype, method), depth, wanted},
                                 a, b);
    if (!choice.allowed) {
        refuse_value(function, "`path` must be one that the operands' range allows, got ",
                     wanted == Path::kSums ? "sums" : "flushed");
    }
    const Matmul& kernels = *active_mitchell_matmul_kernels().matmul[dtype];
    const GeneralKernels& general = active_mitchell_general_kernels();
    Plan plan{nullptr, choice.left, choice.right, choice.mac, nullptr};
    switch (choice.kernel) {
        case Kernel::kSums:
            plan.path = &kernels.sums;
            break;
        case Kernel::kLowSums:
            plan.path = &kernels.low_sums;
            break;
        case Kernel::kFlushed:
            plan.path = &kernels.flushed;
            break;
        case Kernel::kLowFlushed:
            plan.path = &kernels.low_flushed;
            break;
        case Kernel::kExact:
            plan.path = &kernels.exact;
            break;
        case Kernel::kGeneral:
            plan.path = general.path[method.kind][dtype];
            break;
        case Kernel::kLookup:
            plan.products = all_products(dtype, method, plan.mac.parameters);
            plan.mac.parameters.table = plan.products->entries.data();
            plan.path = general.path[Kind::kTable][dtype];
            break;
    }
    return plan;
}

}  // namespace slipstick::cpu::mitchell
