#include <type_traits>
#include <utility>

#include "core/simd.hpp"
#include "projection/streams.hpp"
#include "projection/transform_kernels.hpp"
#include "projection/widen.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

using projection::kScaleStages;
using projection::kSignBlockRoom;
using projection::TransformKernels;

constexpr int log2_of(int64_t value) { return value <= 1 ? 0 : 1 + log2_of(value / 2); }

// Stages inside a vector.
template <class T>
constexpr int kLaneStages = log2_of(kLanes<T>);
// Most stages of one pass over vectors. Eight vectors are alive: 16 registers hold them without
// spilling, and 8 lines at a distance of 4 KiB are what one set of a first cache has room for.
constexpr int kPassStages = 3;
// A row whose first stages stay in the first cache: 16 KiB.
template <class T>
constexpr int kNearStages = log2_of((16 << 10) / sizeof(T));

// --- Butterflies in registers ---

// Of a lane and its partner the lower takes a + b, the upper a - b: b's sign is turned by an exact
// product, so that fusing changes nothing.
template <class T, int stage, int... lane>
SLIPSTICK_INLINE Vec<T> lane_stage(Vec<T> x, std::integer_sequence<int, lane...>) {
    constexpr int stride = 1 << stage;
    const Vec<T> partner = __builtin_shufflevector(x, x, (lane ^ stride)...);
    const Vec<T> signs = {((lane & stride) != 0 ? T{-1} : T{1})...};
    return mul_add(x, signs, partner);
}

template <class T, int stages>
SLIPSTICK_INLINE Vec<T> lane_stages(Vec<T> x) {
    constexpr std::make_integer_sequence<int, kLanes<T>> all{};
    if constexpr (stages > 0 && kLaneStages<T> > 0) x = lane_stage<T, 0>(x, all);
    if constexpr (stages > 1 && kLaneStages<T> > 1) x = lane_stage<T, 1>(x, all);
    if constexpr (stages > 2 && kLaneStages<T> > 2) x = lane_stage<T, 2>(x, all);
    if constexpr (stages > 3 && kLaneStages<T> > 3) x = lane_stage<T, 3>(x, all);
    return x;
}

// Stages over 2^stages vectors. The first has a number that is `phase` modulo kScaleStages.
template <class T, int stages, int phase, bool scaled>
SLIPSTICK_INLINE void butterflies(Vec<T>* v, Vec<T> scale) {
    constexpr int count = 1 << stages;
#pragma GCC unroll 4
    for (int stage = 0; stage < stages; ++stage) {
        if (scaled && (phase + stage) % kScaleStages == 0) {
#pragma GCC unroll 8
            for (int i = 0; i < count; ++i) v[i] *= scale;
        }
        const int stride = 1 << stage;
#pragma GCC unroll 8
        for (int i = 0; i < count; ++i) {
            if ((i & stride) != 0) continue;
            const Vec<T> a = v[i];
            const Vec<T> b = v[i + stride];
            v[i] = a + b;
            v[i + stride] = a - b;
        }
    }
}

template <class T>
SLIPSTICK_INLINE Vec<typename BitsOf<T>::Unsigned> lane_bits() {
    using Lane = typename BitsOf<T>::Unsigned;
    Vec<Lane> bits;
    for (int lane = 0; lane < kLanes<T>; ++lane) bits[lane] = Lane{1} << lane;
    return bits;
}

// x, turned over where bit `first` + lane of `signs` is 1; `first` is a multiple of the lanes.
template <class T>
SLIPSTICK_INLINE Vec<T> flipped(Vec<T> x, const uint32_t* signs, int64_t first,
                                Vec<typename BitsOf<T>::Unsigned> lane_bit) {
    using Lane = typename BitsOf<T>::Unsigned;
    const Vec<Lane> bits = broadcast(Lane{signs[first / 32] >> (first % 32)});
    const Vec<Lane> sign = bit_cast<Vec<Lane>>(broadcast(static_cast<T>(-0.0)));
    return bit_cast<Vec<T>>(bit_cast<Vec<Lane>>(x) ^ ((bits & lane_bit) == 0 ? Vec<Lane>{} : sign));
}

