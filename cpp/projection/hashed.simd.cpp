#include "core/transpose.hpp"
#include "projection/gaussian.hpp"
#include "projection/hashed_kernels.hpp"
#include "projection/streams.hpp"
#include "projection/widen.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

using projection::Group;
using projection::HashedOps;
using projection::Hit;
using projection::Law;
using projection::Term;
using slipstick::projection::kHashedTag;

// Counter (r, lo j, hi j): word 0 is the place within block r of the components, word 1 the sign.
void make_hits(const Law& law, const uint64_t* features, int64_t count, Hit* hits) {
    constexpr int64_t batch = kSideBySide * kWordLanes;
    const RoundKeys keys(law.seed);
    const Word tag = broadcast(uint64_t{kHashedTag});
    const auto s = static_cast<uint64_t>(law.nonzeros);
    const auto k = static_cast<uint64_t>(law.components);
    for (int64_t first = 0; first < count; first += batch) {
        const int64_t used = count - first < batch ? count - first : batch;
        uint64_t columns[batch];
        for (int64_t i = 0; i < batch; ++i) columns[i] = features[first + (i < used ? i : 0)];
        for (uint64_t r = 0; r < s; ++r) {
            const uint64_t begin = r * k / s;
            const Word height = broadcast((r + 1) * k / s - begin);
            Words blocks;
            for (int b = 0; b < kSideBySide; ++b) {
                const Word j = load<Word>(columns + b * kWordLanes);
                blocks.word[0][b] = broadcast(r);
                blocks.word[1][b] = j;
                blocks.word[2][b] = j >> 32;
                blocks.word[3][b] = tag;
            }
            philox(blocks, keys);
            uint64_t made[batch];
            for (int b = 0; b < kSideBySide; ++b) {
                const Word row = (multiply_low_halves(blocks.word[0][b], height) >> 32) + begin;
                store(made + b * kWordLanes, row << 1 | (blocks.word[1][b] & 1));
            }
            for (int64_t i = 0; i < used; ++i)
                hits[(first + i) * law.nonzeros + static_cast<int64_t>(r)] =
                    static_cast<Hit>(made[i]);
        }
    }
}

// --- Rows into lanes and back ---

template <class T>
void pack(const void* source, const int64_t* row_offsets, int64_t rows, int64_t depth_stride,
          int64_t depth, void* tile, int64_t width) {
    using Sum = SumOf<T>;
    constexpr int lanes = kLanes<Sum>;
    const auto* const x = static_cast<const T*>(source);
    bool adjacent = true;
    for (int64_t i = 1; i < rows; ++i) adjacent &= row_offsets[i] == row_offsets[0] + i;
    const int64_t full = adjacent ? rows - rows % lanes : 0;
    for (int64_t k = 0; k < depth && full > 0; ++k) {
        const T* line = x + row_offsets[0] + k * depth_stride;
        auto* target = static_cast<Sum*>(tile) + k * width;
        for (int64_t i = 0; i < full; ++i) target[i] = widened(line[i]);
    }
    for (int64_t first = full; first < rows; first += lanes) {
        auto* const target = static_cast<Sum*>(tile) + first;
        const T* lines[lanes];
        for (int64_t i = 0; i < lanes; ++i)
            lines[i] = x + row_offsets[first + i < rows ? first + i : rows - 1];
        int64_t k = 0;
        if (depth_stride == 1) {
            for (; k + lanes <= depth; k += lanes) {
                Vec<Sum> square[lanes];
                for (int i = 0; i < lanes; ++i) {
                    if constexpr (std::is_same_v<T, Sum>) {
                        square[i] = load<Vec<Sum>>(lines[i] + k);
                    } else {
                        Sum numbers[lanes];
                        for (int m = 0; m < lanes; ++m) numbers[m] = widened(lines[i][k + m]);
                        square[i] = load<Vec<Sum>>(numbers);
                    }
                }
                transpose<Sum>(square);
                for (int i = 0; i < lanes; ++i) store(target + (k + i) * width, square[i]);
            }
        }
        for (; k < depth; ++k) {
            for (int i = 0; i < lanes; ++i)
                target[k * width + i] = widened(lines[i][k * depth_stride]);
        }
    }
}

template <class Sum>
void unpack(const void* source, int64_t width, int64_t used, int64_t columns, void* rows,
            int64_t row_stride) {
    constexpr int lanes = kLanes<Sum>;
    for (int64_t i = 0; i < used; i += lanes) {
        for (int64_t c = 0; c < columns; c += lanes) {
            const Sum* const corner = static_cast<const Sum*>(source) + c * width + i;
            Vec<Sum> square[lanes];
            for (int m = 0; m < lanes; ++m) square[m] = load<Vec<Sum>>(corner + m * width);
            transpose<Sum>(square);
            Sum* const target = static_cast<Sum*>(rows) + i * row_stride + c;
            for (int m = 0; m < lanes; ++m) store(target + m * row_stride, square[m]);
        }
    }
}

// --- Sums ---

