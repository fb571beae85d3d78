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
#include "projection/gaussian.hpp"
#include "projection/transform.hpp"

namespace slipstick::cpu::projection {
namespace {

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
            words = philox4x32({{static_cast<uint32_t>(t / 4), group, 0, kSrhtRowTag}}, seed);
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
    active_projection_transform_kernels().sign_words(seed, group,
                                                     block * static_cast<uint64_t>(blocks), blocks,
                                                     kSrhtInputSignTag, signs.data());
}

// D~[i, B] for components [first, first + count).
template <class T>
void output_signs(uint64_t seed, uint64_t first, int64_t count, uint64_t block, T* signs) {
    PhiloxWords words{};
    for (int64_t n = 0; n < count; ++n) {
        const uint64_t i = first + static_cast<uint64_t>(n);
        if (n == 0 || i % 128 == 0) {
            words = philox4x32({{static_cast<uint32_t>(i / 128), static_cast<uint32_t>(block),
                                 static_cast<uint32_t>(block >> 32), kSrhtOutputSignTag}},
                               seed);
        }
        signs[n] = (words.word[i % 128 / 32] >> (i % 32) & 1) != 0 ? T{-1} : T{1};
    }
}

// r_i of every component.
class Order {
public:
    Order(uint64_t seed, int64_t components)
        : components_(components), rows_(components * static_cast<int64_t>(sizeof(int32_t))) {
        parallel_for(ceil_div(components, kBlock), 2, [&](int64_t begin, int64_t end) {
            for (int64_t g = begin; g < end; ++g) {
                sampled_rows(seed, static_cast<uint32_t>(g), in_group(g),
                             rows_.as<int32_t>() + g * kBlock);
            }
        });
    }
    int64_t in_group(int64_t group) const { return std::min(kBlock, components_ - group * kBlock); }
    const int32_t* of(int64_t group) const { return rows_.as<int32_t>() + group * kBlock; }

private:
    int64_t components_;
    Scratch rows_;
};

// The features of x that lie in one block.
struct Part {
    uint64_t block;
    int64_t begin;  // feature of x
    int64_t first;  // where in the block
    int64_t count;
};

// That begins with feature `begin` of `features`.
Part part_at(uint64_t first_feature, int64_t begin, int64_t features) {
    const uint64_t j = first_feature + static_cast<uint64_t>(begin);
    const auto first = static_cast<int64_t>(j % kBlock);
    return {j / kBlock, begin, first, std::min(kBlock - first, features - begin)};
}

// Columns from `column` on of the line that starts `target` elements into `out`.
template <class T>
void store_line(const T* sums, int64_t count, double scale, const Tensor& out, int64_t target,
                int64_t column) {
    char* const line = out.as<char>() + target * item_size(out.dtype);
    const int last = out.rank - 1;
    store_scaled(sums, count, 1, count, scale,
                 {line, out.dtype, 1, out.shape[last], 0, out.strides[last]}, 0, column);
}

// Rows of a dense array.
template <class T>
class DenseRows {
public:
    DenseRows(const ConstTensor& x, const Tensor& out)
        : x_(x),
          read_(active_projection_transform_kernels().read[x.dtype]),
          stride_(x.strides[x.rank - 1]),
          vectors_(x, out, x.rank - 1) {}

    int64_t count() const { return vectors_.count(); }
    int64_t features() const { return x_.shape[x_.rank - 1]; }

    // Where the rows [first, first + count) lie, in elements of x and of the result.
    void locate(int64_t first, int64_t count, int64_t* sources, int64_t* targets) const {
        vectors_.for_each_run(first, first + count,
                              [&](int64_t source, int64_t target, int64_t vectors,
                                  int64_t source_stride, int64_t target_stride) {
                                  for (int64_t i = 0; i < vectors; ++i) {
                                      *sources++ = source + i * source_stride;
                                      *targets++ = target + i * target_stride;
                                  }
                              });
    }

    // The first feature from `from` on that may differ from 0, features() if there is none.
    int64_t first_from(int64_t, int64_t from) const { return from; }
    // The features of a part where they lie as T, one after another; else null.
    const T* in_place(int64_t source, const Part& part) const {
        if (x_.dtype != DtypeOf<T>::value || stride_ != 1) return nullptr;
        return x_.as<T>() + source + part.begin;
    }
    // The features of a part; false where all are 0 and none was read.
    bool read(int64_t source, const Part& part, T* values) const {
        read_(x_.as<char>() + (source + part.begin * stride_) * item_size(x_.dtype), stride_,
              part.count, values);
        return true;
    }

private:
    const ConstTensor& x_;
    ReadFn read_;
    int64_t stride_;
    VectorPairs vectors_;
};

// Compressed rows, whose columns increase.
template <class T>
class SparseRows {
public:
    SparseRows(const Csr& x, const Tensor& out)
        : x_(x), starts_(x.row_starts), columns_(x.columns), out_stride_(out.strides[0]) {}

