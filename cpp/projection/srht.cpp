#include "projection/srht.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <numeric>
#include <utility>

#include "core/philox.hpp"
#include "core/rounding.hpp"
#include "core/store.hpp"
#include "core/threads.hpp"
#include "projection/transform.hpp"

namespace slipstick::cpu::projection {
namespace {

constexpr uint32_t kInputSignTag = 0x53524400u;
constexpr uint32_t kRowTag = 0x53525200u;
constexpr uint32_t kOutputSignTag = 0x53524F00u;
constexpr int kBlockStages = 12;
constexpr int64_t kBlock = 1 << kBlockStages;
constexpr int64_t kMostRows = 16;    // rows of x that share the signs of a block
constexpr int64_t kGrain = 1 << 17;  // numbers a thread: 50 us

// The first `count` of group g's order of 0 ... b - 1: Fisher and Yates from the front.
void sampled_rows(uint64_t seed, uint32_t group, int64_t count, int32_t* rows) {
    std::array<int32_t, kBlock> order;
    std::iota(order.begin(), order.end(), 0);
    PhiloxWords words{};
    for (int64_t t = 0; t < count; ++t) {
        if (t % 4 == 0) {
            words = philox4x32({{static_cast<uint32_t>(t / 4), group, 0, kRowTag}}, seed);
        }
        const auto reach = static_cast<uint64_t>(kBlock - t);
        const auto other = t + static_cast<int64_t>((words.word[t % 4] * reach) >> 32);
        std::swap(order[static_cast<size_t>(t)], order[static_cast<size_t>(other)]);
        rows[t] = order[static_cast<size_t>(t)];
    }
}

// D[g, j] of the b features of a block, a bit each: 1 for -1.
using InputSigns = std::array<uint32_t, kBlock / 32>;
void input_signs(uint64_t seed, uint32_t group, uint64_t block, InputSigns& signs) {
    constexpr int64_t blocks = kBlock / 128;
    static_assert(blocks % kSignBlockRoom == 0);
    active_transform_table().sign_words(seed, group, block * static_cast<uint64_t>(blocks), blocks,
                                        kInputSignTag, signs.data());
}

// D~[i, B] for components [first, first + count).
template <class T>
void output_signs(uint64_t seed, uint64_t first, int64_t count, uint64_t block, T* signs) {
    PhiloxWords words{};
    for (int64_t n = 0; n < count; ++n) {
        const uint64_t i = first + static_cast<uint64_t>(n);
        if (n == 0 || i % 128 == 0) {
            words = philox4x32({{static_cast<uint32_t>(i / 128), static_cast<uint32_t>(block),
                                 static_cast<uint32_t>(block >> 32), kOutputSignTag}},
                               seed);
        }
        signs[n] = (words.word[i % 128 / 32] >> (i % 32) & 1) != 0 ? T{-1} : T{1};
    }
}

// The features of x that lie in one block.
struct Part {
    uint64_t block;
    int64_t begin;  // feature of x
    int64_t first;  // where in the block
    int64_t count;
};

// Sums of one dtype, of groups of components and of runs of rows of x.
template <class T>
class Sketch {
public:
    Sketch(const ConstTensor& x, const Law& law, uint64_t first_feature, const Tensor& out)
        : x_(x),
          law_(law),
          first_feature_(first_feature),
          out_(out),
          kernels_(*active_transform_table().transform[x.dtype]),
          read_(active_transform_table().read[x.dtype]),
          vectors_(x, out, x.rank - 1),
          features_(x.shape[x.rank - 1]),
          components_(out.shape[out.rank - 1]),
          rows_(components_ * static_cast<int64_t>(sizeof(int32_t))) {}

    void run() {
        const int64_t groups = ceil_div(components_, kBlock);
        parallel_for(groups, 2, [&](int64_t begin, int64_t end) {
            for (int64_t g = begin; g < end; ++g) {
                sampled_rows(law_.seed, static_cast<uint32_t>(g), in_group(g),
                             rows_.as<int32_t>() + g * kBlock);
            }
        });
        const int64_t together =
            std::clamp<int64_t>(vectors_.count() / (2 * num_threads()), 1, kMostRows);
        const int64_t chunks = ceil_div(vectors_.count(), together);
        const int64_t grain = std::max<int64_t>(1, kGrain / (features_ * together));
        parallel_for(chunks * groups, grain, [&](int64_t begin, int64_t end) {
            const Scratch memory(kBlock * (together + 2) * kItem);
            for (int64_t task = begin; task < end; ++task) {
                const int64_t first = task / groups * together;
                add_up(task % groups, first, std::min(together, vectors_.count() - first),
                       memory.as<T>());
            }
        });
    }

private:
    static constexpr int64_t kItem = sizeof(T);

    int64_t in_group(int64_t g) const { return std::min(kBlock, components_ - g * kBlock); }

    Part part_at(int64_t feature) const {
        const uint64_t j = first_feature_ + static_cast<uint64_t>(feature);
        const auto first = static_cast<int64_t>(j % kBlock);
        return {j / kBlock, feature, first, std::min(kBlock - first, features_ - feature)};
    }

