#include "mitchell/mitchell.hpp"

#include "core/broadcast.hpp"
#include "mitchell/kernels.hpp"
#include "mitchell/operands.hpp"

namespace slipstick::cpu::mitchell {
namespace {

// Elements a thread: 32768 products take 10 to 50 us, by dtype.
constexpr int64_t kGrain = 1 << 15;

void run(ElementwiseFn kernel, std::initializer_list<const ConstTensor*> operands,
         const Parameters& method_parameters, const Tensor& out) {
    for_each_strip(out, operands, kGrain,
                   [&](const Strip& strip) { kernel(strip, method_parameters); });
}

}  // namespace

void multiply(const ConstTensor& a, const ConstTensor& b, const Method& method, const Tensor& out) {
    const ElementwiseFn kernel =
        is_float(a.dtype) ? active_mitchell_float_kernels().multiply[method.kind][a.dtype]
                          : active_mitchell_integer_kernels().multiply[method.kind][a.dtype];
    run(kernel, {&a, &b}, parameters("multiply", a.dtype, method), out);
}

void divide(const ConstTensor& a, const ConstTensor& b, const Method& method, const Tensor& out) {
    run(active_mitchell_float_kernels().divide[a.dtype], {&a, &b},
        parameters("divide", a.dtype, method), out);
}

void reciprocal(const ConstTensor& a, const Method& method, const Tensor& out) {
    const uint64_t bits = float_format(a.dtype).one;  // little endian: right for shorter formats
    const ConstTensor one{&bits, a.dtype, 0, nullptr, nullptr};
    run(active_mitchell_float_kernels().divide[a.dtype], {&one, &a},
        parameters("reciprocal", a.dtype, method), out);
}

void sqrt(const ConstTensor& a, const Tensor& out) {
    run(active_mitchell_function_kernels().sqrt[a.dtype], {&a}, {}, out);
}
void log2(const ConstTensor& a, const Tensor& out) {
    run(active_mitchell_function_kernels().log2[a.dtype], {&a}, {}, out);
}
void exp2(const ConstTensor& a, const Tensor& out) {
    run(active_mitchell_function_kernels().exp2[a.dtype], {&a}, {}, out);
}

void power(const ConstTensor& a, const ConstTensor& p, const Tensor& out) {
    run(active_mitchell_function_kernels().power[a.dtype], {&a, &p}, {}, out);
}
void power(const ConstTensor& a, double p, const Tensor& out) {
    const ConstTensor number{&p, Dtype::kFloat64, 0, nullptr, nullptr};
    run(active_mitchell_function_kernels().power_number[a.dtype], {&a, &number}, {}, out);
}

}  // namespace slipstick::cpu::mitchell
