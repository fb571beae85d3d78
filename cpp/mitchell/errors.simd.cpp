// Rows of integer products in double, which holds products of 16-bit operands exactly, and the sums
// of their errors. The same bits at every level: sums have eight lanes whatever the vector's width.
#include "core/simd.hpp"
#include "mitchell/error_kernels.hpp"
#include "mitchell/methods.hpp"
#include "mitchell/multiply.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

using mitchell::ErrorSums;
using mitchell::kErrorLanes;
using slipstick::mitchell::Domain;
using slipstick::mitchell::highest_bit;
using slipstick::mitchell::Parameters;
using slipstick::mitchell::Rule;
using slipstick::mitchell::set_bits;

using Real = Vec<double>;
using Bits = Vec<uint64_t>;
constexpr int kVectorLanes = kLanes<double>;
constexpr int kFraction = 52;
constexpr uint64_t kBias = uint64_t{1023} << kFraction;

SLIPSTICK_INLINE double power_of_two(int exponent) {
    return bits::as_double(static_cast<uint64_t>(1023 + exponent) << kFraction);
}

// Integers below 2^52.
SLIPSTICK_INLINE Real to_real(Bits value) {
    return bit_cast<Real>(value | bits::of(0x1p52)) - 0x1p52;
}

// How a method's products are formed here; see multiply_magnitudes in multiply.hpp.
template <class M>
inline constexpr bool kByInteger =
    requires(uint64_t a, const Parameters& p) { M::integer_product(a, a, p); };
template <class M>
inline constexpr bool kBySum = M::kRule == Rule::kBitSum || M::kRule == Rule::kBitSumOr;

// keys: integers, the pattern of 2^k (1 + x) less that of 1.0, or the field x; scales: 2^k, for the
// last.
template <class M>
void prepare(const Parameters& p, const uint32_t* values, int64_t count, uint64_t* keys,
             double* scales) {
    const int m = p.fraction_bits;
    const uint64_t one = uint64_t{1} << m;
    for (int64_t i = 0; i < count; ++i) {
        const uint64_t value = values[i];
        if constexpr (kByInteger<M>) {
            keys[i] = value;
            scales[i] = 1;
        } else {
            const int k = highest_bit(value);
            const uint64_t log =
                M::transform((static_cast<uint64_t>(k) << m) | ((value << (m - k)) & (one - 1)), p);
            keys[i] = kBySum<M> ? log << (kFraction - m) : log & (one - 1);
            scales[i] = power_of_two(static_cast<int>(log >> m));
        }
    }
}

// Products of one a with `count` b, rounded up to whole vectors.
template <class M>
void products(const Parameters& p, double limit, uint64_t key, double scale, const uint64_t* keys,
              const double* scales, int64_t count, double* out) {
    const int m = p.fraction_bits;
    const Real highest = broadcast(limit);
    if constexpr (kByInteger<M>) {
        for (int64_t i = 0; i < count; ++i)
            out[i] = static_cast<double>(static_cast<int64_t>(M::integer_product(key, keys[i], p)));
    }
    for (int64_t i = 0; i < count; i += kVectorLanes) {
        Real product;
        if constexpr (kByInteger<M>) {
            product = load<Real>(out + i);
        } else if constexpr (kBySum<M>) {
            // 52 bits of the offset decide the floor of a product below 2^36.
            Bits sum = load<Bits>(keys + i) + (key + kBias + (p.fraction >> (64 - kFraction)));
            if constexpr (M::kRule == Rule::kBitSumOr) sum |= set_bits(p) << (kFraction - m);
            product = floor(bit_cast<Real>(sum));
        } else {
            const Bits significand = M::significand(broadcast(key), load<Bits>(keys + i), p);
            const Real unit = load<Real>(scales + i) * (scale * power_of_two(-m));
            product = floor(to_real(significand) * unit);
        }
        store(out + i, product < highest ? product : highest);
    }
}

