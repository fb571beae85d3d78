// What the tile kernel (tile.cuh) does with two lanes: the CPU's Macs (macs.hpp), for one product.
//
//   struct Mac {
//       static constexpr int kLeftWords = ...;  // of a lane of the left operand
//       static constexpr bool kHeavy = ...;     // many instructions a product: loops stay rolled
//       Mac(const Prepared&, const MacArguments&);
//       // The bits of the number, or what else stands for an element of type T, of whose bits ...
//       static uint32_t widen<T>(T element);
//       // ... lanes are made; `second` where an element becomes two terms.
//       static Lanes<kLeftWords> left<changes>(prepared, uint32_t widened, bool second);
//       static Lanes<1> right<changes>(prepared, uint32_t widened, bool second);
//       void operator()(float& acc, uint32_t left, uint32_t threshold, uint32_t right) const;
//       static float finish(prepared, float chain);
//   };
#pragma once

#include <cmath>

#include "core/cuda.cuh"
#include "mitchell/lane_packing.hpp"
#include "mitchell/multiply.hpp"
#include "mitchell/plan_rules.hpp"

namespace slipstick::cuda::mitchell {

using slipstick::mitchell::Choice;
using slipstick::mitchell::ExactTerms;
using slipstick::mitchell::Format;
using slipstick::mitchell::LanePacking;
using slipstick::mitchell::Parameters;

// A Choice in lanes, in shared memory, where it costs no registers.
struct Prepared {
    ExactTerms<float, true> left;
    ExactTerms<float, false> right;
    uint32_t low_bits;
    float smallest_chain;
    float unscale;

    __device__ explicit Prepared(const Choice& choice)
        : left(choice.left),
          right(choice.right),
          low_bits(static_cast<uint32_t>(choice.mac.low_bits)),
          smallest_chain(static_cast<float>(choice.mac.smallest_chain)),
          unscale(static_cast<float>(choice.mac.unscale)) {}
};

// What products by the method's own rules are told.
struct MacArguments {
    Parameters parameters;
    Format<uint32_t> format;  // of the operands
    bool exchanged;           // the method's first operand is the right one
};

template <int words>
struct Lanes {
    uint32_t word[words];
};

// Lanes of patterns; the changes of both operands are alike.
struct PatternLanes {
    template <class T>
    __device__ __forceinline__ static uint32_t widen(T element) {
        return slipstick::mitchell::widened<T, float>(element);
    }
    template <bool changes>
    __device__ __forceinline__ static Lanes<1> left(const Prepared& prepared, uint32_t widened,
                                                    bool) {
        return summand<changes>(prepared.left.lanes, widened);
    }
    template <bool changes>
    __device__ __forceinline__ static Lanes<1> right(const Prepared& prepared, uint32_t widened,
                                                     bool) {
        return summand<changes>(prepared.right.lanes, widened);
    }

private:
    // slipstick::mitchell::summand in three instructions for its five: patterns of numbers compare
    // as numbers, whose sign costs nothing.
    template <bool changes>
    __device__ __forceinline__ static Lanes<1> summand(const LanePacking<uint32_t>& packing,
                                                       uint32_t widened) {
        uint32_t lane = widened;
        if constexpr (changes) {
            const uint32_t magnitude = slipstick::mitchell::magnitude_of(widened);
            lane = packing.changed(magnitude) | (widened ^ magnitude);
        }
        const bool is_zero = fabsf(bits::as_float(widened)) < bits::as_float(packing.smallest);
        return {is_zero ? packing.zero : lane + packing.bias};
    }
};

// Two patterns added, of operands whose range is certified: an integer addition and one of floats.
template <bool low_bits>
struct SumMac : PatternLanes {
    static constexpr int kLeftWords = 1;
    static constexpr bool kHeavy = false;
    uint32_t low;

    __device__ __forceinline__ SumMac(const Prepared& prepared, const MacArguments&)
        : low(prepared.low_bits) {}
    __device__ __forceinline__ void operator()(float& acc, uint32_t left, uint32_t,
                                               uint32_t right) const {
        uint32_t product = left + right;
        if constexpr (low_bits) product |= low;
        acc = acc + bits::as_float(product);
    }
    __device__ __forceinline__ static float finish(const Prepared& prepared, float chain) {
        const float magnitude = chain < 0 ? -chain : chain;
        return (magnitude < prepared.smallest_chain ? 0.0f : chain) * prepared.unscale;
    }
};

// Sums of finite operands whose products cannot overflow: products that are zero, or fall below the
// normal range, are left out. A chain never is -0, so that is what adding +0 would do.
template <bool low_bits>
struct FlushMac : PatternLanes {
    static constexpr int kLeftWords = 2;
    static constexpr bool kHeavy = false;
    uint32_t low;

