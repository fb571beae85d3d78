// Sparse rows times every kind but the block SRHT. A block of threads has a row and up to 256
// components, a thread each; the entries of 32 nonzeros' columns are made together, in shared
// memory, and each thread then adds its own in the CPU's order.
//
// Cost of a nonzero at 256 components: of signs two Philox blocks (about 100 instructions each) and
// 256 times a bit, a sign and an addition, 5 instructions: 1480 / 128 = 12 clocks of a
// multiprocessor; of Gaussian entries 64 Philox blocks and 256 times 45 instructions, 140 clocks;
// reading it takes 8 or 12 bytes, less than one.
#include "projection/csr.cuh"

#include <algorithm>

#include "core/chain.hpp"
#include "core/launch.cuh"
#include "projection/cuda.hpp"
#include "projection/entry.hpp"

namespace slipstick::cuda::projection {
namespace {

using slipstick::projection::gaussian_from_bits;
using slipstick::projection::Hashed;
using slipstick::projection::hashed_entry;
using slipstick::projection::kGaussianTag;
using slipstick::projection::Kind;
using slipstick::projection::kRademacherTag;
using slipstick::projection::kSignGroup;
using slipstick::projection::kSparseTag;
using slipstick::projection::ScalarOps;
using slipstick::projection::sparse_from_bits;
using slipstick::projection::words_of;

constexpr int kMostThreads = 256;  // and components of a block
constexpr int kTogether = 32;      // nonzeros
constexpr int64_t kMostBlocks = int64_t{1} << 30;

// How the entries of a column lie in shared memory.
enum class Form { kBits, kFloats, kHits };

struct SparseProduct {
    SparseRows x;
    Law law;
    bool skips_zeros;  // of the matrix
    ScaledTarget out;
};

// Sums of one row and component, by blocks of 256 features and, of signs, by groups of four.
template <Form form, class Sum>
struct Chain {
    Sum total = 0;
    Sum chain = 0;
    Sum group = 0;
    uint64_t feature = 0;

