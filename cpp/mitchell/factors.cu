#include "mitchell/factors.cuh"

#include <algorithm>

namespace slipstick::cuda::mitchell {
namespace {

using slipstick::mitchell::FactorConstants;

// 16 sums a thread, their totals and what partners add: 64 registers, of 160.
using Tile = TileShape<1, 8, 8, 6>;
constexpr int kSide = 4 * Tile::kGroups;
constexpr int kLanes = kStep * (Tile::kLeftPitch + Tile::kRightPitch);

struct FactorPlaces {
    int64_t grad, other, own, out;
};

__device__ __forceinline__ FactorPlaces places_of(const FactorProblem& p, int64_t index) {
    FactorPlaces places{0, 0, 0, 0};
#pragma unroll 1
    for (int axis = p.rank - 1; axis >= 0; --axis) {
        const int64_t rest = index / p.size[axis];
        const int64_t position = index - rest * p.size[axis];
        places.grad += position * p.step[0][axis];
        places.other += position * p.step[1][axis];
        places.own += position * p.step[2][axis];
        places.out += position * p.step[3][axis];
        index = rest;
    }
    return places;
}

// What is left of a number without all but its first `terms` leading ones.
__device__ __forceinline__ uint32_t keep_ones(uint32_t lane, int64_t terms) {
    constexpr auto f = slipstick::mitchell::format<float, uint32_t>();
    if (slipstick::mitchell::is_special(lane, f)) return lane;
    uint32_t rest = lane & ((1u << f.fraction_bits) - 1);
    // The leading one of the significand is not among the fraction's.
    for (int64_t term = 1; term < terms && rest != 0; ++term)
        rest &= ~(1u << (slipstick::mitchell::bit_width(rest) - 1));
    return lane - rest;
}

// The number that an element's bits stand for.
__device__ __forceinline__ uint32_t widened(Dtype dtype, uint32_t element) {
    const auto narrow = static_cast<uint16_t>(element);
    if (dtype == Dtype::kFloat16) return bits::of(to_float(Float16{narrow}));
    return dtype == Dtype::kBFloat16 ? bits::of(to_float(BFloat16{narrow})) : element;
}

template <int pitch, class Held>
__device__ __forceinline__ void store_numbers(const FactorProblem& p, const Operand& operand,
                                              int64_t terms, const Held& held, uint32_t* plane) {
    Pack<uint32_t, 4> lanes;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const uint32_t element = p.dtype == Dtype::kFloat32 ? held.template element<4>(operand, i)
                                                            : held.template element<2>(operand, i);
        const uint32_t lane = widened(p.dtype, element);
        lanes.element[i] = terms > 0 ? keep_ones(lane, terms) : lane;
    }
    held.template store<pitch>(operand, lanes, plane);
}

template <bool finite>
__device__ __forceinline__ void sum_tile(const FactorProblem& p, uint32_t (*lanes)[kLanes]) {
    constexpr auto f = slipstick::mitchell::format<float, uint32_t>();
    const auto constants = p.rules.constants.as<uint32_t>();
    const int64_t tiles_across = ceil_div(p.columns, Tile::kColumns);
    const int64_t tile_row = blockIdx.x / tiles_across;
    const int64_t first_row = tile_row * Tile::kRows;
    const int64_t first_column = (blockIdx.x - tile_row * tiles_across) * Tile::kColumns;
    const FactorPlaces places = places_of(p, p.first_batch + blockIdx.z);
    const int64_t row = first_row + 4 * Tile::thread_row();
    const int64_t column = first_column + 4 * Tile::thread_column();

    uint32_t partner[kSide][kSide];
    uint32_t undefined[kSide][kSide];
    float chain[kSide][kSide];
    float total[kSide][kSide];
#pragma unroll
    for (int i = 0; i < kSide; ++i) {
#pragma unroll
        for (int j = 0; j < kSide; ++j) {
            // Sums beyond the last row or column are not stored.
            const int64_t own_row = row + i < p.rows ? row + i : p.rows - 1;
            const int64_t own_column = column + j < p.columns ? column + j : p.columns - 1;
            const int64_t place = places.own + own_row * p.own_row + own_column * p.own_column;
            const uint32_t own = widened(p.dtype, p.dtype == Dtype::kFloat32
                                                      ? static_cast<const uint32_t*>(p.own)[place]
                                                      : static_cast<const uint16_t*>(p.own)[place]);
            partner[i][j] = slipstick::mitchell::partner_of(own, constants, f);
            undefined[i][j] = slipstick::mitchell::undefined_by(own, f);
            chain[i][j] = 0;
            total[i][j] = 0;
        }
    }

    const auto thread = static_cast<int>(threadIdx.x);
    Loader<Tile::kRows, false> left(p.grad, thread, p.item, places.grad, first_row, p.rows, 0, 0);
    Loader<Tile::kColumns, false> right(p.other, thread, p.item, places.other, first_column,
                                        p.columns, 0, 0);
    const auto load = [&](int64_t k) {
        const int count = p.depth - k < kStep ? static_cast<int>(p.depth - k) : kStep;
        left.load(p.grad, p.item, k, count, 0);
        right.load(p.other, p.item, k, count, 0);
    };
    const auto store = [&](int buffer) {
        store_numbers<Tile::kLeftPitch>(p, p.grad, 0, left, lanes[buffer]);
        store_numbers<Tile::kRightPitch>(p, p.other, p.rules.terms, right,
                                         lanes[buffer] + kStep * Tile::kLeftPitch);
    };
    if (p.depth > 0) {
        load(0);
        store(0);
    }
    __syncthreads();
    int buffer = 0;
#pragma unroll 1
    for (int64_t k = 0; k < p.depth; k += kStep) {
        // The next step's elements are on their way while this one's products are formed.
        const int64_t next = k + kStep;
        if (next < p.depth) load(next);
        const uint32_t* const rows = lanes[buffer] + 4 * Tile::thread_row();
        const uint32_t* const columns =
            lanes[buffer] + kStep * Tile::kLeftPitch + 4 * Tile::thread_column();
        const int terms = next < p.depth ? kStep : static_cast<int>(p.depth - k);
#pragma unroll 1
        for (int term = 0; term < terms; ++term) {
            const auto grad =
                *reinterpret_cast<const Pack<float, 4>*>(rows + term * Tile::kLeftPitch);
            const auto other =
                *reinterpret_cast<const Pack<uint32_t, 4>*>(columns + term * Tile::kRightPitch);
#pragma unroll
            for (int j = 0; j < kSide; ++j) {
                const uint32_t b = other.element[j];
                const uint32_t mask = slipstick::mitchell::factor_mask<finite>(b, constants, f);
#pragma unroll
                for (int i = 0; i < kSide; ++i) {
                    const uint32_t factor = slipstick::mitchell::factor_of<finite>(
                        b, mask, partner[i][j], undefined[i][j], constants, f);
                    // Not fused: rounded as on the CPU.
                    chain[i][j] = chain[i][j] + grad.element[i] * bits::as_float(factor);
                }
            }
        }
        if (next % kDepthBlock == 0 || next >= p.depth) {
#pragma unroll
            for (int i = 0; i < kSide; ++i) {
#pragma unroll
                for (int j = 0; j < kSide; ++j) {
                    total[i][j] = k < kDepthBlock ? chain[i][j] : total[i][j] + chain[i][j];
                    chain[i][j] = 0;
                }
            }
        }
        buffer ^= 1;
        if (next < p.depth) store(buffer);
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < kSide; ++i) {
#pragma unroll
        for (int j = 0; j < kSide; ++j) {
            if (row + i >= p.rows || column + j >= p.columns) continue;
            store_total(p.out, places.out + (row + i) * p.out.row + (column + j) * p.out.column,
                        bits::of(total[i][j]));
        }
    }
}

// Blocks: tiles along x, row after row; results of the batch along z.
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks) factor_kernel(FactorProblem p) {
    __shared__ __align__(16) uint32_t lanes[2][kLanes];
    if (p.rules.all_finite(p.other_range->highest, p.own_range->highest)) {
        sum_tile<true>(p, lanes);
    } else {
        sum_tile<false>(p, lanes);
    }
}

}  // namespace

void multiply_factors(const Context& context, const char* function, FactorProblem problem) {
    problem.item = static_cast<int>(item_size(problem.dtype));
    constexpr int64_t kMostBatches = 65535;
    const int64_t tiles =
        ceil_div(problem.rows, Tile::kRows) * ceil_div(problem.columns, Tile::kColumns);
    int64_t batches = 1;
    for (int axis = 0; axis < problem.rank; ++axis) batches *= problem.size[axis];
    for (; problem.first_batch < batches; problem.first_batch += kMostBatches) {
        const int64_t here = std::min(kMostBatches, batches - problem.first_batch);
        const dim3 grid(static_cast<unsigned>(tiles), 1, static_cast<unsigned>(here));
        launch(context, function, factor_kernel, grid, Tile::kThreads, 0, problem);
    }
}

}  // namespace slipstick::cuda::mitchell
