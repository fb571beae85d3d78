// Products of integers, element by element.
#include "mitchell/elementwise.cuh"
#include "mitchell/multiply.hpp"
#include "mitchell/operands.hpp"
#include "mitchell/products.cuh"

namespace slipstick::cuda::mitchell {
namespace {

using slipstick::mitchell::Domain;
using slipstick::mitchell::Kind;
using slipstick::mitchell::magnitude_of_integer;
using slipstick::mitchell::Wider;

template <class M, class T>
struct MultiplyIntegers {
    using In = T;
    using Out = Wider<T>;
    static constexpr int kInputs = 2;
    static constexpr bool kHeavy = M::kDomain != Domain::kTable;
    Parameters parameters;

    __device__ Out operator()(T a, T b) const {
        return slipstick::mitchell::multiply_integers<M>(a, b, parameters);
    }
};

// Mitchell's own products of 8 and 16 bits in the patterns of float32: both operands are exact
// there, and so is 2^(k1 + k2) (1 + x + y), which has at most 16 significant bits. 10 instructions
// where the definition takes 60; at 4 bytes a product an H100 has time for 35.
template <class T>
struct MultiplyInFloats {
    using In = T;
    using Out = Wider<T>;
    static constexpr int kInputs = 2;
    static constexpr bool kHeavy = false;

    __device__ Out operator()(T a, T b) const {
        constexpr uint32_t kOne = 0x3f800000;
        const uint32_t sum = bits::of(magnitude(a)) + bits::of(magnitude(b)) - kOne;
        const auto product = static_cast<uint32_t>(bits::as_float(sum));
        const uint32_t kept = a == 0 || b == 0 ? 0 : product;
        const bool negative = (a < 0) != (b < 0);
        return static_cast<Out>(negative ? 0 - kept : kept);
    }

private:
    __device__ static float magnitude(T value) {
        return static_cast<float>(static_cast<uint32_t>(magnitude_of_integer(value)));
    }
};

}  // namespace

void multiply_integers(const Context& context, Kind kind, const Parameters& parameters,
                       const ConstTensor& a, const ConstTensor& b, const Tensor& out) {
    const auto run = [&](const auto& operation) {
        run_elementwise(context, "multiply", operation, {&a, &b}, out);
    };
    slipstick::mitchell::dispatch_method(kind, [&]<class M>() {
        slipstick::mitchell::dispatch_integer(a.dtype, [&]<class T>() {
            if constexpr (M::kKind == Kind::kMitchell && sizeof(T) <= 2) {
                if (parameters.fraction == 0) return run(MultiplyInFloats<T>{});
            }
            constexpr bool is_table = M::kDomain == Domain::kTable && sizeof(T) == 1;
            if constexpr (slipstick::mitchell::kTakesIntegers<M> || is_table)
                run(MultiplyIntegers<M, T>{parameters});
        });
    });
}

}  // namespace slipstick::cuda::mitchell