// --- Passes over memory ---

// The lanes' stages and `stages` more of `blocks` runs of 2^stages vectors. The signs begin anew
// every `period` runs.
template <class T, int stages, bool scaled, bool with_signs>
void first_pass(const T* source, T* target, int64_t blocks, const double* scales,
                const uint32_t* signs, int64_t period) {
    constexpr int count = 1 << stages;
    constexpr int lanes = kLanes<T>;
    constexpr bool second_scale = kLaneStages<T> + stages > kScaleStages;
    const Vec<T> scale0 = broadcast(scaled ? static_cast<T>(scales[0]) : T{1});
    const Vec<T> scale1 = broadcast(scaled && second_scale ? static_cast<T>(scales[1]) : T{1});
    const auto lane_bit = lane_bits<T>();
    int64_t place = 0;
    for (int64_t block = 0; block < blocks; ++block) {
        Vec<T> v[count];
#pragma GCC unroll 8
        for (int i = 0; i < count; ++i) {
            v[i] = load<Vec<T>>(source + i * lanes);
            if constexpr (with_signs)
                v[i] = flipped<T>(v[i], signs, (place * count + i) * lanes, lane_bit);
            if constexpr (scaled) v[i] *= scale0;
            v[i] = lane_stages<T, kLaneStages<T>>(v[i]);
        }
        butterflies<T, stages, kLaneStages<T> % kScaleStages, scaled>(v, scale1);
#pragma GCC unroll 8
        for (int i = 0; i < count; ++i) store(target + i * lanes, v[i]);
        source += count * lanes;
        target += count * lanes;
        if constexpr (with_signs) place = place + 1 == period ? 0 : place + 1;
    }
}

// Stages down `columns` columns (a multiple of the lanes) of a matrix of 2^log2rows rows: those of
// row distances 2^first, ..., 2^(first + stages - 1).
template <class T, int stages, int phase, bool scaled>
void pass(T* data, int64_t row_stride, int64_t columns, int log2rows, int first, double scale) {
    constexpr int count = 1 << stages;
    const Vec<T> factor = broadcast(static_cast<T>(scale));
    const int64_t rows = int64_t{1} << log2rows;
    const int64_t step = row_stride << first;
    for (int64_t base = 0; base < rows; base += int64_t{count} << first) {
        for (int64_t row = base; row < base + (int64_t{1} << first); ++row) {
            T* const line = data + row * row_stride;
            for (int64_t j = 0; j < columns; j += kLanes<T>) {
                Vec<T> v[count];
#pragma GCC unroll 8
                for (int i = 0; i < count; ++i) v[i] = load<Vec<T>>(line + i * step + j);
                butterflies<T, stages, phase, scaled>(v, factor);
#pragma GCC unroll 8
                for (int i = 0; i < count; ++i) store(line + i * step + j, v[i]);
            }
        }
    }
}

template <class T>
using PassFn = void (*)(T*, int64_t, int64_t, int, int, double);
template <class T, int... index>
constexpr PassFn<T> scaled_pass(int which, std::integer_sequence<int, index...>) {
    constexpr PassFn<T> table[] = {
        &pass<T, index / kScaleStages + 1, index % kScaleStages, true>...};
    return table[which];
}
template <class T, int... index>
constexpr PassFn<T> plain_pass(int which, std::integer_sequence<int, index...>) {
    constexpr PassFn<T> table[] = {&pass<T, index + 1, 0, false>...};
    return table[which];
}

// All stages of a matrix of compact or distant rows, in as few passes as there must be. The first
// has the number first_stage.
template <class T>
void run_passes(T* data, int64_t row_stride, int64_t columns, int log2rows, int first_stage,
                const double* scales) {
    for (int done = 0; done < log2rows;) {
        const int passes = (log2rows - done + kPassStages - 1) / kPassStages;
        const int stages = (log2rows - done + passes - 1) / passes;
        const int stage = first_stage + done;
        PassFn<T> run;
        double scale = 1;
        if (scales == nullptr) {
            run = plain_pass<T>(stages - 1, std::make_integer_sequence<int, kPassStages>{});
        } else {
            run = scaled_pass<T>((stages - 1) * kScaleStages + stage % kScaleStages,
                                 std::make_integer_sequence<int, kPassStages * kScaleStages>{});
            const int group = (stage + kScaleStages - 1) / kScaleStages;
            if (group * kScaleStages < stage + stages) scale = scales[group];  // it begins here
        }
        run(data, row_stride, columns, log2rows, done, scale);
        done += stages;
    }
}

