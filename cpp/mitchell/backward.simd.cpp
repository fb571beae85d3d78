// The matrix product of three operands: a factor of every product depends on where its sum stands.
#include "core/simd.hpp"
#include "core/tile.hpp"
#include "mitchell/backward_kernels.hpp"
#include "mitchell/lanes.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

using mitchell::Backward;
using mitchell::FactorConstants;
using slipstick::mitchell::as_signed;

// Half a panel: with two vectors a row, 6 sums, 2 operands, their 2 masks and what a product needs
// fit 16 registers; what the partners add is read from the first cache.
constexpr int kFactorRows = kTileRows / 2;

template <class Sum, bool finite>
SLIPSTICK_INLINE void factor_tile(const FactorConstants& constants, int rows, int64_t depth,
                                  const Sum* left, const Sum* right, const Sum* own, Sum* acc,
                                  int64_t acc_stride, bool accumulate) {
    using Lane = typename BitsOf<Sum>::Unsigned;
    using V = Vec<Lane>;
    constexpr int lanes = kLanes<Sum>;
    constexpr Format<Lane> f = format<Sum, Lane>();
    const auto c = constants.as<Lane>();
    V partner[kFactorRows][kTileVectors];
    V undefined[kFactorRows][kTileVectors];
    for (int i = 0; i < kFactorRows; ++i) {
        for (int v = 0; v < kTileVectors; ++v) {
            const V bits = i < rows ? load<V>(own + i * kTileColumns<Sum> + v * lanes) : V{};
            partner[i][v] = slipstick::mitchell::partner_of(bits, c, f);
            undefined[i][v] = slipstick::mitchell::undefined_by(bits, f);
        }
    }
    Vec<Sum> sums[kFactorRows][kTileVectors] = {};
    for (int64_t k = 0; k < depth; ++k) {
        V columns[kTileVectors];
        V mask[kTileVectors];
#pragma GCC unroll 2
        for (int v = 0; v < kTileVectors; ++v) {
            columns[v] = load<V>(right + (k * kTileVectors + v) * lanes);
            mask[v] = slipstick::mitchell::factor_mask<finite>(columns[v], c, f);
        }
#pragma GCC unroll 6
        for (int i = 0; i < kFactorRows; ++i) {
            const Vec<Sum> gradient = broadcast(left[k * kTileRows + i]);
#pragma GCC unroll 2
            for (int v = 0; v < kTileVectors; ++v) {
                const V factor = slipstick::mitchell::factor_of<finite>(
                    columns[v], mask[v], partner[i][v], undefined[i][v], c, f);
                // Not fused, so that every level rounds alike.
                sums[i][v] += gradient * bit_cast<Vec<Sum>>(factor);
            }
        }
    }
    for (int i = 0; i < rows && i < kFactorRows; ++i) {
        for (int v = 0; v < kTileVectors; ++v) {
            Sum* target = acc + i * acc_stride + v * lanes;
            store(target, accumulate ? load<Vec<Sum>>(target) + sums[i][v] : sums[i][v]);
        }
    }
}

template <class Sum, bool finite>
void factor_sums(const FactorConstants& constants, int64_t rows, int64_t depth, int64_t columns,
                 const void* left, const void* right, const void* own, int64_t own_depth, void* acc,
                 int64_t acc_stride, bool accumulate) {
    constexpr int width = kTileColumns<Sum>;
    const FactorConstants local = constants;
    for (int64_t j = 0; j < columns; j += width) {
        for (int64_t i = 0; i < rows; i += kFactorRows) {
            const int64_t panel = i / kTileRows * kTileRows;
            factor_tile<Sum, finite>(
                local, static_cast<int>(rows - i < kFactorRows ? rows - i : kFactorRows), depth,
                static_cast<const Sum*>(left) + panel * depth + (i - panel),
                static_cast<const Sum*>(right) + j * depth,
                static_cast<const Sum*>(own) + j * own_depth + i * width,
                static_cast<Sum*>(acc) + i * acc_stride + j, acc_stride, accumulate);
        }
    }
}

template <class Sum>
void keep_ones(int64_t terms, int64_t count, void* packed) {
    using Lane = typename BitsOf<Sum>::Unsigned;
    constexpr Format<Lane> f = format<Sum, Lane>();
    using Signed = Vec<typename BitsOf<Sum>::Signed>;
    auto* elements = static_cast<Lane*>(packed);
    for (int64_t i = 0; i < count; i += kLanes<Sum>) {  // whole panels are whole vectors
        const auto element = load<Vec<Lane>>(elements + i);
        auto rest = bit_cast<Signed>(element & ((Lane{1} << f.fraction_bits) - 1));
        // The leading one of the significand is not among the fraction's; of those, a conversion
        // finds the leading one, exactly.
        for (int64_t term = 1; term < terms; ++term) {
            const auto value = bit_cast<Vec<Lane>>(__builtin_convertvector(rest, Vec<Sum>));
            rest -= __builtin_convertvector(bit_cast<Vec<Sum>>(value & f.infinity), Signed);
        }
        const Vec<Lane> zero = {};
        const auto special = as_signed(element & (f.sign - 1)) >= as_signed(f.infinity);
        store(elements + i, element - (special ? zero : bit_cast<Vec<Lane>>(rest)));
    }
}

template <class Sum>
constexpr Backward kBackward = {
    .finite = &factor_sums<Sum, true>,
    .general = &factor_sums<Sum, false>,
    .keep_ones = &keep_ones<Sum>,
};

}  // namespace

const mitchell::BackwardKernels mitchell_backward_kernels = {kBackward<float>, kBackward<double>};

}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
