// Sums over float32 vectors in eight float64 chains, element i in chain i & 7, added up in one
// tree: the same bits at every level. Products of two float32 are exact in float64.
#include "core/simd.hpp"
#include "projection/distance_kernels.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

constexpr int kChains = 8;
constexpr int kParts = kChains / kLanes<double>;
struct Chains {
    Vec<double> part[kParts] = {};
};

double total(const Chains& chains) {
    double sums[kChains];
    for (int p = 0; p < kParts; ++p) store(sums + p * kLanes<double>, chains.part[p]);
    const double pairs[4] = {sums[0] + sums[4], sums[1] + sums[5], sums[2] + sums[6],
                             sums[3] + sums[7]};
    return (pairs[0] + pairs[2]) + (pairs[1] + pairs[3]);
}

SLIPSTICK_INLINE Vec<double> widened(const float* source) {
    return __builtin_convertvector((load<VecLike<float, double>>(source)), Vec<double>);
}

// Calls add(part, a, b) for all elements, zeros behind the last.
template <class Add>
SLIPSTICK_INLINE void for_each_part(const float* a, const float* b, int64_t length, Add add) {
    int64_t i = 0;
    for (; i + kChains <= length; i += kChains) {
#pragma GCC unroll 4
        for (int p = 0; p < kParts; ++p)
            add(p, widened(a + i + p * kLanes<double>), widened(b + i + p * kLanes<double>));
    }
    if (i == length) return;
    float left[kChains] = {}, right[kChains] = {};
    const auto rest = static_cast<uint64_t>(length - i) * sizeof(float);
    __builtin_memcpy(left, a + i, rest);
    __builtin_memcpy(right, b + i, rest);
    for (int p = 0; p < kParts; ++p)
        add(p, widened(left + p * kLanes<double>), widened(right + p * kLanes<double>));
}

void products(const float* a, const float* b, int64_t length, double* sums) {
    Chains cross, square;
    for_each_part(a, b, length, [&](int p, Vec<double> left, Vec<double> right) {
        cross.part[p] += left * right;
        square.part[p] += right * right;
    });
    sums[0] = total(cross);
    sums[1] = total(square);
}

double squares(const float* a, const float* b, int64_t length) {
    Chains square;
    for_each_part(a, b, length, [&](int p, Vec<double> left, Vec<double> right) {
        const Vec<double> difference = left - right;
        square.part[p] += difference * difference;
    });
    return total(square);
}

}  // namespace

const projection::DistanceKernels distance_kernels = {.products = &products, .squares = &squares};

}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