// Flips the signs of all lanes where bit 0 says so.
template <class Sum>
SLIPSTICK_INLINE Vec<typename BitsOf<Sum>::Unsigned> sign_mask(uint32_t bit) {
    using Lane = typename BitsOf<Sum>::Unsigned;
    return broadcast(static_cast<Lane>(Lane{bit & 1} << (8 * sizeof(Lane) - 1)));
}
template <class Sum>
SLIPSTICK_INLINE Vec<Sum> flipped(Vec<Sum> x, Vec<typename BitsOf<Sum>::Unsigned> mask) {
    return bit_cast<Vec<Sum>>(bit_cast<Vec<typename BitsOf<Sum>::Unsigned>>(x) ^ mask);
}

template <class T>
SLIPSTICK_INLINE void fetch(const T* line, int64_t elements) {
    const auto* const bytes = reinterpret_cast<const char*>(line);
    const int64_t count = elements * static_cast<int64_t>(sizeof(T));
    for (int64_t byte = 0; byte < count; byte += 64) __builtin_prefetch(bytes + byte);
    __builtin_prefetch(bytes + count - 1);
}

// A chain that starts with its first term differs from one that starts at +0 in the sign of a zero
// alone, which the sum, +0 at first and hence never -0, does not keep.
template <class Sum>
void scatter(const Group* groups, int64_t group_count, const Term* terms, const void* source,
             int64_t stride, int64_t used, void* sums, int64_t width) {
    using V = Vec<Sum>;
    constexpr int lanes = kLanes<Sum>;
    constexpr int64_t unroll = 8;  // vectors whose chains run side by side
    constexpr uint32_t ahead = 4;  // terms between a fetch and its use
    constexpr int64_t groups_ahead = 3;
    const auto* const x = static_cast<const Sum*>(source);
    const uint32_t last = group_count > 0 ? groups[group_count - 1].end - 1 : 0;
    uint32_t begin = 0;
    for (int64_t g = 0; g < group_count; ++g) {
        const uint32_t end = groups[g].end;
        Sum* const target = static_cast<Sum*>(sums) + groups[g].component * width;
        for (uint32_t t = begin; t < end; ++t)
            fetch(x + (terms[t + ahead < last ? t + ahead : last] >> 1) * stride, used);
        const int64_t next = g + groups_ahead < group_count ? g + groups_ahead : g;
        fetch(static_cast<Sum*>(sums) + groups[next].component * width, used);
        const auto first_mask = sign_mask<Sum>(terms[begin]);
        const Sum* const first_line = x + (terms[begin] >> 1) * stride;
        if (end - begin == 1) {
            for (int64_t i = 0; i < used; i += lanes) {
                const V chain = flipped<Sum>(load<V>(first_line + i), first_mask);
                store(target + i, load<V>(target + i) + chain);
            }
        } else {
            const auto add = [&]<int64_t count>(int64_t i) {
                V chain[count];
                for (int v = 0; v < count; ++v)
                    chain[v] = flipped<Sum>(load<V>(first_line + i + v * lanes), first_mask);
                for (uint32_t t = begin + 1; t < end; ++t) {
                    const auto mask = sign_mask<Sum>(terms[t]);
                    const Sum* const line = x + (terms[t] >> 1) * stride + i;
#pragma GCC unroll 8
                    for (int v = 0; v < count; ++v)
                        chain[v] += flipped<Sum>(load<V>(line + v * lanes), mask);
                }
                for (int v = 0; v < count; ++v) {
                    Sum* const place = target + i + v * lanes;
                    store(place, load<V>(place) + chain[v]);
                }
            };
            int64_t i = 0;
            for (; i + unroll * lanes <= used; i += unroll * lanes)
                add.template operator()<unroll>(i);
            for (; i < used; i += lanes) add.template operator()<1>(i);
        }
        begin = end;
    }
}

template <class Sum>
void gather(const Hit* hits, int64_t nonzeros, int64_t columns, const void* y, int64_t width,
            void* tile) {
    using V = Vec<Sum>;
    constexpr int lanes = kLanes<Sum>;
    constexpr uint32_t block_shift = 9;  // 256 components, and the bit of the sign
    static_assert(2 * kDepthBlock == 1 << block_shift);
    for (int64_t c = 0; c < columns; ++c, hits += nonzeros) {
        Sum* const target = static_cast<Sum*>(tile) + c * width;
        for (int64_t i = 0; i < width; i += lanes) {
            const Sum* const rows = static_cast<const Sum*>(y) + i;
            V sum{};
            V chain{};
            uint32_t block = hits[0] >> block_shift;
            for (int64_t r = 0; r < nonzeros; ++r) {
                const uint32_t hit = hits[r];
                if (hit >> block_shift != block) {
                    block = hit >> block_shift;
                    sum += chain;
                    chain = V{};
                }
                chain += flipped<Sum>(load<V>(rows + (hit >> 1) * width), sign_mask<Sum>(hit));
            }
            store(target + i, sum + chain);
        }
    }
}

template <class T>
constexpr HashedOps kOps = {
    .sum_bytes = sizeof(SumOf<T>),
    .lanes = kLanes<SumOf<T>>,
    .reads_in_place = std::is_same_v<T, SumOf<T>>,
    .pack = &pack<T>,
    .scatter = &scatter<SumOf<T>>,
    .gather = &gather<SumOf<T>>,
    .unpack = &unpack<SumOf<T>>,
};

}  // namespace

const projection::HashedKernels projection_hashed_kernels = {
    .hits = &make_hits,
    .ops = every_dtype<const HashedOps*>([]<class T>() { return &kOps<T>; }),
};

}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
