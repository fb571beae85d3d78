// Every method: one small struct, and the list of them at the end. Adding a method means adding a
// struct here, its place in the list and its enumerator in kind.hpp; kernels, checks and names
// follow.
//
// All work on logarithms: k + x for 2^k (1 + x), held as k 2^m + x 2^m, which for a float is its
// magnitude's bits. Functions take one number or a compiler vector (U) of unsigned lanes.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/host_device.hpp"
#include "mitchell/kind.hpp"
#include "mitchell/parameters.hpp"
#include "mitchell/product.hpp"
#include "mitchell/significand.hpp"

namespace slipstick::mitchell {

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

}  // namespace slipstick::mitchell