    int64_t count() const { return x_.rows; }
    int64_t features() const { return x_.features; }
    void locate(int64_t first, int64_t count, int64_t* sources, int64_t* targets) const {
        for (int64_t i = 0; i < count; ++i) {
            sources[i] = first + i;
            targets[i] = (first + i) * out_stride_;
        }
    }
    int64_t first_from(int64_t row, int64_t from) const {
        const int64_t at = columns_.lower_bound(starts_[row], starts_[row + 1], from);
        return at < starts_[row + 1] ? columns_[at] : x_.features;
    }
    const T* in_place(int64_t, const Part&) const { return nullptr; }
    bool read(int64_t row, const Part& part, T* values) const {
        int64_t at = columns_.lower_bound(starts_[row], starts_[row + 1], part.begin);
        const int64_t last = columns_.lower_bound(at, starts_[row + 1], part.begin + part.count);
        if (at == last) return false;
        std::fill_n(values, part.count, T{0});
        for (; at < last; ++at) values[columns_[at] - part.begin] = x_.values.as<T>()[at];
        return true;
    }

private:
    const Csr& x_;
    Indices starts_;
    Indices columns_;
    int64_t out_stride_;
};

// Sums of one dtype, of groups of components and of runs of rows.
template <class T, class Source>
class Sketch {
public:
    Sketch(const Source& source, const Law& law, uint64_t first_feature, const Tensor& out)
        : source_(source),
          law_(law),
          first_feature_(first_feature),
          out_(out),
          kernels_(*active_projection_transform_kernels().transform[DtypeOf<T>::value]),
          features_(source.features()),
          components_(out.shape[out.rank - 1]),
          order_(law.seed, components_) {}

    void run() {
        const int64_t groups = ceil_div(components_, kBlock);
        const int64_t together =
            std::clamp<int64_t>(source_.count() / (2 * num_threads()), 1, kMostRows);
        const int64_t chunks = ceil_div(source_.count(), together);
        const int64_t grain = std::max<int64_t>(1, kGrain / together / features_);
        parallel_for(chunks * groups, grain, [&](int64_t begin, int64_t end) {
            const Scratch memory(kBlock * (together + 2) * kItem);
            for (int64_t task = begin; task < end; ++task) {
                const int64_t first = task / groups * together;
                add_up(task % groups, first, std::min(together, source_.count() - first),
                       memory.as<T>());
            }
        });
    }

private:
    static constexpr int64_t kItem = sizeof(T);

    void add_up(int64_t group, int64_t first_row, int64_t count, T* memory) const {
        T* const sums = memory;
        T* const signs = sums + count * kBlock;
        T* const values = signs + kBlock;
        const int64_t components = order_.in_group(group);
        std::array<int64_t, kMostRows> sources;
        std::array<int64_t, kMostRows> targets;
        source_.locate(first_row, count, sources.data(), targets.data());
        std::fill(sums, sums + count * components, T{0});
        InputSigns flips;
        for (int64_t feature = next_feature(sources.data(), count, 0); feature < features_;) {
            const Part part = part_at(first_feature_, feature, features_);
            input_signs(law_.seed, static_cast<uint32_t>(group), part.block, flips);
            output_signs(law_.seed, static_cast<uint64_t>(group * kBlock), components, part.block,
                         signs);
            const auto reach = static_cast<uint64_t>(part.first + part.count);
            const auto stages = static_cast<int>(std::bit_width(reach - 1));
            for (int64_t i = 0; i < count; ++i) {
                if (!transform(part, stages, sources[static_cast<size_t>(i)], flips, values))
                    continue;
                kernels_.sample(values, order_.of(group), (1 << stages) - 1, signs, components,
                                sums + i * components);
            }
            feature = next_feature(sources.data(), count, part.begin + part.count);
        }
        for (int64_t i = 0; i < count; ++i) {
            store_line(sums + i * components, components, law_.scale, out_,
                       targets[static_cast<size_t>(i)], group * kBlock);
        }
    }

    // Where the block begins that holds the first feature from `from` on that some row may have.
    int64_t next_feature(const int64_t* sources, int64_t count, int64_t from) const {
        int64_t found = features_;
        for (int64_t i = 0; i < count && found > from; ++i)
            found = std::min(found, source_.first_from(sources[i], from));
        if (found == features_) return features_;
        const auto within = static_cast<int64_t>((first_feature_ + static_cast<uint64_t>(found)) %
                                                 static_cast<uint64_t>(kBlock));
        return std::max(from, found - within);
    }

    // The features of one row that lie in a block, signs and transform; false where all are 0. What
    // is not there is zeros, and a zero changes no sum: hence the shortest transform that holds the
    // features, of which row r of the whole one is row r modulo its length.
    bool transform(const Part& part, int stages, int64_t row, const InputSigns& flips,
                   T* values) const {
        const int64_t length = int64_t{1} << stages;
        const T* const there = source_.in_place(row, part);
        if (there != nullptr && part.count == length && length >= 32) {
            kernels_.rows(there, length, values, length, 1, stages, nullptr, flips.data());
            return true;
        }
        if (!source_.read(row, part, values + part.first)) return false;
        std::fill(values, values + part.first, T{0});
        std::fill(values + part.first + part.count, values + length, T{0});
        kernels_.flip(values, values, length, flips.data());
        kernels_.rows(values, length, values, length, 1, stages, nullptr, nullptr);
        return true;
    }