    __device__ __forceinline__ FlushMac(const Prepared& prepared, const MacArguments&)
        : low(prepared.low_bits) {}
    template <bool changes>
    __device__ __forceinline__ static Lanes<2> left(const Prepared& prepared, uint32_t widened,
                                                    bool) {
        const auto lane =
            slipstick::mitchell::thresholded<float>(prepared.left.lanes, bits::as_float(widened));
        return {lane.bits, lane.threshold};
    }
    __device__ __forceinline__ void operator()(float& acc, uint32_t left, uint32_t threshold,
                                               uint32_t right) const {
        uint32_t product = left + right;
        if constexpr (low_bits) product |= low;
        const uint32_t magnitude = right & 0x7fffffffu;
        if (static_cast<int32_t>(magnitude) > static_cast<int32_t>(threshold))
            acc = acc + bits::as_float(product);
    }
    __device__ __forceinline__ static float finish(const Prepared&, float chain) { return chain; }
};

// Ordinary products, fused.
struct ExactMac {
    static constexpr int kLeftWords = 1;
    static constexpr bool kHeavy = false;

    __device__ __forceinline__ ExactMac(const Prepared&, const MacArguments&) {}
    template <class T>
    __device__ __forceinline__ static uint32_t widen(T element) {
        return bits::of(slipstick::mitchell::number<float>(element));
    }
    template <bool changes>
    __device__ __forceinline__ static Lanes<1> left(const Prepared& prepared, uint32_t widened,
                                                    bool second) {
        return {term(prepared.left, widened, second)};
    }
    template <bool changes>
    __device__ __forceinline__ static Lanes<1> right(const Prepared& prepared, uint32_t widened,
                                                     bool second) {
        return {term(prepared.right, widened, second)};
    }
    __device__ __forceinline__ void operator()(float& acc, uint32_t left, uint32_t,
                                               uint32_t right) const {
        acc = fmaf(bits::as_float(left), bits::as_float(right), acc);
    }
    __device__ __forceinline__ static float finish(const Prepared&, float chain) { return chain; }

private:
    template <class Terms>
    __device__ __forceinline__ static uint32_t term(const Terms& terms, uint32_t widened,
                                                    bool second) {
        const float value = bits::as_float(widened);
        return bits::of(second ? terms.second(value) : terms.first(value));
    }
};

// Products by the method's own rules in the operands' format, widened.
template <class M>
struct GeneralMac {
    static constexpr int kLeftWords = 1;
    static constexpr bool kHeavy = true;
    const MacArguments& arguments;

    __device__ __forceinline__ GeneralMac(const Prepared&, const MacArguments& given)
        : arguments(given) {}
    template <class T>
    __device__ __forceinline__ static uint32_t widen(T element) {
        if constexpr (sizeof(T) == 4) {
            return bits::of(element);
        } else if constexpr (sizeof(T) == 2) {
            return element.bits;
        } else {
            return 0;  // integers have no such products
        }
    }
    template <bool changes>
    __device__ __forceinline__ static Lanes<1> left(const Prepared&, uint32_t widened, bool) {
        return {widened};
    }
    template <bool changes>
    __device__ __forceinline__ static Lanes<1> right(const Prepared&, uint32_t widened, bool) {
        return {widened};
    }
    __device__ __forceinline__ void operator()(float& acc, uint32_t left, uint32_t,
                                               uint32_t right) const {
        // Of all methods a table alone may not be symmetric.
        const bool turned = M::kKind == slipstick::mitchell::Kind::kTable && arguments.exchanged;
        acc = acc + value_of(slipstick::mitchell::multiply_bits<M>(
                        turned ? right : left, turned ? left : right, arguments.parameters,
                        arguments.format));
    }
    __device__ __forceinline__ static float finish(const Prepared&, float chain) { return chain; }

private:
    __device__ __forceinline__ float value_of(uint32_t product) const {
        const int m = arguments.format.fraction_bits;
        if (m == 23) return bits::as_float(product);
        const auto narrow = static_cast<uint16_t>(product);
        return m == 10 ? to_float(Float16{narrow}) : to_float(BFloat16{narrow});
    }
};

}  // namespace slipstick::cuda::mitchell
