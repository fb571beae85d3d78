#include "mitchell/mitchell.hpp"

#include "core/broadcast.hpp"
#include "core/checks.hpp"
#include "core/error.hpp"
#include "mitchell/kernels.hpp"
#include "mitchell/operands.hpp"

namespace slipstick::cpu::mitchell {
namespace {

// Elements a thread: 32768 products take 10 to 50 us, by dtype.
constexpr int64_t kGrain = 1 << 15;

ResultSpec result_of_binary(const char* function, Named a, Named b) {
    check_same_dtype(function, {a, b});
    ResultSpec spec{product_dtype(a.tensor.dtype)};
    append_broadcast(function, a, a.tensor.rank, b, b.tensor.rank, spec);
    return spec;
}

void check_float(const char* function, const ConstTensor& a) {
    check_dtype(function, {"a", a}, is_float(a.dtype), kFloatDtypes);
}

ResultSpec result_like(const ConstTensor& a, Dtype dtype) {
    ResultSpec spec{dtype};
    for (int axis = 0; axis < a.rank; ++axis) spec.append(a.shape[axis]);
    return spec;
}

ResultSpec result_of_unary(const char* function, const ConstTensor& a) {
    check_float(function, a);
    return result_like(a, a.dtype);
}

void run(ElementwiseFn kernel, std::initializer_list<const ConstTensor*> operands,
         const Parameters& method_parameters, const Tensor& out) {
    for_each_strip(out, operands, kGrain,
                   [&](const Strip& strip) { kernel(strip, method_parameters); });
}

}  // namespace

ResultSpec result_of_multiply(const ConstTensor& a, const ConstTensor& b, const Method& method) {
    check_dtype("multiply", {"a", a}, is_operand(a.dtype), kAllDtypes);
    const ResultSpec spec = result_of_binary("multiply", {"a", a}, {"b", b});
    parameters("multiply", a.dtype, method);
    return spec;
}

void multiply(const ConstTensor& a, const ConstTensor& b, const Method& method, const Tensor& out) {
    const ElementwiseFn kernel =
        is_float(a.dtype) ? active_mitchell_float_kernels().multiply[method.kind][a.dtype]
                          : active_mitchell_integer_kernels().multiply[method.kind][a.dtype];
    run(kernel, {&a, &b}, parameters("multiply", a.dtype, method), out);
}

ResultSpec result_of_square(const ConstTensor& a, const Method& method) {
    check_dtype("square", {"a", a}, is_operand(a.dtype), kAllDtypes);
    parameters("square", a.dtype, method);
    return result_like(a, product_dtype(a.dtype));
}

ResultSpec result_of_divide(const ConstTensor& a, const ConstTensor& b) {
    check_float("divide", a);
    return result_of_binary("divide", {"a", a}, {"b", b});
}

void divide(const ConstTensor& a, const ConstTensor& b, const Method& method, const Tensor& out) {
    run(active_mitchell_float_kernels().divide[a.dtype], {&a, &b},
        parameters("divide", a.dtype, method), out);
}

ResultSpec result_of_reciprocal(const ConstTensor& a) { return result_of_unary("reciprocal", a); }

void reciprocal(const ConstTensor& a, const Method& method, const Tensor& out) {
    const uint64_t bits = float_format(a.dtype).one;  // little endian: right for shorter formats
    const ConstTensor one{&bits, a.dtype, 0, nullptr, nullptr};
    run(active_mitchell_float_kernels().divide[a.dtype], {&one, &a},
        parameters("reciprocal", a.dtype, method), out);
}

ResultSpec result_of_sqrt(const ConstTensor& a) { return result_of_unary("sqrt", a); }
ResultSpec result_of_log2(const ConstTensor& a) { return result_of_unary("log2", a); }
ResultSpec result_of_exp2(const ConstTensor& a) { return result_of_unary("exp2", a); }

void sqrt(const ConstTensor& a, const Tensor& out) {
    run(active_mitchell_function_kernels().sqrt[a.dtype], {&a}, {}, out);
}
void log2(const ConstTensor& a, const Tensor& out) {
    run(active_mitchell_function_kernels().log2[a.dtype], {&a}, {}, out);
}
void exp2(const ConstTensor& a, const Tensor& out) {
    run(active_mitchell_function_kernels().exp2[a.dtype], {&a}, {}, out);
}

ResultSpec result_of_power(const ConstTensor& a, const ConstTensor& p) {
    check_float("power", a);
    return result_of_binary("power", {"a", a}, {"p", p});
}
ResultSpec result_of_power(const ConstTensor& a, double) { return result_of_unary("power", a); }

void power(const ConstTensor& a, const ConstTensor& p, const Tensor& out) {
    run(active_mitchell_function_kernels().power[a.dtype], {&a, &p}, {}, out);
}
void power(const ConstTensor& a, double p, const Tensor& out) {
    const ConstTensor number{&p, Dtype::kFloat64, 0, nullptr, nullptr};
    run(active_mitchell_function_kernels().power_number[a.dtype], {&a, &number}, {}, out);
}

}  // namespace slipstick::cpu::mitchell
