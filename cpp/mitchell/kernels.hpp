// What a level offers to the family: one table of functions, by dtype.
#pragma once

#include "core/broadcast.hpp"
#include "core/dtype.hpp"
#include "core/isa.hpp"
#include "core/matmul.hpp"
#include "mitchell/methods.hpp"
#include "mitchell/plan_data.hpp"

namespace slipstick::cpu::mitchell {

using slipstick::mitchell::Kind;
using slipstick::mitchell::MacConstants;
using slipstick::mitchell::Magnitudes;
using slipstick::mitchell::Packing;
using slipstick::mitchell::Parameters;

using ElementwiseFn = void (*)(const Strip& strip, const Parameters& parameters);

// --- Matrix products ---

// Packs `count` rows (or columns) of `depth` elements; see pack_panels in core/tile.hpp.
using PackFn = void (*)(const Packing& packing, const void* source, int64_t stride,
                        int64_t depth_stride, int64_t count, int64_t depth, void* packed);

struct MatmulPath {
    MatmulKernel kernel;
    PackFn pack_left;
    PackFn pack_right;
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
