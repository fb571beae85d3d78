// Square root, logarithm, exponential and power, element by element.
#include "mitchell/functions.hpp"

#include "mitchell/cuda.hpp"
#include "mitchell/elementwise.cuh"
#include "mitchell/formats.hpp"

namespace slipstick::cuda::mitchell {
namespace {

using slipstick::mitchell::format;
using slipstick::mitchell::Format;
using slipstick::mitchell::Pattern;

// 16-bit numbers in lanes of 32 bits, so that a float32 has place for what is computed of them.
template <class T>
using Lane = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;

template <class T, int inputs = 1, bool heavy = false>
struct Function {
    using In = Pattern<T>;
    using Out = Pattern<T>;
    static constexpr int kInputs = inputs;
    static constexpr bool kHeavy = heavy;
};

template <class T>
struct Sqrt : Function<T> {
    __device__ Pattern<T> operator()(Pattern<T> a) const {
        return static_cast<Pattern<T>>(
            slipstick::mitchell::sqrt_bits(Lane<T>{a}, format<T, Lane<T>>()));
    }
};
template <class T>
struct Log2 : Function<T> {
    __device__ Pattern<T> operator()(Pattern<T> a) const {
        return static_cast<Pattern<T>>(
            slipstick::mitchell::log2_bits(Lane<T>{a}, format<T, Lane<T>>()));
    }
};
template <class T>
struct Exp2 : Function<T> {
    __device__ Pattern<T> operator()(Pattern<T> a) const {
        return static_cast<Pattern<T>>(
            slipstick::mitchell::exp2_bits(Lane<T>{a}, format<T, Lane<T>>()));
    }
};

template <class T>
struct Power : Function<T, 2, true> {
    __device__ Pattern<T> operator()(Pattern<T> a, Pattern<T> p) const {
        constexpr Format<uint64_t> f = format<T, uint64_t>();
        const bool is_zero = (p & (f.sign - 1)) < f.smallest;
        return static_cast<Pattern<T>>(
            slipstick::mitchell::power_bits(a, is_zero ? 0.0 : value_of(p), f));
    }

private:
    __device__ static double value_of(Pattern<T> bits) {
        if constexpr (sizeof(T) == 2) {
            return double{to_float(T{bits})};
        } else {
            return double{slipstick::mitchell::reinterpret<T>(bits)};
        }
    }
};
template <class T>
struct PowerNumber : Function<T, 1, true> {
    double p;

    __device__ Pattern<T> operator()(Pattern<T> a) const {
        return static_cast<Pattern<T>>(
            slipstick::mitchell::power_bits(a, p, format<T, uint64_t>()));
    }
};

// make.operator()<T>() is the operation for numbers of type T.
template <class Make>
void run(const Context& context, const char* function, Make make,
         std::initializer_list<const ConstTensor*> inputs, const Tensor& out) {
    const DeviceGuard guard(context, function);
    dispatch<float, double, Float16, BFloat16>(out.dtype, [&]<class T>() {
        run_elementwise(context, function, make.template operator()<T>(), inputs, out);
    });
}

}  // namespace

void sqrt(const Context& context, const ConstTensor& a, const Tensor& out) {
    run(context, "sqrt", []<class T>() { return Sqrt<T>{}; }, {&a}, out);
}
void log2(const Context& context, const ConstTensor& a, const Tensor& out) {
    run(context, "log2", []<class T>() { return Log2<T>{}; }, {&a}, out);
}
void exp2(const Context& context, const ConstTensor& a, const Tensor& out) {
    run(context, "exp2", []<class T>() { return Exp2<T>{}; }, {&a}, out);
}

void power(const Context& context, const ConstTensor& a, const ConstTensor& p, const Tensor& out) {
    run(context, "power", []<class T>() { return Power<T>{}; }, {&a, &p}, out);
}
void power(const Context& context, const ConstTensor& a, double p, const Tensor& out) {
    run(context, "power", [p]<class T>() { return PowerNumber<T>{{}, p}; }, {&a}, out);
}

}  // namespace slipstick::cuda::mitchell