// One number or a vector.
template <class V>
struct Sums {
    V relative, magnitude, square, low, high, furthest, distance, wrong;
};
template <class V>
SLIPSTICK_INLINE V update(Sums<V>& s, V product, V exact, V weight) {
    const V zero{};
    const V one = zero + 1;
    const V error = product - exact;
    const V relative = error / exact;
    const V magnitude = relative < zero ? -relative : relative;
    const V distance = error < zero ? -error : error;
    s.relative += weight * relative;
    s.magnitude += weight * magnitude;
    s.square += weight * (relative * relative);
    s.low = relative < s.low ? relative : s.low;
    s.high = relative > s.high ? relative : s.high;
    s.furthest = distance > s.furthest ? distance : s.furthest;
    s.distance += distance;
    s.wrong += distance > zero ? one : zero;
    const V place = (relative + one) * static_cast<double>(mitchell::kErrorBinsPerUnit);
    const V last = zero + static_cast<double>(mitchell::kErrorBins - 1);
    return place < last ? place : last;
}

template <class V>
SLIPSTICK_INLINE Sums<V> load_sums(const ErrorSums& sums, int lane) {
    return {load<V>(sums.relative + lane), load<V>(sums.magnitude + lane),
            load<V>(sums.square + lane),   load<V>(sums.low + lane),
            load<V>(sums.high + lane),     load<V>(sums.furthest + lane),
            load<V>(sums.distance + lane), load<V>(sums.wrong + lane)};
}
template <class V>
SLIPSTICK_INLINE void store_sums(ErrorSums& sums, int lane, const Sums<V>& s) {
    store(sums.relative + lane, s.relative);
    store(sums.magnitude + lane, s.magnitude);
    store(sums.square + lane, s.square);
    store(sums.low + lane, s.low);
    store(sums.high + lane, s.high);
    store(sums.furthest + lane, s.furthest);
    store(sums.distance + lane, s.distance);
    store(sums.wrong + lane, s.wrong);
}

template <bool weighted>
void accumulate_pairs(const double* product, double a, const double* b, const double* weight,
                      int64_t count, ErrorSums& sums, int32_t* bins) {
    using Places = VecLike<int32_t, double>;
    constexpr int parts = kErrorLanes / kVectorLanes;
    const int64_t whole = count / kErrorLanes * kErrorLanes;
    for (int part = 0; part < parts; ++part) {
        const int lane = part * kVectorLanes;
        Sums<Real> s = load_sums<Real>(sums, lane);
        for (int64_t i = lane; i < whole; i += kErrorLanes) {
            const Real w = weighted ? load<Real>(weight + i) : broadcast(1.0);
            const Real place = update(s, load<Real>(product + i), load<Real>(b + i) * a, w);
            store(bins + i, __builtin_convertvector(place, Places));
        }
        store_sums(sums, lane, s);
    }
    for (int64_t i = whole; i < count; ++i) {
        const auto lane = static_cast<int>(i - whole);
        Sums<double> s = load_sums<double>(sums, lane);
        bins[i] = static_cast<int32_t>(update(s, product[i], b[i] * a, weighted ? weight[i] : 1.0));
        store_sums(sums, lane, s);
    }
}

void accumulate(const double* product, double a, const double* b, const double* weight,
                int64_t count, ErrorSums& sums, int32_t* bins) {
    if (weight == nullptr) {
        accumulate_pairs<false>(product, a, b, weight, count, sums, bins);
    } else {
        accumulate_pairs<true>(product, a, b, weight, count, sums, bins);
    }
}

constexpr mitchell::ErrorKernels make_kernels() {
    mitchell::ErrorKernels kernels{};
    slipstick::mitchell::Methods::for_each([&]<class M>() {
        if constexpr (slipstick::mitchell::kTakesIntegers<M>) {
            kernels.prepare[static_cast<int>(M::kKind)] = &prepare<M>;
            kernels.products[static_cast<int>(M::kKind)] = &products<M>;
        }
    });
    kernels.accumulate = &accumulate;
    return kernels;
}

}  // namespace

const mitchell::ErrorKernels mitchell_error_kernels = make_kernels();

}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
