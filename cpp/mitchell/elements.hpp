// The loops of elementwise kernels. Included by *.simd.cpp alone.
#pragma once

#include "core/simd.hpp"
#include "mitchell/kernels.hpp"
#include "mitchell/lanes.hpp"
#include "mitchell/methods.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

using slipstick::mitchell::Domain;
using slipstick::mitchell::LaneOfBits;
using slipstick::mitchell::Parameters;

// out = operation(a, b) on the bits of T, from element `i` on.
template <class T, class Lane, class Operation>
SLIPSTICK_INLINE void binary(const Strip& strip, const Operation& operation, int64_t i = 0) {
    using V = Vec<Lane>;
    constexpr int lanes = kLanes<Lane>;
    const auto* a = static_cast<const Pattern<T>*>(strip.data[1]);
    const auto* b = static_cast<const Pattern<T>*>(strip.data[2]);
    auto* out = static_cast<Pattern<T>*>(strip.target());
    const auto [out_stride, a_stride, b_stride] = strip.stride;
    if (out_stride == 1 && (a_stride | b_stride | 1) == 1) {  // every step is 1 or 0
        const V a_value = broadcast(Lane{a[0]});
        const V b_value = broadcast(Lane{b[0]});
        for (; i + lanes <= strip.count; i += lanes) {
            const V left = a_stride == 1 ? load_lanes<T, Lane>(a + i) : a_value;
            const V right = b_stride == 1 ? load_lanes<T, Lane>(b + i) : b_value;
            store_lanes<T, Lane>(out + i, operation.template operator()<T, Lane>(left, right));
        }
    }
    for (; i < strip.count; ++i) {
        out[i * out_stride] = static_cast<Pattern<T>>(
            operation.template operator()<T, Lane>(Lane{a[i * a_stride]}, Lane{b[i * b_stride]}));
    }
}

// make.operator()<M, T>() for every method and every one of Types.
template <class... Types, class Maker>
constexpr mitchell::PerMethod<mitchell::ElementwiseFn> make_per_method(Maker make) {
    mitchell::PerMethod<mitchell::ElementwiseFn> table{};
    slipstick::mitchell::Methods::for_each([&]<class M>() {
        table.fn[static_cast<int>(M::kKind)] = make_per_dtype<mitchell::ElementwiseFn, Types...>(
            [make]<class T>() { return make.template operator()<M, T>(); });
    });
    return table;
}

}  // namespace
}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
