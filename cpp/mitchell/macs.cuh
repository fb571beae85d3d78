// What the tile kernel (tile.cuh) does with two lanes: the CPU's Macs (macs.hpp), for one product.
//
// A Mac says what a lane of the left operand is (one word or two), how elements of type T become
// lanes, what `acc` gains by a product, and what a finished chain is:
//   using Acc = ...;
//   static constexpr int kLeftWords = ...;
//   static constexpr bool kElements = ...;  // lanes are converted by element type, else bits
//   Mac(const Prepared&, const MacArguments&);
//   left<T, changes>(prepared, element, second), right<T, changes>(...)
//   void operator()(Acc& acc, uint32_t left, uint32_t threshold, uint32_t right) const;
//   uint32_t finish(prepared, chain, integer)
#pragma once

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

// What the host knows of products by the method's own rules.
struct MacArguments {
    Parameters parameters;
    Format<uint32_t> format;  // of the operands
    bool is_signed;           // entries of a table of products
};

template <int words>
struct Lanes {
    uint32_t element[words];
};

// A chain as it is added up: the bits of a float, or of the integer that it holds exactly, which is
// below 2^24.
__device__ __forceinline__ uint32_t total_of(float chain, bool integer) {
    return integer ? static_cast<uint32_t>(static_cast<int32_t>(chain)) : bits::of(chain);
}
__device__ __forceinline__ uint32_t sum_of_totals(uint32_t a, uint32_t b, bool integer) {
    return integer ? a + b : bits::of(bits::as_float(a) + bits::as_float(b));
}

// Two patterns added, of operands whose range is certified: an integer addition and one of floats.
template <bool low_bits>
struct SumMac {
    using Acc = float;
    static constexpr int kLeftWords = 1;
    static constexpr bool kTakesTerms = false;
    static constexpr bool kChanges = true;
    static constexpr bool kHeavy = false;
    uint32_t low;

    __device__ __forceinline__ SumMac(const Prepared& prepared, const MacArguments&)
        : low(prepared.low_bits) {}
    template <bool changes, class T>
    __device__ __forceinline__ static Lanes<1> left(const Prepared& prepared, T value, bool) {
        return {slipstick::mitchell::summand<float, changes>(prepared.left.lanes, value)};
    }
    template <bool changes, class T>
    __device__ __forceinline__ static Lanes<1> right(const Prepared& prepared, T value, bool) {
        return {slipstick::mitchell::summand<float, changes>(prepared.right.lanes, value)};
    }
    __device__ __forceinline__ void operator()(float& acc, uint32_t left, uint32_t,
                                               uint32_t right) const {
        uint32_t product = left + right;
        if constexpr (low_bits) product |= low;
        acc = acc + bits::as_float(product);
    }
    __device__ __forceinline__ static uint32_t finish(const Prepared& prepared, float chain,
                                                      bool integer) {
        const float magnitude = chain < 0 ? -chain : chain;
        const float kept = magnitude < prepared.smallest_chain ? 0.0f : chain;
        return total_of(kept * prepared.unscale, integer);
    }
};

// Sums of finite operands whose products cannot overflow: products that are zero, or fall below the
// normal range, are left out. A chain never is -0, so that is what adding +0 would do.
template <bool low_bits>
struct FlushMac {
    using Acc = float;
    static constexpr int kLeftWords = 2;
    static constexpr bool kTakesTerms = false;
    static constexpr bool kChanges = true;
    static constexpr bool kHeavy = false;
    uint32_t low;

    __device__ __forceinline__ FlushMac(const Prepared& prepared, const MacArguments&)
        : low(prepared.low_bits) {}
    template <bool changes, class T>
    __device__ __forceinline__ static Lanes<2> left(const Prepared& prepared, T value, bool) {
        const auto lane = slipstick::mitchell::thresholded<float>(prepared.left.lanes, value);
        return {lane.bits, lane.threshold};
    }
    template <bool changes, class T>
    __device__ __forceinline__ static Lanes<1> right(const Prepared& prepared, T value, bool) {
        return {slipstick::mitchell::summand<float, changes>(prepared.right.lanes, value)};
    }
    __device__ __forceinline__ void operator()(float& acc, uint32_t left, uint32_t threshold,
                                               uint32_t right) const {
        uint32_t product = left + right;
        if constexpr (low_bits) product |= low;
        const uint32_t magnitude = right & 0x7fffffffu;
        if (static_cast<int32_t>(magnitude) > static_cast<int32_t>(threshold))
            acc = acc + bits::as_float(product);
    }
    __device__ __forceinline__ static uint32_t finish(const Prepared&, float chain, bool integer) {
        return total_of(chain, integer);
    }
};