// --- Rows ---

constexpr int kFirstStages = 3;  // beyond the lanes': 8 vectors

template <class T>
void run_first(int stages, const T* source, T* target, int64_t blocks, const double* scales,
               const uint32_t* signs, int64_t period) {
    const auto run = [&]<int s>() {
        if (signs != nullptr) {
            (scales != nullptr
                 ? &first_pass<T, s, true, true>
                 : &first_pass<T, s, false, true>)(source, target, blocks, scales, signs, period);
        } else {
            (scales != nullptr
                 ? &first_pass<T, s, true, false>
                 : &first_pass<T, s, false, false>)(source, target, blocks, scales, signs, period);
        }
    };
    switch (stages) {
        case 0:
            return run.template operator()<0>();
        case 1:
            return run.template operator()<1>();
        case 2:
            return run.template operator()<2>();
        default:
            return run.template operator()<3>();
    }
}

// Rows shorter than a vector: the first stages of a vector are those of all the rows in it.
template <class T>
void short_rows(const T* source, int64_t source_stride, T* target, int64_t target_stride,
                int64_t count, int log2n, const double* scales) {
    const Vec<T> scale = broadcast(scales != nullptr ? static_cast<T>(scales[0]) : T{1});
    const int64_t n = int64_t{1} << log2n;
    const auto transformed = [&](Vec<T> x) {
        x *= scale;
        if (log2n == 1) return lane_stages<T, 1>(x);
        if (log2n == 2) return lane_stages<T, 2>(x);
        return log2n == 3 ? lane_stages<T, 3>(x) : x;
    };
    int64_t row = 0;
    if (source_stride == n && target_stride == n) {
        const int64_t together = kLanes<T> >> log2n;
        for (; row + together <= count; row += together)
            store(target + row * n, transformed(load<Vec<T>>(source + row * n)));
    }
    for (; row < count; ++row) {
        Vec<T> x{};
        for (int64_t i = 0; i < n; ++i) x[i] = source[row * source_stride + i];
        x = transformed(x);
        for (int64_t i = 0; i < n; ++i) target[row * target_stride + i] = x[i];
    }
}

template <class T>
void rows(const void* source_data, int64_t source_stride, void* target_data, int64_t target_stride,
          int64_t count, int log2n, const double* scales, const uint32_t* signs) {
    const auto* source = static_cast<const T*>(source_data);
    auto* target = static_cast<T*>(target_data);
    constexpr int lane_stages = kLaneStages<T>;
    if (log2n < lane_stages) {
        short_rows(source, source_stride, target, target_stride, count, log2n, scales);
        return;
    }
    const int64_t n = int64_t{1} << log2n;
    if (log2n <= lane_stages + kFirstStages) {
        const int stages = log2n - lane_stages;
        if (source_stride == n && target_stride == n) {
            run_first(stages, source, target, count, scales, signs, 1);
            return;
        }
        for (int64_t row = 0; row < count; ++row) {
            run_first(stages, source + row * source_stride, target + row * target_stride, 1, scales,
                      signs, 1);
        }
        return;
    }
    const int most = log2n <= kNearStages<T> ? log2n : log2n - kPassStages;
    const int near = most < kNearStages<T> ? most : kNearStages<T>;
    constexpr int first_log2 = lane_stages + kFirstStages;
    for (int64_t row = 0; row < count; ++row) {
        const T* const from = source + row * source_stride;
        T* const to = target + row * target_stride;
        for (int64_t begin = 0; begin < n; begin += int64_t{1} << near) {
            run_first(kFirstStages, from + begin, to + begin, int64_t{1} << (near - first_log2),
                      scales, signs == nullptr ? nullptr : signs + begin / 32,
                      int64_t{1} << (near - first_log2));
            run_passes(to + begin, int64_t{1} << first_log2, int64_t{1} << first_log2,
                       near - first_log2, first_log2, scales);
        }
        run_passes(to, int64_t{1} << near, int64_t{1} << near, log2n - near, near, scales);
    }
}