    void add_up(int64_t group, int64_t first_vector, int64_t count, T* memory) const {
        T* const sums = memory;
        T* const signs = sums + count * kBlock;
        T* const values = signs + kBlock;
        const int64_t components = in_group(group);
        const int32_t* const rows = rows_.as<int32_t>() + group * kBlock;
        std::array<int64_t, kMostRows> sources;
        std::array<int64_t, kMostRows> targets;
        size_t found = 0;
        vectors_.for_each_run(first_vector, first_vector + count,
                              [&](int64_t source, int64_t target, int64_t vectors,
                                  int64_t source_stride, int64_t target_stride) {
                                  for (int64_t i = 0; i < vectors; ++i, ++found) {
                                      sources[found] = source + i * source_stride;
                                      targets[found] = target + i * target_stride;
                                  }
                              });
        std::fill(sums, sums + count * components, T{0});
        InputSigns flips;
        for (int64_t feature = 0; feature < features_;) {
            const Part part = part_at(feature);
            input_signs(law_.seed, static_cast<uint32_t>(group), part.block, flips);
            output_signs(law_.seed, static_cast<uint64_t>(group * kBlock), components, part.block,
                         signs);
            const auto reach = static_cast<uint64_t>(part.first + part.count);
            const auto stages = static_cast<int>(std::bit_width(reach - 1));
            for (int64_t i = 0; i < count; ++i) {
                transform(part, stages, sources[static_cast<size_t>(i)], flips, values);
                kernels_.sample(values, rows, (1 << stages) - 1, signs, components,
                                sums + i * components);
            }
            feature += part.count;
        }
        for (int64_t i = 0; i < count; ++i) {
            const int64_t stride = out_.strides[out_.rank - 1];
            char* const line =
                out_.as<char>() + targets[static_cast<size_t>(i)] * item_size(out_.dtype);
            store_scaled(sums + i * components, components, 1, components, law_.scale,
                         {line, out_.dtype, 1, components_, 0, stride}, 0, group * kBlock);
        }
    }

    // The features of one row that lie in a block, signs and transform. What is not there is zeros,
    // and a zero changes no sum: hence the shortest transform that holds the features, of which row
    // r of the whole one is row r modulo its length.
    void transform(const Part& part, int stages, int64_t row, const InputSigns& flips,
                   T* values) const {
        const int64_t stride = x_.strides[x_.rank - 1];
        const char* const source =
            x_.as<char>() + (row + part.begin * stride) * item_size(x_.dtype);
        const int64_t length = int64_t{1} << stages;
        if (x_.dtype == DtypeOf<T>::value && stride == 1 && part.count == length && length >= 32) {
            kernels_.rows(source, length, values, length, 1, stages, nullptr, flips.data());
            return;
        }
        std::fill(values, values + part.first, T{0});
        read_(source, stride, part.count, values + part.first);
        std::fill(values + part.first + part.count, values + length, T{0});
        kernels_.flip(values, values, length, flips.data());
        kernels_.rows(values, length, values, length, 1, stages, nullptr, nullptr);
    }

    const ConstTensor& x_;
    const Law& law_;
    uint64_t first_feature_;
    const Tensor& out_;
    const TransformKernels& kernels_;
    ReadFn read_;
    VectorPairs vectors_;
    int64_t features_;
    int64_t components_;
    Scratch rows_;  // r_i of every component
};

}  // namespace

void project_srht(const ConstTensor& x, const Law& law, uint64_t first_feature, const Tensor& out) {
    if (out.size() == 0) return;
    if (computed_in_float(x.dtype)) {
        Sketch<float>(x, law, first_feature, out).run();
    } else {
        Sketch<double>(x, law, first_feature, out).run();
    }
}

void block_srht(const Law& law, uint64_t first_row, uint64_t first_column, const Tensor& out) {
    const int64_t rows = out.shape[0];
    const int64_t columns = out.shape[1];
    if (rows == 0 || columns == 0) return;
    const auto skipped = static_cast<int64_t>(first_column % kBlock);
    const int64_t blocks = ceil_div(skipped + columns, kBlock);
    for (int64_t row = 0; row < rows;) {
        const uint64_t i = first_row + static_cast<uint64_t>(row);
        const auto group = static_cast<uint32_t>(i / kBlock);
        const auto within = static_cast<int64_t>(i % kBlock);
        const int64_t count = std::min(kBlock - within, rows - row);
        const Scratch sampled(kBlock * static_cast<int64_t>(sizeof(int32_t)));
        sampled_rows(law.seed, group, within + count, sampled.as<int32_t>());
        const int32_t* const order = sampled.as<int32_t>() + within;
        parallel_for(blocks, 1, [&](int64_t begin, int64_t end) {
            const Scratch memory(count * static_cast<int64_t>(sizeof(double)));
            double* const signs = memory.as<double>();
            InputSigns flips;
            for (int64_t b = begin; b < end; ++b) {
                const uint64_t block = first_column / kBlock + static_cast<uint64_t>(b);
                input_signs(law.seed, group, block, flips);
                output_signs(law.seed, i, count, block, signs);
                const int64_t first = std::max<int64_t>(0, b * kBlock - skipped);
                const int64_t last = std::min(columns, (b + 1) * kBlock - skipped);
                for (int64_t n = 0; n < count; ++n) {
                    double* const line = out.as<double>() + (row + n) * out.strides[0];
                    for (int64_t j = first; j < last; ++j) {
                        const auto c = static_cast<uint32_t>((j + skipped) % kBlock);
                        const uint32_t turned = static_cast<uint32_t>(std::popcount(
                                                    static_cast<uint32_t>(order[n]) & c)) ^
                                                (flips[c / 32] >> (c % 32));
                        line[j * out.strides[1]] =
                            (turned & 1) != 0 ? -signs[n] * law.scale : signs[n] * law.scale;
                    }
                }
            }
        });
        row += count;
    }
}

}  // namespace slipstick::cpu::projection
