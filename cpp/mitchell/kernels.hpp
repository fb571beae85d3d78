// What a level offers to the family: one table of functions, by dtype.
#pragma once

#include "core/broadcast.hpp"
#include "core/dtype.hpp"
#include "core/isa.hpp"
#include "core/matmul.hpp"
#include "mitchell/methods.hpp"

namespace slipstick::cpu::mitchell {

using slipstick::mitchell::Kind;
using slipstick::mitchell::Parameters;

using ElementwiseFn = void (*)(const Strip& strip, const Parameters& parameters);

// --- Matrix products ---

// A change of the operands' magnitude bits that a method makes before it multiplies, in the lanes
// that a product is formed in:  ((bits + half + (odd bit)) & keep) | set.
struct OperandChange {
    uint64_t half = 0;  // of the last place kept, less one unit: rounds to nearest
    uint64_t odd = 0;   // 1 where ties go to even; shifted down by odd_shift
    int odd_shift = 0;
    uint64_t keep = ~uint64_t{0};
    uint64_t set = 0;
    uint64_t set_from = 0;  // magnitudes from which `set` applies
};

// How one operand of a matrix product becomes lanes.
struct Packing {
    OperandChange change;
    uint64_t bias = 0;      // added to the bits, sign included, in wrapping arithmetic
    uint64_t zero = 0;      // what a zero becomes
    uint64_t smallest = 0;  // magnitudes below it are zeros
    int terms = 1;          // elements of the product that one element becomes
    int leading_ones = 0;   // ILM: how many of them the second term lacks
    double formula = 0;     // LMulFormula: 1 - c
};

// The mac argument of every kernel.
struct MacConstants {
    Parameters parameters;
    uint64_t low_bits = 0;      // of every product, set
    double smallest_chain = 0;  // chains below it are 0
    double unscale = 1;         // of a chain, a power of two
};

// Packs `count` rows (or columns) of `depth` elements; see pack_panels in core/tile.hpp.
using PackFn = void (*)(const Packing& packing, const void* source, int64_t stride,
                        int64_t depth_stride, int64_t count, int64_t depth, void* packed);

struct MatmulPath {
    MatmulKernel kernel;
    PackFn pack_left;
    PackFn pack_right;
};

// The magnitudes among the elements of an operand: bits of a floating-point dtype, or integers.
struct Magnitudes {
    uint64_t lowest = ~uint64_t{0};  // of what is not zero or subnormal
    uint64_t highest = 0;            // infinities and NaNs included
    bool zeros = false;              // zeros or subnormals
};
using ScanFn = void (*)(const void* source, int64_t stride, int64_t count, Magnitudes& magnitudes);

// What a level offers for one dtype. All but `exact` give the same bits
// where they may run, those of the GeneralKernels.
struct Matmul {
    MatmulPath sums;      // patterns added, nothing else: for a range that has been certified
    MatmulPath low_sums;  // and low bits set
    MatmulPath flushed;   // zeros and underflow handled for each product; no overflow
    MatmulPath low_flushed;
    MatmulPath exact;  // ordinary products of changed operands
    ScanFn scan;
};

// By method, then by dtype; null where a method does not take the dtype.
template <class Fn>
struct PerMethod {
    PerDtype<Fn> fn[slipstick::mitchell::kMethodCount];
    constexpr const PerDtype<Fn>& operator[](Kind kind) const { return fn[static_cast<int>(kind)]; }
};

struct FloatKernels {
    PerMethod<ElementwiseFn> multiply;
    PerDtype<ElementwiseFn> divide;
};
struct IntegerKernels {
    PerMethod<ElementwiseFn> multiply;
};
// Operands of floating-point dtypes; `power` takes exponents of the operands' dtype, `power_number`
// a float64.
struct FunctionKernels {
    PerDtype<ElementwiseFn> sqrt;
    PerDtype<ElementwiseFn> log2;
    PerDtype<ElementwiseFn> exp2;
    PerDtype<ElementwiseFn> power;
    PerDtype<ElementwiseFn> power_number;
};
struct MatmulKernels {
    PerDtype<const Matmul*> matmul;
};
// Products by the method's own rules. For 8-bit integers there is that of Kind::kTable alone.
struct GeneralKernels {
    PerMethod<const MatmulPath*> path;
};

// Products with few rows on the left, of a right operand that is read as it lies. All of the bias
// is in the left one, packed beforehand; `seen` learns the least and the greatest magnitude other
// than zero on the right, in the bits of the type that sums are kept in.
inline constexpr int kThinRows = 8;
inline constexpr int kThinSums = 2048;   // rows times columns of a call: long lines for one row
inline constexpr int kThinDepth = 2048;  // terms of a call, a multiple of kDepthBlock
constexpr int64_t thin_columns(int64_t rows) { return kThinSums / kThinRows * (kThinRows / rows); }
// total[i][j] (+)= the chains over k of left[i][k] right[k][j], for up to kThinRows rows and
// thin_columns(rows) columns. Rows of `left` are kThinDepth elements apart, those of `total`
// thin_columns(rows), and whole vectors of it may be written.
using ThinFn = void (*)(const MacConstants& mac, const void* left, int64_t rows, const void* right,
                        int64_t right_stride, int64_t depth, int64_t columns, void* total,
                        bool accumulate, Magnitudes& seen);
struct ThinPath {
    ThinFn run;
    ThinFn run_turned;  // where columns, right_stride apart, are contiguous along k
    PackFn pack_left;   // a row
    int64_t left_bytes;
};
struct Thin {
    ThinPath plain;
    ThinPath masked;  // where there are zeros on the left
};
struct ThinKernels {
    PerDtype<const Thin*> thin;
};

// Rows of the left operand that a lookup product takes at once.
inline constexpr int kLookupRows = 16;
// acc[j][i] += sum over k of table[left[k][i]][right[k * right_stride + j]], for kLookupRows rows
// i. `scratch` holds 2 * 256 * kLookupRows elements.
using LookupFn = void (*)(const uint16_t* table, const uint8_t* left, const uint8_t* right,
                          int64_t right_stride, int64_t depth, int64_t columns, uint32_t* scratch,
                          uint32_t* acc);
struct LookupKernels {
    LookupFn of_unsigned;
    LookupFn of_signed;
};

}  // namespace slipstick::cpu::mitchell

namespace slipstick::cpu {
SLIPSTICK_LEVEL_TABLE(mitchell::FloatKernels, mitchell_float_kernels)
SLIPSTICK_LEVEL_TABLE(mitchell::IntegerKernels, mitchell_integer_kernels)
SLIPSTICK_LEVEL_TABLE(mitchell::FunctionKernels, mitchell_function_kernels)
SLIPSTICK_LEVEL_TABLE(mitchell::MatmulKernels, mitchell_matmul_kernels)
SLIPSTICK_LEVEL_TABLE(mitchell::GeneralKernels, mitchell_general_kernels)
SLIPSTICK_LEVEL_TABLE(mitchell::LookupKernels, mitchell_lookup_kernels)
SLIPSTICK_LEVEL_TABLE(mitchell::ThinKernels, mitchell_thin_kernels)
}  // namespace slipstick::cpu
