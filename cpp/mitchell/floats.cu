// Products and quotients of floating-point numbers, element by element.
#include "mitchell/elementwise.cuh"
#include "mitchell/formats.hpp"
#include "mitchell/methods.hpp"
#include "mitchell/multiply.hpp"
#include "mitchell/products.cuh"

namespace slipstick::cuda::mitchell {
namespace {

using slipstick::mitchell::Domain;
using slipstick::mitchell::Format;
using slipstick::mitchell::format;
using slipstick::mitchell::Kind;
using slipstick::mitchell::LaneOfBits;
using slipstick::mitchell::Pattern;
using slipstick::mitchell::Rule;

// 20 to 30 instructions a product of Mitchell's own; at 12 bytes of float32 an H100 has time for
// 100.
template <class M, class T>
struct Multiply {
    using In = Pattern<T>;
    using Out = Pattern<T>;
    using Lane = LaneOfBits<M::lane_bits(8 * sizeof(Pattern<T>))>;
    static constexpr int kInputs = 2;
    static constexpr bool kHeavy = M::kRule != Rule::kBitSum && M::kKind != Kind::kRaw;
    Parameters parameters;

    __device__ Out operator()(In a, In b) const {
        return static_cast<Out>(
            slipstick::mitchell::multiply_bits<M>(Lane{a}, Lane{b}, parameters, format<T, Lane>()));
    }
};

template <class T>
struct Divide {
    using In = Pattern<T>;
    using Out = Pattern<T>;
    static constexpr int kInputs = 2;
    static constexpr bool kHeavy = false;
    In c;

    __device__ Out operator()(In a, In b) const {
        return slipstick::mitchell::divide_bits(a, b, c, format<T, In>());
    }
};

template <class T>
struct Reciprocal {
    using In = Pattern<T>;
    using Out = Pattern<T>;
    static constexpr int kInputs = 1;
    static constexpr bool kHeavy = false;
    In c;

    __device__ Out operator()(In a) const {
        constexpr Format<In> f = format<T, In>();
        return slipstick::mitchell::divide_bits(f.one, a, c, f);
    }
};

template <class F>
void dispatch_float(Dtype dtype, F&& f) {
    dispatch<float, double, Float16, BFloat16>(dtype, f);
}

}  // namespace

void multiply_floats(const Context& context, Kind kind, const Parameters& parameters,
                     const ConstTensor& a, const ConstTensor& b, const Tensor& out) {
    slipstick::mitchell::dispatch_method(kind, [&]<class M>() {
        dispatch_float(a.dtype, [&]<class T>() {
            constexpr bool fits = M::kDomain != Domain::kFloat32 || std::is_same_v<T, float>;
            if constexpr (slipstick::mitchell::kTakesFloats<M> && fits) {
                run_elementwise(context, "multiply", Multiply<M, T>{parameters}, {&a, &b}, out);
            }
        });
    });
}

void divide(const Context& context, const ConstTensor& a, const ConstTensor& b,
            const Method& method, const Tensor& out) {
    const DeviceGuard guard(context, "divide");
    const Parameters parameters = device_parameters(context, "divide", a.dtype, method);
    dispatch_float(a.dtype, [&]<class T>() {
        const auto c = static_cast<Pattern<T>>(parameters.c);
        run_elementwise(context, "divide", Divide<T>{c}, {&a, &b}, out);
    });
}

void reciprocal(const Context& context, const ConstTensor& a, const Method& method,
                const Tensor& out) {
    const DeviceGuard guard(context, "reciprocal");
    const Parameters parameters = device_parameters(context, "reciprocal", a.dtype, method);
    dispatch_float(a.dtype, [&]<class T>() {
        const auto c = static_cast<Pattern<T>>(parameters.c);
        run_elementwise(context, "reciprocal", Reciprocal<T>{c}, {&a}, out);
    });
}

}  // namespace slipstick::cuda::mitchell
