// Every method: one small struct, and the list of them at the end. Adding a method means adding a
// struct here, its enumerator and its place in the list; kernels, checks and names follow.
//
// All work on logarithms: k + x for 2^k (1 + x), held as k 2^m + x 2^m, which for a float is its
// magnitude's bits. Functions take one number or a compiler vector (U) of unsigned lanes.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/host_device.hpp"
#include "mitchell/parameters.hpp"
#include "mitchell/product.hpp"

namespace slipstick::mitchell {

enum class Kind : uint8_t {
    kMitchell,
    kRaw,
    kKossonJaggi,
    kLMul,
    kLMulFormula,
    kMbm,
    kRealm,
    kIlm,
    kMitchW,
    kDrum,
    kAlmSoa,
    kOperandDecomposition,
    kTable,
};

// How a product comes about: what a matrix product chooses its kernel by.
enum class Rule : uint8_t {
    kBitSum,       // transformed logarithms added
    kBitSumOr,     // the same, then the lowest bits set
    kSignificand,  // exponents added, a rule of its own for the significand, truncated
    kRealProduct,  // a formula in real products, rounded once to nearest, ties to even
    kPattern,      // a rule for whole bit patterns, edges included; floats only
    kInteger,      // integers only
};

enum class Domain : uint8_t { kAll, kFloats, kFloat32, kIntegers, kTable };

// --- Numbers and vectors alike ---

template <class U>
struct LaneOfVector {
    using type = std::remove_cvref_t<decltype(U{}[0])>;
};
template <class U>
using LaneOf = typename std::conditional_t<std::is_integral_v<U>, std::type_identity<U>,
                                           LaneOfVector<U>>::type;

template <class U>
SLIPSTICK_HD U fill(uint64_t value) {
    return static_cast<U>(U{} + static_cast<LaneOf<U>>(value));
}
template <class U>
SLIPSTICK_HD U shift_right(U value, int count) {
    return static_cast<U>(value >> static_cast<LaneOf<U>>(count));
}
template <class U>
SLIPSTICK_HD U shift_left(U value, int count) {
    return static_cast<U>(value << static_cast<LaneOf<U>>(count));
}
// The lowest `count` bits.
template <class U>
SLIPSTICK_HD U low_bits(int count) {
    return fill<U>((uint64_t{1} << count) - 1);
}
template <class U, class F>
SLIPSTICK_HD U lanewise(U a, U b, F f) {
    if constexpr (std::is_integral_v<U>) {
        return f(a, b);
    } else {
        U result{};
        for (unsigned i = 0; i < sizeof(U) / sizeof(LaneOf<U>); ++i) result[i] = f(a[i], b[i]);
        return result;
    }
}

// --- Pieces that several methods share ---

// A significand of [1, 8) in units of 2^-m as the logarithm of its value, truncated to m bits.
template <class U>
SLIPSTICK_HD U truncated_log(U significand, int m) {
    const U one = fill<U>(uint64_t{1} << m);
    const auto below_two = static_cast<U>(significand - one);
    const U below_four = shift_right(significand, 1);
    const auto above = static_cast<U>(shift_right(significand, 2) + one);
    return significand < static_cast<U>(one + one)
               ? below_two
               : (shift_right(significand, 2) < one ? below_four : above);
}

// 1 + x + y, or 2 (x + y) after a carry.
template <class U>
SLIPSTICK_HD U mitchell_significand(U x, U y, int m) {
    const U one = fill<U>(uint64_t{1} << m);
    const auto sum = static_cast<U>(x + y);
    return sum < one ? static_cast<U>(one + sum) : static_cast<U>(sum + sum);
}

// The lowest fraction bits rounded away: to nearest, ties to even, a carry raises the exponent.
template <class U>
SLIPSTICK_HD U rounded_log(U log, int dropped) {
    if (dropped <= 0) return log;
    const U odd = static_cast<U>(shift_right(log, dropped) & fill<U>(1));
    const auto raised = static_cast<U>(log + low_bits<U>(dropped - 1) + odd);
    return static_cast<U>(raised & static_cast<U>(~low_bits<U>(dropped)));
}

template <class U>
SLIPSTICK_HD U truncate_log(U log, int dropped) {
    return static_cast<U>(log & static_cast<U>(~low_bits<U>(dropped)));
}

// The float type of the lanes' own width, one number or a vector.
template <class U>
struct RealOf {
    using Scalar = std::conditional_t<sizeof(LaneOf<U>) == 8, double, float>;
    typedef Scalar type __attribute__((vector_size(sizeof(U))));
};
template <>
struct RealOf<uint32_t> {
    using type = float;
};
template <>
struct RealOf<uint64_t> {
    using type = double;
};
template <class U>
using Real = typename RealOf<U>::type;
template <class U>
inline constexpr int kRealBits = sizeof(LaneOf<U>) == 8 ? 52 : 23;
template <class U>
inline constexpr uint64_t kRealOne = sizeof(LaneOf<U>) == 8 ? uint64_t{0x3ff} << 52 : 0x3f800000;

template <class To, class From>
SLIPSTICK_HD To reinterpret(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To result;
    __builtin_memcpy(&result, &from, sizeof result);
    return result;
}

// 1 + x as a real number; exact, since the lanes are at least as wide as the format.
template <class U>
SLIPSTICK_HD Real<U> significand_value(U x, int m) {
    return reinterpret<Real<U>>(
        static_cast<U>(shift_left(x, kRealBits<U> - m) | fill<U>(kRealOne<U>)));
}
// The logarithm of a real number of [1, 8), rounded to m bits.
template <class U>
SLIPSTICK_HD U log_of_value(Real<U> value, int m) {
    const int dropped = kRealBits<U> - m;
    const auto log = static_cast<U>(reinterpret<U>(value) - fill<U>(kRealOne<U>));
    return shift_right(rounded_log(log, dropped), dropped);
}

SLIPSTICK_HD int highest_bit(uint64_t value) { return 63 - __builtin_clzll(value); }

// --- The methods ---

// The parameter of a method that the operands' format limits.
struct Limit {
    const char* parameter;
    int64_t highest;
};

// What a method has unless it says otherwise. `m` is the number of fraction bits. Every method also
// has a kName, by which Python asks for it, and a kSpelling, which its user sees in errors.
struct MethodBase {
    static constexpr Domain kDomain = Domain::kAll;
    // Whether transform() does anything.
    static constexpr bool kTransforms = false;
    // The width of the lanes that hold a float of `bits` bits.
    static constexpr int lane_bits(int bits) { return bits; }
    // The highest width for operands with m fraction bits; no name means no limit.
    static constexpr Limit limit(int /*m*/) { return {nullptr, 0}; }
    // The offset d.
    static constexpr double offset(double /*bias*/, int64_t /*width*/, int /*m*/) { return 0; }
    // Turns the method's own parameter into what its functions want.
    static constexpr int64_t prepare(int64_t width, int /*m*/, bool /*is_float*/) { return width; }
    // The change of one operand's logarithm: what a matrix product does while packing.
    template <class U>
    SLIPSTICK_HD static U transform(U log, const Parameters& /*p*/) {
        return log;
    }
};

// Mitchell 1962; with the offset d: s = x + y + d; 1 + s | 2 s | 4 (s - 1) for s < 1 | < 2 | else.
struct Mitchell : MethodBase {
    static constexpr Kind kKind = Kind::kMitchell;
    static constexpr const char* kName = "mitchell";
    static constexpr const char* kSpelling = "Mitchell";
    static constexpr Rule kRule = Rule::kBitSum;
    static constexpr double offset(double bias, int64_t, int) { return bias; }
};

// The wrapping add of whole bit patterns, without any rule for the edges.
struct Raw : MethodBase {
    static constexpr Kind kKind = Kind::kRaw;
    static constexpr const char* kName = "mitchell raw";
    static constexpr const char* kSpelling = "Mitchell(raw=True)";
    static constexpr Rule kRule = Rule::kPattern;
    static constexpr Domain kDomain = Domain::kFloats;
    static constexpr double offset(double bias, int64_t, int) { return bias; }
    template <class Lane, class U>
    SLIPSTICK_HD static U multiply(U a, U b, const Parameters& p, const Format<Lane>&) {
        return static_cast<U>(static_cast<U>(a + b) - static_cast<Lane>(p.c));
    }
};

// The edges of Kosson and Jaggi's kernels (NeurIPS 2023), which test the true product.
struct KossonJaggi : MethodBase {
    static constexpr Kind kKind = Kind::kKossonJaggi;
    static constexpr const char* kName = "mitchell kosson-jaggi";
    static constexpr const char* kSpelling = "Mitchell(kosson_jaggi=True)";
    static constexpr Rule kRule = Rule::kPattern;
    static constexpr Domain kDomain = Domain::kFloat32;
    static constexpr double offset(double bias, int64_t, int) { return bias; }
    template <class Lane, class U>
    SLIPSTICK_HD static U multiply(U a, U b, const Parameters& p, const Format<Lane>& f) {
        const auto sum = static_cast<U>(static_cast<U>(a + b) - static_cast<Lane>(p.c));
        const U tested = lanewise(a, b, [nan = f.nan](Lane left, Lane right) {
            // Exact: two significands of 24 bits.
            const double product =
                double{reinterpret<float>(left)} * double{reinterpret<float>(right)};
            const double magnitude = product < 0 ? -product : product;
            return magnitude < 1e-37 ? Lane{0} : magnitude < 1e37 ? ~Lane{0} : nan;
        });
        return tested == fill<U>(~uint64_t{0}) ? sum : tested;
    }
};

// The exponent l of L-Mul's offset 2^-l, for operands of `bits` fraction bits (0: their own m).
constexpr int lmul_exponent(int64_t bits, int m) {
    const int64_t own = bits == 0 ? m : bits;
    return own <= 3 ? static_cast<int>(own) : own == 4 ? 3 : 4;
}

// width: how many fraction bits are rounded away.
struct LMulBase : MethodBase {
    static constexpr bool kTransforms = true;
    static constexpr double offset(double, int64_t width, int m) {
        return 1.0 / (1 << lmul_exponent(width, m));
    }
    static constexpr int64_t prepare(int64_t width, int m, bool) {
        return width == 0 || width >= m ? 0 : m - width;
    }
    template <class U>
    SLIPSTICK_HD static U transform(U log, const Parameters& p) {
        return rounded_log(log, static_cast<int>(p.width));
    }
};

// L-Mul by integer addition: Mitchell with d = 2^-l.
struct LMul : LMulBase {
    static constexpr Kind kKind = Kind::kLMul;
    static constexpr const char* kName = "lmul";
    static constexpr const char* kSpelling = "LMul";
    static constexpr Rule kRule = Rule::kBitSum;
};

// L-Mul as printed: 1 + x + y + 2^-l, without a case for the carry.
struct LMulFormula : LMulBase {
    static constexpr Kind kKind = Kind::kLMulFormula;
    static constexpr const char* kName = "lmul-formula";
    static constexpr const char* kSpelling = "LMulFormula";
    static constexpr Rule kRule = Rule::kRealProduct;
    template <class U>
    SLIPSTICK_HD static U significand(U x, U y, const Parameters& p) {
        const int m = p.fraction_bits;
        return static_cast<U>(x + y + fill<U>((uint64_t{1} << m) + (p.fraction >> (64 - m))));
    }
    template <class U>
    SLIPSTICK_HD static U log(U x, U y, const Parameters& p) {
        const U value = significand(x, y, p);  // below 4: at most one bit is lost, a tie
        const U half = shift_right(value, 1);
        const auto rounded = static_cast<U>(half + static_cast<U>(half & value & fill<U>(1)));
        const U one = fill<U>(uint64_t{1} << p.fraction_bits);
        return half < one ? static_cast<U>(value - one) : rounded;
    }
};

// M + 5/64 for Mitchell's M, left out where it would carry a second time (Saadat 2018). width: how
// many fraction bits are dropped, the last one kept set.
struct Mbm : MethodBase {
    static constexpr Kind kKind = Kind::kMbm;
    static constexpr const char* kName = "mbm";
    static constexpr const char* kSpelling = "MBM";
    static constexpr Rule kRule = Rule::kSignificand;
    static constexpr bool kTransforms = true;
    static constexpr Limit limit(int m) { return {"truncate", m - 1}; }
    template <class U>
    SLIPSTICK_HD static U transform(U log, const Parameters& p) {
        const int dropped = static_cast<int>(p.width);
        if (dropped == 0) return log;
        return static_cast<U>(truncate_log(log, dropped) | fill<U>(uint64_t{1} << dropped));
    }
    template <class U>
    SLIPSTICK_HD static U significand(U x, U y, const Parameters& p) {
        const int m = p.fraction_bits;
        const U plain = mitchell_significand(x, y, m);
        const auto corrected = static_cast<U>(plain + fill<U>(uint64_t{5} << (m - 6)));
        // Without a carry `corrected` lies below 2 + 5/64, so 4 is reached after one alone.
        return corrected < fill<U>(uint64_t{4} << m) ? corrected : plain;
    }
    template <class U>
    SLIPSTICK_HD static U log(U x, U y, const Parameters& p) {
        return truncated_log(significand(x, y, p), p.fraction_bits);
    }
};

// M + s_ij by segments of x and y (Saadat 2020). width: log2 of the number of segments; the table
// holds 64 s_ij.
struct Realm : MethodBase {
    static constexpr Kind kKind = Kind::kRealm;
    static constexpr const char* kName = "realm";
    static constexpr const char* kSpelling = "REALM";
    static constexpr Rule kRule = Rule::kSignificand;
    static constexpr int64_t prepare(int64_t width, int, bool) {
        int64_t log2 = 0;
        while ((int64_t{1} << log2) < width) ++log2;
        return log2;
    }
    template <class U>
    SLIPSTICK_HD static U significand(U x, U y, const Parameters& p) {
        using Lane = LaneOf<U>;
        const int bits = static_cast<int>(p.width);
        const int dropped = p.fraction_bits - bits;
        const U correction =
            lanewise(shift_right(x, dropped), shift_right(y, dropped), [&p, bits](Lane i, Lane j) {
                return static_cast<Lane>(p.table[(uint64_t{i} << bits) | uint64_t{j}]);
            });
        return static_cast<U>(mitchell_significand(x, y, p.fraction_bits) +
                              shift_left(correction, p.fraction_bits - 6));
    }
    template <class U>
    SLIPSTICK_HD static U log(U x, U y, const Parameters& p) {
        return truncated_log(significand(x, y, p), p.fraction_bits);
    }
};

// Babic's iterative multiplier: blocks add up to a b - a_r b_r, where the operands have lost their
// width + 1 leading ones. width: iterations, which count corrections.
struct Ilm : MethodBase {
    static constexpr Kind kKind = Kind::kIlm;
    static constexpr const char* kName = "ilm";
    static constexpr const char* kSpelling = "ILM";
    static constexpr Rule kRule = Rule::kRealProduct;
    // Twice the format's bits, so that products are exact.
    static constexpr int lane_bits(int bits) { return bits < 32 ? 32 : 64; }

