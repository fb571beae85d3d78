#include "core/broadcast.hpp"
#include "core/checks.hpp"
#include "mitchell/kernels.hpp"
#include "mitchell/mitchell.hpp"
#include "mitchell/operands.hpp"

namespace slipstick::cpu::mitchell {
namespace {

// Elements a thread: 32768 products take 10 to 50 us, by dtype.
constexpr int64_t kGrain = 1 << 15;

ResultSpec result_of_elementwise(const char* function, const ConstTensor& a, const ConstTensor& b,
                                 bool offered, const char* expected) {
    check_dtype(function, {"a", a}, offered, expected);
    check_same_dtype(function, {{"a", a}, {"b", b}});
    ResultSpec spec{product_dtype(a.dtype)};
    append_broadcast(function, {"a", a}, a.rank, {"b", b}, b.rank, spec);
    return spec;
}

void elementwise(const PerDtype<ElementwiseFn>& table, const ConstTensor& a, const ConstTensor& b,
                 const Method& method, const Tensor& out) {
    const ElementwiseFn kernel = table[a.dtype];
    const Parameters method_parameters = parameters("multiply", a.dtype, method);
    for_each_strip(out, {&a, &b}, kGrain,
                   [&](const Strip& strip) { kernel(strip, method_parameters); });
}

}  // namespace

ResultSpec result_of_multiply(const ConstTensor& a, const ConstTensor& b) {
    return result_of_elementwise("multiply", a, b,
                                 active_mitchell_elementwise_kernels().multiply[a.dtype] != nullptr,
                                 kAllDtypes);
}

void multiply(const ConstTensor& a, const ConstTensor& b, const Method& method, const Tensor& out) {
    elementwise(active_mitchell_elementwise_kernels().multiply, a, b, method, out);
}

ResultSpec result_of_divide(const ConstTensor& a, const ConstTensor& b) {
    return result_of_elementwise("divide", a, b,
                                 active_mitchell_elementwise_kernels().divide[a.dtype] != nullptr,
                                 kFloatDtypes);
}

void divide(const ConstTensor& a, const ConstTensor& b, const Method& method, const Tensor& out) {
    elementwise(active_mitchell_elementwise_kernels().divide, a, b, method, out);
}

}  // namespace slipstick::cpu::mitchell
