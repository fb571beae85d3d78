// Parts of the random matrices themselves.
#include <algorithm>

#include "core/launch.cuh"
#include "projection/cuda.hpp"
#include "projection/entry.hpp"
#include "projection/srht.cuh"

namespace slipstick::cuda::projection {
namespace {

using slipstick::projection::gaussian_from_bits;
using slipstick::projection::Hashed;
using slipstick::projection::hashed_entry;
using slipstick::projection::kGaussianTag;
using slipstick::projection::kRademacherTag;
using slipstick::projection::kSparseTag;
using slipstick::projection::kSrhtBlock;
using slipstick::projection::ScalarOps;
using slipstick::projection::sign_of_bit;
using slipstick::projection::sparse_from_bits;
using slipstick::projection::words_of;

constexpr int kThreads = 256;
constexpr int64_t kMostBlocks = int64_t{1} << 20;

struct Target {
    void* data;
    bool is_double;
    int64_t rows, columns;
    int64_t row_stride, column_stride;  // in elements

    __device__ __forceinline__ void store(int64_t row, int64_t column, double entry) const {
        const int64_t place = row * row_stride + column * column_stride;
        if (is_double) {
            static_cast<double*>(data)[place] = entry;
        } else {
            static_cast<float*>(data)[place] = static_cast<float>(entry);
        }
    }
};

struct BlockProblem {
    Law law;
    uint64_t first_row, first_column;
    const uint16_t* order;  // srht: r of the components from the first row's group on
    Target out;
};

// Components whose entries of one column a thread makes: those of one block of words, or a run of
// the kinds that look at every component.
__host__ __device__ constexpr int64_t together(Kind kind) {
    return kind == Kind::kGaussian || kind == Kind::kSparse ? 4 : 128;
}

// The entries of components [begin, end) of column `feature`, all of one group of together(kind),
// go to put(component, entry), unscaled.
template <class Put>
__device__ __forceinline__ void make_entries(const BlockProblem& p, uint64_t begin, uint64_t end,
                                             uint64_t feature, Put put) {
    const Law& law = p.law;
    switch (law.kind) {
        case Kind::kRademacher: {
            const PhiloxWords words = words_of(law.seed, kRademacherTag, begin / 128, feature);
#pragma unroll
            for (uint64_t w = 0; w < 4; ++w) {
                const uint64_t from = begin / 128 * 128 + 32 * w;
                const uint64_t to = end < from + 32 ? end : from + 32;
                for (uint64_t i = begin < from ? from : begin; i < to; ++i)
                    put(i, sign_of_bit(words.word[w], static_cast<uint32_t>(i)));
            }
            return;
        }
        case Kind::kGaussian:
        case Kind::kSparse: {
            const bool gaussian = law.kind == Kind::kGaussian;
            const PhiloxWords words =
                words_of(law.seed, gaussian ? kGaussianTag : kSparseTag, begin / 4, feature);
#pragma unroll
            for (uint64_t w = 0; w < 4; ++w) {
                const uint64_t i = begin / 4 * 4 + w;
                if (i < begin || i >= end) continue;
                put(i, gaussian ? gaussian_from_bits<ScalarOps>(words.word[w])
                                : sparse_from_bits(words.word[w], law.threshold));
            }
            return;
        }
        case Kind::kSjlt:
        case Kind::kCountsketch: {
            // Block r holds component i where floor(r k / s) <= i, for the last such r.
            const auto block_of = [&](uint64_t i) {
                return ((static_cast<int64_t>(i) + 1) * law.nonzeros - 1) / law.components;
            };
            int64_t r = block_of(begin);
            Hashed entry = hashed_entry(law.seed, law.components, law.nonzeros, r, feature);
            for (uint64_t i = begin; i < end; ++i) {
                if (block_of(i) != r) {
                    r = block_of(i);
                    entry = hashed_entry(law.seed, law.components, law.nonzeros, r, feature);
                }
                const bool hit = entry.component == static_cast<int64_t>(i);
                put(i, !hit ? 0.0f : (entry.negative ? -1.0f : 1.0f));
            }
            return;
        }
        case Kind::kSrht: {
            const uint64_t first_group = p.first_row / kSrhtBlock;
            const auto group = static_cast<uint32_t>(begin / kSrhtBlock);
            const uint64_t block = feature / kSrhtBlock;
            const PhiloxWords out_signs =
                slipstick::projection::srht_output_signs(law.seed, begin, block);
            const PhiloxWords in_signs =
                slipstick::projection::srht_input_signs(law.seed, group, feature);
            uint32_t in_word = in_signs.word[0];
#pragma unroll
            for (uint32_t w = 1; w < 4; ++w)
                in_word = feature / 32 % 4 == w ? in_signs.word[w] : in_word;
            const uint32_t in_sign = in_word >> feature % 32 & 1;
#pragma unroll
            for (uint64_t w = 0; w < 4; ++w) {
                const uint64_t from = begin / 128 * 128 + 32 * w;
                const uint64_t to = end < from + 32 ? end : from + 32;
                for (uint64_t i = begin < from ? from : begin; i < to; ++i) {
                    uint32_t turned = p.order[i - first_group * kSrhtBlock] &
                                      static_cast<uint32_t>(feature % kSrhtBlock);
#pragma unroll
                    for (int half = 8; half > 0; half /= 2) turned ^= turned >> half;
                    put(i, sign_of_bit((turned ^ in_sign ^ out_signs.word[w] >> i % 32) & 1, 0));
                }
            }
            return;
        }
    }
}

// Neighbouring threads make neighbouring columns.
__global__ void __launch_bounds__(kThreads) block_kernel(BlockProblem p) {
    const auto group = static_cast<uint64_t>(together(p.law.kind));
    const uint64_t last_row = p.first_row + static_cast<uint64_t>(p.out.rows);
    const uint64_t first_group = p.first_row / group;
    const auto groups = static_cast<int64_t>((last_row - 1) / group - first_group) + 1;
    const int64_t step = int64_t{gridDim.x} * kThreads;
    for (int64_t task = int64_t{blockIdx.x} * kThreads + threadIdx.x; task < groups * p.out.columns;
         task += step) {
        const int64_t row_group = task / p.out.columns;
        const int64_t column = task - row_group * p.out.columns;
        const uint64_t from = (first_group + static_cast<uint64_t>(row_group)) * group;
        const uint64_t begin = from < p.first_row ? p.first_row : from;
        const uint64_t end = from + group < last_row ? from + group : last_row;
        make_entries(p, begin, end, p.first_column + static_cast<uint64_t>(column),
                     [&](uint64_t i, float entry) {
                         p.out.store(static_cast<int64_t>(i - p.first_row), column,
                                     double{entry} * p.law.scale);
                     });
    }
}

}  // namespace

void block(const Context& context, const Law& law, uint64_t first_row, uint64_t first_column,
           const Tensor& out) {
    const char* const function = "block";
    if (out.size() == 0) return;
    const DeviceGuard guard(context, function);
    BlockProblem problem{};
    problem.law = law;
    problem.first_row = first_row;
    problem.first_column = first_column;
    problem.out = {out.mutable_data(), out.dtype == Dtype::kFloat64,
                   out.shape[0],       out.shape[1],
                   out.strides[0],     out.strides[1]};
    if (law.kind == Kind::kSrht) {
        const uint64_t last_row = first_row + static_cast<uint64_t>(out.shape[0]) - 1;
        problem.order = sampled_rows(context, function, law.seed, first_row / kSrhtBlock,
                                     last_row / kSrhtBlock + 1);
    }
    const int64_t groups = ceil_div(out.shape[0], together(law.kind)) + 1;
    const int64_t blocks =
        std::min(kMostBlocks, ceil_div(groups, kThreads) * std::min(out.shape[1], kMostBlocks));
    launch(context, function, block_kernel, dim3(static_cast<unsigned>(blocks)), kThreads, 0,
           problem);
}

}  // namespace slipstick::cuda::projection