    // Before what belongs to a feature is added.
    __device__ __forceinline__ void move_to(uint64_t next) {
        if constexpr (form == Form::kBits) {
            if (next / kSignGroup != feature / kSignGroup) {
                chain += group;
                group = 0;
            }
        }
        if (next / kDepthBlock != feature / kDepthBlock) {
            total += chain;
            chain = 0;
        }
        feature = next;
    }
    __device__ __forceinline__ Sum sum() const { return total + (chain + group); }
};

template <Form form, class Sum>
__global__ void __launch_bounds__(kMostThreads) add_rows(const SparseProduct p) {
    __shared__ Sum values[kTogether];
    __shared__ uint64_t features[kTogether];
    __shared__ unsigned wrong;
    auto* const words = dynamic_shared<uint32_t>();
    auto* const floats = dynamic_shared<float>();
    const auto thread = static_cast<int>(threadIdx.x);
    const auto threads = static_cast<int>(blockDim.x);
    const int64_t components = p.out.columns;
    const int64_t tiles = ceil_div(components, threads);
    for (int64_t at = blockIdx.x; at < tiles * p.x.rows; at += gridDim.x) {
        const int64_t first = at % tiles * threads;
        const int64_t row = at / tiles;
        const int64_t component = first + thread;
        const Span span = span_of(p.x, row);
        if (thread == 0) wrong = span.valid ? 0 : 1;
        // Of the hashed kinds: the blocks of components that the tile touches.
        const auto part_of = [&](int64_t of) {
            return ((of + 1) * p.law.nonzeros - 1) / components;
        };
        int64_t first_part = 0;
        int parts = 0;
        int own_part = 0;
        if constexpr (form == Form::kHits) {
            const int64_t last = first + threads < components ? first + threads : components;
            first_part = part_of(first);
            parts = static_cast<int>(part_of(last - 1) - first_part) + 1;
            own_part =
                component < components ? static_cast<int>(part_of(component) - first_part) : 0;
        }
        Chain<form, Sum> chain;
        for (int64_t begin = span.begin; begin < span.end; begin += kTogether) {
            const auto count = static_cast<int>(span.end - begin < kTogether ? span.end - begin
                                                                             : int64_t{kTogether});
            __syncthreads();
            if (thread < count) {
                values[thread] = static_cast<const Sum*>(p.x.values)[begin + thread];
                features[thread] =
                    p.x.first_feature + static_cast<uint64_t>(p.x.column(begin + thread));
                if (!is_in_order(p.x, span, begin + thread)) wrong = 1;
            }
            __syncthreads();
            if constexpr (form == Form::kBits) {
                const int blocks = (threads + 127) / 128;
                for (int i = thread; i < count * blocks; i += threads) {
                    const PhiloxWords drawn = words_of(
                        p.law.seed, kRademacherTag, static_cast<uint64_t>(first / 128 + i % blocks),
                        features[i / blocks]);
#pragma unroll
                    for (int w = 0; w < 4; ++w) words[4 * i + w] = drawn.word[w];
                }
            } else if constexpr (form == Form::kFloats) {
                const int quads = threads / 4;
                for (int i = thread; i < count * quads; i += threads) {
                    const bool is_gaussian = p.law.kind == Kind::kGaussian;
                    const PhiloxWords drawn =
                        words_of(p.law.seed, is_gaussian ? kGaussianTag : kSparseTag,
                                 static_cast<uint64_t>(first / 4 + i % quads), features[i / quads]);
#pragma unroll
                    for (int w = 0; w < 4; ++w) {
                        floats[4 * i + w] = is_gaussian
                                                ? gaussian_from_bits<ScalarOps>(drawn.word[w])
                                                : sparse_from_bits(drawn.word[w], p.law.threshold);
                    }
                }
            } else {
                for (int i = thread; i < count * parts; i += threads) {
                    const Hashed drawn = hashed_entry(p.law.seed, components, p.law.nonzeros,
                                                      first_part + i % parts, features[i / parts]);
                    words[i] = static_cast<uint32_t>(drawn.component) << 1 |
                               static_cast<uint32_t>(drawn.negative);
                }
            }
            __syncthreads();
            for (int n = 0; n < count; ++n) {
                const Sum value = values[n];
                chain.move_to(features[n]);
                if constexpr (form == Form::kBits) {
                    const int blocks = (threads + 127) / 128;
                    const auto bit = static_cast<int>(component % 128) + thread / 128 * 128;
                    const uint32_t word = words[4 * n * blocks + bit / 32];
                    chain.group += (word >> (bit % 32) & 1u) != 0 ? -value : value;
                } else if constexpr (form == Form::kFloats) {
                    const float entry = floats[n * threads + thread];
                    if (p.skips_zeros && entry == 0) continue;
                    chain.chain = std::fma(static_cast<Sum>(entry), value, chain.chain);
                } else {
                    const uint32_t word = words[n * parts + own_part];
                    if (word >> 1 == static_cast<uint32_t>(component))
                        chain.chain += (word & 1u) != 0 ? -value : value;
                }
            }
        }
        __syncthreads();
        if (component < components) {
            p.out.store(offset_of(p.out.rows, row) + component * p.out.column_stride,
                        wrong == 0 ? chain.sum() : std::numeric_limits<Sum>::quiet_NaN());
        }
        __syncthreads();
    }
}

template <Form form, class Sum>
void run(const Context& context, const SparseProduct& product, unsigned blocks, int threads,
         size_t bytes) {
    launch(context, "project", add_rows<form, Sum>, blocks, static_cast<unsigned>(threads), bytes,
           product);
}

}  // namespace

void project_sparse_rows(const Context& context, const SparseRows& x, const Law& law,
                         const Tensor& out) {
    const SparseProduct product{x, law, has_few_entries(law), ScaledTarget(out, law.scale)};
    const int64_t components = product.out.columns;
    int threads = 32;
    while (threads < kMostThreads && threads < components) threads *= 2;
    const auto blocks =
        static_cast<unsigned>(std::min(ceil_div(components, threads) * x.rows, kMostBlocks));
    const bool is_double = out.dtype == Dtype::kFloat64;
    if (law.kind == Kind::kRademacher) {
        const auto bytes = static_cast<size_t>(kTogether * ((threads + 127) / 128) * 16);
        (is_double ? run<Form::kBits, double> : run<Form::kBits, float>)(context, product, blocks,
                                                                         threads, bytes);
    } else if (is_hashed(law.kind)) {
        const int64_t parts =
            std::min<int64_t>(ceil_div(threads * law.nonzeros, components) + 2, law.nonzeros);
        const auto bytes = static_cast<size_t>(kTogether * parts) * sizeof(uint32_t);
        (is_double ? run<Form::kHits, double> : run<Form::kHits, float>)(context, product, blocks,
                                                                         threads, bytes);
    } else {
        const auto bytes = static_cast<size_t>(kTogether * threads) * sizeof(float);
        (is_double ? run<Form::kFloats, double>
                   : run<Form::kFloats, float>)(context, product, blocks, threads, bytes);
    }
}

void project_csr(const Context& context, const Csr& x, const Law& law, uint64_t first_feature,
                 const Tensor& out) {
    if (out.size() == 0) return;
    const DeviceGuard guard(context, "project");
    const SparseRows rows{x.values.data,
                          x.columns.data,
                          x.row_starts.data,
                          x.columns.dtype == Dtype::kInt64,
                          std::min(x.columns.shape[0], x.values.shape[0]),
                          x.rows,
                          x.features,
                          first_feature};
    if (law.kind == Kind::kSrht) return project_srht(context, rows, law, out);
    project_sparse_rows(context, rows, law, out);
}

}  // namespace slipstick::cuda::projection