    const Source& source_;
    const Law& law_;
    uint64_t first_feature_;
    const Tensor& out_;
    const TransformKernels& kernels_;
    int64_t features_;
    int64_t components_;
    Order order_;
};

// The transpose: whole blocks of features, of which every group of components gives a part.
template <class T>
class Adjoint {
public:
    Adjoint(const ConstTensor& y, const Law& law, uint64_t first_feature, const Tensor& out)
        : rows_(y, out),
          law_(law),
          first_feature_(first_feature),
          out_(out),
          kernels_(*active_projection_transform_kernels().transform[DtypeOf<T>::value]),
          features_(out.shape[out.rank - 1]),
          components_(y.shape[y.rank - 1]),
          order_(law.seed, components_) {}

    void run() {
        const auto skipped = static_cast<int64_t>(first_feature_ % kBlock);
        const int64_t blocks = ceil_div(skipped + features_, kBlock);
        const int64_t together = std::clamp<int64_t>(rows_.count(), 1, kMostRows);
        const int64_t chunks = ceil_div(rows_.count(), together);
        parallel_for(chunks * blocks, 1, [&](int64_t begin, int64_t end) {
            const Scratch memory(kBlock * (together + 2) * static_cast<int64_t>(sizeof(T)));
            for (int64_t task = begin; task < end; ++task) {
                const int64_t first = task / blocks * together;
                const int64_t feature = std::max<int64_t>(0, task % blocks * kBlock - skipped);
                add_up(part_at(first_feature_, feature, features_), first,
                       std::min(together, rows_.count() - first), memory.as<T>());
            }
        });
    }

private:
    // Always the whole transform: a shorter one would add in another order, and the bits of a
    // feature would depend on those beside it.
    void add_up(const Part& part, int64_t first_row, int64_t count, T* memory) const {
        T* const sums = memory;
        T* const signs = sums + count * kBlock;
        T* const values = signs + kBlock;
        std::array<int64_t, kMostRows> sources;
        std::array<int64_t, kMostRows> targets;
        rows_.locate(first_row, count, sources.data(), targets.data());
        std::fill(sums, sums + count * kBlock, T{0});
        InputSigns flips;
        std::array<T, kBlock> given;
        for (int64_t group = 0; group * kBlock < components_; ++group) {
            const int64_t components = order_.in_group(group);
            const int32_t* const order = order_.of(group);
            input_signs(law_.seed, static_cast<uint32_t>(group), part.block, flips);
            output_signs(law_.seed, static_cast<uint64_t>(group * kBlock), components, part.block,
                         signs);
            for (int64_t i = 0; i < count; ++i) {
                rows_.read(sources[static_cast<size_t>(i)], {0, group * kBlock, 0, components},
                           given.data());
                std::fill(values, values + kBlock, T{0});
                for (int64_t n = 0; n < components; ++n)
                    values[order[n]] = signs[n] * given[static_cast<size_t>(n)];
                kernels_.rows(values, kBlock, values, kBlock, 1, kBlockStages, nullptr, nullptr);
                kernels_.flip(values, values, kBlock, flips.data());
                T* const sum = sums + i * kBlock;
                for (int64_t j = 0; j < kBlock; ++j) sum[j] += values[j];
            }
        }
        for (int64_t i = 0; i < count; ++i) {
            store_line(sums + i * kBlock + part.first, part.count, law_.scale, out_,
                       targets[static_cast<size_t>(i)], part.begin);
        }
    }

    DenseRows<T> rows_;
    const Law& law_;
    uint64_t first_feature_;
    const Tensor& out_;
    const TransformKernels& kernels_;
    int64_t features_;
    int64_t components_;
    Order order_;
};

}  // namespace

void project_srht(const ConstTensor& x, const Law& law, uint64_t first_feature, const Tensor& out) {
    if (out.size() == 0) return;
    const auto run = [&]<class T>() {
        const DenseRows<T> rows(x, out);
        Sketch<T, DenseRows<T>>(rows, law, first_feature, out).run();
    };
    computed_in_float(x.dtype) ? run.operator()<float>() : run.operator()<double>();
}

void project_srht(const Csr& x, const Law& law, uint64_t first_feature, const Tensor& out) {
    if (out.size() == 0) return;
    dispatch<float, double>(x.values.dtype, [&]<class T>() {
        const SparseRows<T> rows(x, out);
        Sketch<T, SparseRows<T>>(rows, law, first_feature, out).run();
    });
}

void back_project_srht(const ConstTensor& y, const Law& law, uint64_t first_feature,
                       const Tensor& out) {
    if (out.size() == 0) return;
    const auto run = [&]<class T>() { Adjoint<T>(y, law, first_feature, out).run(); };
    computed_in_float(y.dtype) ? run.operator()<float>() : run.operator()<double>();
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