    // x without its `width` leading ones, as a real number.
    template <class U>
    SLIPSTICK_HD static Real<U> residual(U x, const Parameters& p) {
        Real<U> rest = significand_value(x, p.fraction_bits) - 1;
        const U exponent =
            fill<U>(((uint64_t{1} << (sizeof(LaneOf<U>) == 8 ? 11 : 8)) - 1) << kRealBits<U>);
        const int count = static_cast<int>(p.width < p.fraction_bits ? p.width : p.fraction_bits);
        for (int i = 0; i < count; ++i)
            rest -= reinterpret<Real<U>>(static_cast<U>(reinterpret<U>(rest) & exponent));
        return rest;
    }
    template <class U>
    SLIPSTICK_HD static U log(U x, U y, const Parameters& p) {
        const int m = p.fraction_bits;
        if constexpr (sizeof(LaneOf<U>) == 8) {
            if (m == 52) {
                return lanewise(x, y, [&p](LaneOf<U> left, LaneOf<U> right) {
                    return static_cast<LaneOf<U>>(log_of_53_bits(left, right, p));
                });
            }
        }
        const Real<U> product = significand_value(x, m) * significand_value(y, m);
        return log_of_value<U>(product - residual(x, p) * residual(y, p), m);
    }
    SLIPSTICK_HD static uint64_t integer_product(uint64_t a, uint64_t b, const Parameters& p) {
        return a * b - without_ones(a, p.width + 1) * without_ones(b, p.width + 1);
    }

private:
    SLIPSTICK_HD static uint64_t without_ones(uint64_t value, int64_t count) {
        for (; count > 0 && value != 0; --count) value ^= uint64_t{1} << highest_bit(value);
        return value;
    }
    // float64: products of 106 bits.
    SLIPSTICK_HD static uint64_t log_of_53_bits(uint64_t x, uint64_t y, const Parameters& p) {
        using Wide = unsigned __int128;
        const uint64_t one = uint64_t{1} << 52;
        const Wide value =
            Wide{one | x} * (one | y) - Wide{without_ones(x, p.width)} * without_ones(y, p.width);
        const int dropped = (value >> 105) != 0 ? 53 : 52;
        const Wide odd = (value >> dropped) & 1;
        const Wide half = (Wide{1} << (dropped - 1)) - 1;
        const auto rounded = static_cast<uint64_t>((value + half + odd) >> dropped);
        return rounded - one + (dropped == 53 ? one : 0);
    }
};

// Mitchell's method on truncated fractions (Kim 2019). width: how many fraction bits are dropped.
struct MitchW : MethodBase {
    static constexpr Kind kKind = Kind::kMitchW;
    static constexpr const char* kName = "mitch-w";
    static constexpr const char* kSpelling = "MitchW";
    static constexpr Rule kRule = Rule::kBitSum;
    static constexpr bool kTransforms = true;
    static constexpr int64_t prepare(int64_t width, int m, bool) {
        return width - 1 < m ? m - (width - 1) : 0;
    }
    template <class U>
    SLIPSTICK_HD static U transform(U log, const Parameters& p) {
        return truncate_log(log, static_cast<int>(p.width));
    }
};

// The exact product of operands cut to their leading bits, the last one kept set. width: floats:
// how many fraction bits are dropped; integers: how many bits are kept.
struct Drum : MethodBase {
    static constexpr Kind kKind = Kind::kDrum;
    static constexpr const char* kName = "drum";
    static constexpr const char* kSpelling = "DRUM";
    static constexpr Rule kRule = Rule::kRealProduct;
    static constexpr bool kTransforms = true;
    static constexpr int lane_bits(int bits) { return bits < 32 ? 32 : bits; }
    static constexpr int64_t prepare(int64_t width, int m, bool is_float) {
        if (!is_float) return width;
        return width <= m ? m + 1 - width : 0;
    }
    template <class U>
    SLIPSTICK_HD static U transform(U log, const Parameters& p) {
        const int dropped = static_cast<int>(p.width);
        if (dropped == 0) return log;
        // Of a single bit kept, the last one is the leading one, which no fraction holds.
        const uint64_t last = dropped < p.fraction_bits ? uint64_t{1} << dropped : 0;
        return static_cast<U>(truncate_log(log, dropped) | fill<U>(last));
    }
    template <class U>
    SLIPSTICK_HD static U log(U x, U y, const Parameters& p) {
        const int m = p.fraction_bits;
        return log_of_value<U>(significand_value(x, m) * significand_value(y, m), m);
    }
    SLIPSTICK_HD static uint64_t reduced(uint64_t value, const Parameters& p) {
        const int64_t dropped = value == 0 ? 0 : highest_bit(value) + 1 - p.width;
        if (dropped <= 0) return value;
        return ((value >> dropped) | 1) << dropped;
    }
    SLIPSTICK_HD static uint64_t integer_product(uint64_t a, uint64_t b, const Parameters& p) {
        return reduced(a, p) * reduced(b, p);
    }
};

// A sum of fractions whose low bits are all 1, with a carry from the highest of them (Liu 2018).
// width: how many bits.
struct AlmSoa : MethodBase {
    static constexpr Kind kKind = Kind::kAlmSoa;
    static constexpr const char* kName = "alm-soa";
    static constexpr const char* kSpelling = "ALMSOA";
    static constexpr Rule kRule = Rule::kBitSumOr;
    static constexpr bool kTransforms = true;
    static constexpr Limit limit(int m) { return {"width", m}; }
    // Only the highest of the low bits is added: what it carries is both operands' bit.
    template <class U>
    SLIPSTICK_HD static U transform(U log, const Parameters& p) {
        return truncate_log(log, static_cast<int>(p.width) - 1);
    }
};

// The bits that a sum of logarithms gets under kBitSumOr.
SLIPSTICK_HD uint64_t set_bits(const Parameters& p) { return (uint64_t{1} << p.width) - 1; }

// M(a & b, a | b) + M(a & ~b, ~a & b): an identity where both products are exact (Mahalingam 2006).
struct OperandDecomposition : MethodBase {
    static constexpr Kind kKind = Kind::kOperandDecomposition;
    static constexpr const char* kName = "operand-decomposition";
    static constexpr const char* kSpelling = "OperandDecomposition";
    static constexpr Rule kRule = Rule::kInteger;
    static constexpr Domain kDomain = Domain::kIntegers;
    SLIPSTICK_HD static uint64_t integer_product(uint64_t a, uint64_t b, const Parameters&) {
        return plain(a & b, a | b) + plain(a & ~b, ~a & b);
    }

private:
    SLIPSTICK_HD static uint64_t plain(uint64_t a, uint64_t b) {
        return multiply_integers(static_cast<uint32_t>(a), static_cast<uint32_t>(b), uint64_t{0});
    }
};

// Somebody's products of 8-bit numbers, or mantissas with a carry for floats.
struct TableMethod : MethodBase {
    static constexpr Kind kKind = Kind::kTable;
    static constexpr const char* kName = "table";
    static constexpr const char* kSpelling = "Table";
    static constexpr Rule kRule = Rule::kSignificand;
    static constexpr Domain kDomain = Domain::kTable;
    template <class U>
    SLIPSTICK_HD static U log(U x, U y, const Parameters& p) {
        using Lane = LaneOf<U>;
        const int bits = p.table_bits;
        const int dropped = p.fraction_bits - bits;
        const uint64_t mantissa = (uint64_t{1} << bits) - 1;
        return lanewise(shift_right(x, dropped), shift_right(y, dropped), [=, &p](Lane i, Lane j) {
            const uint64_t entry = p.table[(uint64_t{i} << bits) | uint64_t{j}];
            return static_cast<Lane>(((entry >> 7) << p.fraction_bits) |
                                     ((entry & mantissa) << dropped));
        });
    }
};

// --- The list ---

template <class... M>
struct MethodList {
    static constexpr int kCount = sizeof...(M);