// Ordinary products, fused.
struct ExactMac {
    using Acc = float;
    static constexpr int kLeftWords = 1;
    static constexpr bool kTakesTerms = true;
    static constexpr bool kChanges = false;
    static constexpr bool kHeavy = false;

    __device__ __forceinline__ ExactMac(const Prepared&, const MacArguments&) {}
    template <bool changes, class T>
    __device__ __forceinline__ static Lanes<1> left(const Prepared& prepared, T value,
                                                    bool second) {
        return {bits::of(second ? prepared.left.second(value) : prepared.left.first(value))};
    }
    template <bool changes, class T>
    __device__ __forceinline__ static Lanes<1> right(const Prepared& prepared, T value,
                                                     bool second) {
        return {bits::of(second ? prepared.right.second(value) : prepared.right.first(value))};
    }
    __device__ __forceinline__ void operator()(float& acc, uint32_t left, uint32_t,
                                               uint32_t right) const {
        acc = fmaf(bits::as_float(left), bits::as_float(right), acc);
    }
    __device__ __forceinline__ static uint32_t finish(const Prepared&, float chain, bool integer) {
        return total_of(chain, integer);
    }
};

// The bits of an element as they are.
template <class T>
__device__ __forceinline__ uint32_t plain_lane(T value) {
    if constexpr (sizeof(T) == 4) {
        return bits::of(value);
    } else if constexpr (sizeof(T) == 2) {
        return value.bits;
    } else {
        return static_cast<uint8_t>(value);
    }
}

struct PlainLanes {
    static constexpr int kLeftWords = 1;
    static constexpr bool kTakesTerms = false;
    static constexpr bool kChanges = false;
    static constexpr bool kHeavy = true;
    template <bool changes, class T>
    __device__ __forceinline__ static Lanes<1> left(const Prepared&, T value, bool) {
        return {plain_lane(value)};
    }
    template <bool changes, class T>
    __device__ __forceinline__ static Lanes<1> right(const Prepared&, T value, bool) {
        return {plain_lane(value)};
    }
};

// Products by the method's own rules in the operands' format, widened.
template <class M>
struct GeneralMac : PlainLanes {
    using Acc = float;
    const MacArguments& arguments;

    __device__ __forceinline__ GeneralMac(const Prepared&, const MacArguments& given)
        : arguments(given) {}
    __device__ __forceinline__ void operator()(float& acc, uint32_t left, uint32_t,
                                               uint32_t right) const {
        const uint32_t product = slipstick::mitchell::multiply_bits<M>(
            left, right, arguments.parameters, arguments.format);
        acc = acc + value_of(product);
    }
    __device__ __forceinline__ static uint32_t finish(const Prepared&, float chain, bool) {
        return bits::of(chain);
    }

private:
    __device__ __forceinline__ float value_of(uint32_t product) const {
        const int m = arguments.format.fraction_bits;
        if (m == 23) return bits::as_float(product);
        const auto narrow = static_cast<uint16_t>(product);
        return m == 10 ? to_float(Float16{narrow}) : to_float(BFloat16{narrow});
    }
};

// Products of 8-bit integers from a table of all of them.
struct TableMac : PlainLanes {
    using Acc = uint32_t;
    const uint16_t* table;
    bool is_signed;

    __device__ __forceinline__ TableMac(const Prepared&, const MacArguments& arguments)
        : table(arguments.parameters.table), is_signed(arguments.is_signed) {}
    __device__ __forceinline__ void operator()(uint32_t& acc, uint32_t left, uint32_t,
                                               uint32_t right) const {
        const uint16_t entry = __ldg(table + (left << 8 | right));
        acc += is_signed ? static_cast<uint32_t>(int32_t{static_cast<int16_t>(entry)}) : entry;
    }
    __device__ __forceinline__ static uint32_t finish(const Prepared&, uint32_t chain, bool) {
        return chain;
    }
};

}  // namespace slipstick::cuda::mitchell