// --- Columns ---

template <class T>
SLIPSTICK_INLINE void copy_row(const T* source, T* target, int64_t count) {
    int64_t j = 0;
    for (; j + kLanes<T> <= count; j += kLanes<T>) store(target + j, load<Vec<T>>(source + j));
    for (; j < count; ++j) target[j] = source[j];
}

template <class T>
void columns(const void* source_data, int64_t source_stride, void* target_data,
             int64_t target_stride, int64_t count, int log2rows, int first_stage,
             const double* scales, void* scratch_data) {
    const auto* source = static_cast<const T*>(source_data);
    auto* target = static_cast<T*>(target_data);
    auto* scratch = static_cast<T*>(scratch_data);
    const int64_t width = (count + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
    const int64_t n = int64_t{1} << log2rows;
    for (int64_t i = 0; i < n; ++i) {
        copy_row(source + i * source_stride, scratch + i * width, count);
        for (int64_t j = count; j < width; ++j) scratch[i * width + j] = 0;
    }
    run_passes(scratch, width, width, log2rows, first_stage, scales);
    for (int64_t i = 0; i < n; ++i)
        copy_row(scratch + i * width, target + i * target_stride, count);
}

constexpr int kMixRows = 28;

template <class T>
void mix(void* data_pointer, int64_t columns, int count, const void* sign_matrix) {
    constexpr int together = 4;  // results, which 12, 20 and 28 are multiples of
    constexpr int vectors = 2;
    constexpr int width = vectors * kLanes<T>;
    auto* data = static_cast<T*>(data_pointer);
    const auto* signs = static_cast<const T*>(sign_matrix);
    for (int64_t j = 0; j < columns; j += width) {
        const int64_t used = columns - j < width ? columns - j : width;
        const bool whole = used == width;
        T tile[kMixRows * width];
        for (int i = 0; i < count; ++i) {
            T* const line = tile + i * width;
            if (whole) {
                copy_row(data + i * columns + j, line, width);
            } else {
                for (int k = 0; k < width; ++k) line[k] = k < used ? data[i * columns + j + k] : 0;
            }
        }
        for (int i = 0; i < count; i += together) {
            Vec<T> sums[together][vectors] = {};
            for (int k = 0; k < count; ++k) {
#pragma GCC unroll 2
                for (int v = 0; v < vectors; ++v) {
                    const Vec<T> x = load<Vec<T>>(tile + k * width + v * kLanes<T>);
#pragma GCC unroll 4
                    for (int r = 0; r < together; ++r)
                        sums[r][v] = mul_add(x, broadcast(signs[(i + r) * count + k]), sums[r][v]);
                }
            }
#pragma GCC unroll 4
            for (int r = 0; r < together; ++r) {
                T line[width];
                T* const target = data + (i + r) * columns + j;
#pragma GCC unroll 2
                for (int v = 0; v < vectors; ++v)
                    store((whole ? target : line) + v * kLanes<T>, sums[r][v]);
                if (!whole) copy_row(line, target, used);
            }
        }
    }
}

// --- Signs and samples ---

template <class T>
void flip(const void* source_data, void* target_data, int64_t count, const uint32_t* signs) {
    const auto* source = static_cast<const T*>(source_data);
    auto* target = static_cast<T*>(target_data);
    const auto lane_bit = lane_bits<T>();
    int64_t i = 0;
    for (; i + kLanes<T> <= count; i += kLanes<T>)
        store(target + i, flipped<T>(load<Vec<T>>(source + i), signs, i, lane_bit));
    for (; i < count; ++i)
        target[i] = (signs[i / 32] >> (i % 32) & 1) != 0 ? -source[i] : source[i];
}

template <class T>
void sample(const void* value_data, const int32_t* row_numbers, int32_t mask, const void* sign_data,
            int64_t count, void* sum_data) {
    const auto* values = static_cast<const T*>(value_data);
    const auto* signs = static_cast<const T*>(sign_data);
    auto* sums = static_cast<T*>(sum_data);
    for (int64_t i = 0; i < count; ++i) sums[i] += signs[i] * values[row_numbers[i] & mask];
}

// Blocks in vectors: those at word[w][b] lane l are number (b * kWordLanes + l).
void sign_words(uint64_t seed, uint32_t first_word, uint64_t first, int64_t count, uint32_t tag,
                uint32_t* words) {
    static_assert(kSignBlockRoom % (kSideBySide * kWordLanes) == 0);
    const RoundKeys keys(seed);
    for (int64_t i = 0; i < count; i += kSideBySide * kWordLanes) {
        Words blocks;
        for (int b = 0; b < kSideBySide; ++b) {
            const Word j =
                broadcast(first + static_cast<uint64_t>(i + b * kWordLanes)) + lane_numbers();
            blocks.word[0][b] = broadcast(uint64_t{first_word});
            blocks.word[1][b] = j;
            blocks.word[2][b] = j >> 32;
            blocks.word[3][b] = broadcast(uint64_t{tag});
        }
        philox(blocks, keys);
        for (int word = 0; word < 4; ++word) {
            for (int b = 0; b < kSideBySide; ++b) {
                for (int lane = 0; lane < kWordLanes; ++lane) {
                    words[4 * (i + b * kWordLanes + lane) + word] =
                        static_cast<uint32_t>(blocks.word[word][b][lane]);
                }
            }
        }
    }
}

// --- Elements ---

template <class T>
void read(const void* source_data, int64_t stride, int64_t count, void* target_data) {
    const auto* source = static_cast<const T*>(source_data);
    auto* target = static_cast<SumOf<T>*>(target_data);
    int64_t i = 0;
    if constexpr (std::is_same_v<T, Float16> || std::is_same_v<T, BFloat16>) {
        for (; stride == 1 && i + kLanes<float> <= count; i += kLanes<float>) {
            const auto pattern = load<VecLike<uint16_t, float>>(source + i);
            store(target + i, widen(zero_extend(pattern), T{}));
        }
    } else if constexpr (std::is_same_v<T, SumOf<T>>) {
        if (stride == 1) {
            copy_row(source, target, count);
            return;
        }
    }
    for (; i < count; ++i) target[i] = widened(source[i * stride]);
}

template <class T>
void write(const void* source_data, void* target_data, int64_t stride, int64_t count) {
    const auto* source = static_cast<const SumOf<T>*>(source_data);
    auto* target = static_cast<T*>(target_data);
    int64_t i = 0;
    if constexpr (std::is_same_v<T, SumOf<T>>) {
        if (stride == 1) {
            copy_row(source, target, count);
            return;
        }
        for (; i < count; ++i) target[i * stride] = source[i];
    } else {
        for (; stride == 1 && i + kLanes<float> <= count; i += kLanes<float>)
            store(target + i, narrow(load<Vec<float>>(source + i), T{}));
        for (; i < count; ++i) {
            if constexpr (std::is_same_v<T, Float16>) {
                target[i * stride] = to_float16(source[i]);
            } else {
                target[i * stride] = to_bfloat16(source[i]);
            }
        }
    }
}

template <class T>
constexpr TransformKernels kTransform = {
    .rows = &rows<T>,
    .columns = &columns<T>,
    .mix = &mix<T>,
    .flip = &flip<T>,
    .sample = &sample<T>,
    .lanes = kLanes<T>,
};

}  // namespace

const projection::TransformTable projection_transform_kernels = {
    .transform =
        every_dtype<const TransformKernels*>([]<class T>() { return &kTransform<SumOf<T>>; }),
    .read = every_dtype<projection::ReadFn>([]<class T>() { return &read<T>; }),
    .write = make_per_dtype<projection::WriteFn, float, double, Float16, BFloat16>(
        []<class T>() { return &write<T>; }),
    .sign_words = &sign_words,
};

}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