    // Calls f.operator()<M>() for every method.
    template <class F>
    static constexpr void for_each(F&& f) {
        (f.template operator()<M>(), ...);
    }
    // The enumerators count the places of the list.
    static constexpr bool in_order() {
        int place = 0;
        return ((static_cast<int>(M::kKind) == place++) && ...);
    }
};
using Methods = MethodList<Mitchell, Raw, KossonJaggi, LMul, LMulFormula, Mbm, Realm, Ilm, MitchW,
                           Drum, AlmSoa, OperandDecomposition, TableMethod>;
static_assert(Methods::in_order());
inline constexpr int kMethodCount = Methods::kCount;

// Calls f.operator()<M>() for the method that `kind` names.
template <class F>
constexpr void dispatch_method(Kind kind, F&& f) {
    Methods::for_each([&]<class M>() {
        if (M::kKind == kind) f.template operator()<M>();
    });
}

template <class M>
inline constexpr bool kTakesFloats = M::kDomain != Domain::kIntegers;
template <class M>
inline constexpr bool kTakesIntegers =
    M::kDomain == Domain::kAll || M::kDomain == Domain::kIntegers;

// --- Float products ---

// What a matrix product packs: the sign and the transformed magnitude of a number that is neither
// infinite nor NaN; zero for subnormals. A number close to infinity may round up to its pattern,
// and still multiplies as 2^128 (float32) would.
template <class M, class Lane, class U>
SLIPSTICK_HD U transform_bits(U bits, const Parameters& p, const Format<Lane>& f) {
    if constexpr (!M::kTransforms) {
        return bits;
    } else {
        const U magnitude = magnitude_of(bits, f);
        const U transformed = M::transform(magnitude, p);
        const U kept = as_signed(magnitude) < as_signed(f.smallest) ? U{} : transformed;
        return static_cast<U>(kept | static_cast<U>(bits & f.sign));
    }
}

// The product of two patterns from transform_bits.
template <class M, class Lane, class U>
SLIPSTICK_HD U multiply_transformed_bits(U a, U b, const Parameters& p, const Format<Lane>& f) {
    static_assert(M::kRule != Rule::kPattern && M::kRule != Rule::kInteger);
    const auto c = static_cast<Lane>(p.c);
    if constexpr (M::kRule == Rule::kBitSum) {
        return multiply_finite_bits(a, b, c, f);
    } else {
        const U magnitude_a = magnitude_of(a, f);
        const U magnitude_b = magnitude_of(b, f);
        U sum;
        if constexpr (M::kRule == Rule::kBitSumOr) {
            sum = static_cast<U>(static_cast<U>(magnitude_a + magnitude_b) | fill<U>(set_bits(p)));
        } else {
            const U fraction = low_bits<U>(f.fraction_bits);
            const U x = static_cast<U>(magnitude_a & fraction);
            const U y = static_cast<U>(magnitude_b & fraction);
            // The exponents of two finite numbers and a carry of 2 fit the lane.
            sum = static_cast<U>(static_cast<U>(magnitude_a - x) + static_cast<U>(magnitude_b - y) +
                                 M::log(x, y, p));
        }
        const U smaller = magnitude_a < magnitude_b ? magnitude_a : magnitude_b;
        return product_of_sum(sum, smaller, static_cast<U>((a ^ b) & f.sign), c, f);
    }
}

// The bits of the product of two numbers that are neither infinite nor NaN.
template <class M, class Lane, class U>
SLIPSTICK_HD U multiply_finite_bits(U a, U b, const Parameters& p, const Format<Lane>& f) {
    return multiply_transformed_bits<M>(transform_bits<M>(a, p, f), transform_bits<M>(b, p, f), p,
                                        f);
}

// The bits of the product of any operands. Infinities, NaNs and zeros are those of the operands as
// given, not as transformed.
template <class M, class Lane, class U>
SLIPSTICK_HD U multiply_bits(U a, U b, const Parameters& p, const Format<Lane>& f) {
    if constexpr (M::kRule == Rule::kPattern) {
        return M::multiply(a, b, p, f);
    } else {
        return with_special_products(a, b, multiply_finite_bits<M>(a, b, p, f), f);
    }
}

// --- Integer products ---

// floor(significand 2^(k - m)).
template <class Work>
SLIPSTICK_HD Work scaled(uint64_t significand, int k, int m) {
    return k >= m ? static_cast<Work>(Work{significand} << (k - m))
                  : static_cast<Work>(significand >> (m - k));
}

// The floor of the exact product of two magnitudes below 2^(m+1), neither of them zero.
template <class M, class Work>
SLIPSTICK_HD Work multiply_magnitudes(uint64_t a, uint64_t b, const Parameters& p) {
    if constexpr (requires { M::integer_product(a, b, p); }) {
        return M::integer_product(a, b, p);
    } else {
        const int m = p.fraction_bits;
        const uint64_t one = uint64_t{1} << m;
        const auto log_of = [&](uint64_t value) {
            const int k = highest_bit(value);
            return M::transform((static_cast<uint64_t>(k) << m) | ((value << (m - k)) & (one - 1)),
                                p);
        };
        const uint64_t log_a = log_of(a);
        const uint64_t log_b = log_of(b);
        if constexpr (M::kRule == Rule::kBitSum || M::kRule == Rule::kBitSumOr) {
            // Every offset but Mitchell's own is a multiple of 2^-m.
            uint64_t sum = log_a + log_b + (p.fraction >> (64 - m));
            if constexpr (M::kRule == Rule::kBitSumOr) sum |= set_bits(p);
            return scaled<Work>(one | (sum & (one - 1)), static_cast<int>(sum >> m), m);
        } else {
            return scaled<Work>(M::significand(log_a & (one - 1), log_b & (one - 1), p),
                                static_cast<int>((log_a >> m) + (log_b >> m)), m);
        }
    }
}

template <class M, class T>
SLIPSTICK_HD Wider<T> multiply_integers(T a, T b, const Parameters& p) {
    if constexpr (M::kDomain == Domain::kTable) {
        static_assert(sizeof(T) == 1);
        return static_cast<Wider<T>>(p.table[(static_cast<unsigned>(static_cast<uint8_t>(a)) << 8) |
                                             static_cast<uint8_t>(b)]);
    } else if constexpr (M::kKind == Kind::kMitchell) {
        return multiply_integers(a, b, p.fraction);
    } else {
        using Work = ProductWork<T>;
        if (a == 0 || b == 0) return 0;
        return saturated<T>(
            multiply_magnitudes<M, Work>(magnitude_of_integer(a), magnitude_of_integer(b), p),
            (a < 0) != (b < 0));
    }
}

}  // namespace slipstick::mitchell
