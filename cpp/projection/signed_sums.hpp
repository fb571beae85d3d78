// Sums of numbers times random signs, four features to an addition. Included by *.simd.cpp alone.
//
// Four numbers have sixteen signed sums. A table of them, made once for a row and read by every
// column, turns four products into one load and one addition (the method of the four Russians,
// Arlazarov, Dinic, Kronrod and Faradzhev 1970). The lanes of an entry are rows, so that one
// pattern of signs, the same for all rows, is an address. Bound by two loads a cycle: at 8 lanes 64
// products a cycle, where two fma units make 16.
#pragma once

#include "core/matmul.hpp"
#include "core/transpose.hpp"
#include "projection/kernels.hpp"
#include "projection/streams.hpp"
#include "projection/widen.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

using slipstick::projection::kRademacherTag;

// std::min may leave a function of no level behind.
constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

constexpr int kGroup = projection::kSignGroup;
constexpr int kPatterns = 1 << kGroup;
// Bit i & 127 of the block at counter (i >> 7, lo j, hi j) is the sign of entry (i, j): 128
// components, or features of the adjoint, are made at once. They are a panel, one byte a column and
// group, kPatterns times the pattern: bit f says that feature f of the group is subtracted.
constexpr int kSignColumns = 128;

// Columns come in whole vectors of patterns.
constexpr int kPatternColumns = 16;

// An entry is at most 128 bytes of rows: its address is then the byte times 1, 2, 4 or 8.
constexpr int kMaxEntryVectors = kVectorBytes == 64 ? 2 : 4;
template <class T>
constexpr int kSignRows = kMaxEntryVectors * kLanes<T>;
// The vectors of an entry where `rows` are left.
template <class T>
constexpr int entry_vectors(int64_t rows) {
    if (rows <= kLanes<T>) return 1;
    return rows <= 2 * kLanes<T> ? 2 : kMaxEntryVectors;
}

// --- Patterns ---

// The bytes of 16 columns: bit c of word f becomes bit f of the upper half of byte c.
typedef uint8_t PatternBytes __attribute__((vector_size(kPatternColumns)));
SLIPSTICK_INLINE PatternBytes patterns_of(const uint16_t (&words)[kGroup]) {
    constexpr PatternBytes bit_of_column = {1, 2, 4, 8, 16, 32, 64, 128,
                                            1, 2, 4, 8, 16, 32, 64, 128};
    constexpr uint64_t everywhere = 0x0101010101010101;
    typedef uint64_t Halves __attribute__((vector_size(kPatternColumns)));
    PatternBytes patterns = {};
    for (int f = 0; f < kGroup; ++f) {
        const Halves bytes = {everywhere * (words[f] & 0xff), everywhere * (words[f] >> 8)};
        const uint64_t place = everywhere * (uint64_t{kPatterns} << f);
        const auto is_set = (bit_cast<PatternBytes>(bytes) & bit_of_column) != 0;
        patterns |= bit_cast<PatternBytes>(bit_cast<Halves>(is_set) & Halves{place, place});
    }
    return patterns;
}

// `feature` and `depth` are whole groups.
void generate_patterns(const projection::Law& law, uint64_t feature, uint64_t component,
                       int64_t count, int64_t depth, void* packed) {
    constexpr int64_t strip = 64;  // features whose words wait on the stack: 2 KiB
    static_assert(strip % (kSideBySide * kWordLanes) == 0);
    const RoundKeys keys(law.seed);
    const Word tag = broadcast(uint64_t{kRademacherTag});
    for (int64_t first = 0; first < count; first += kSignColumns) {
        const Word block = broadcast((component + static_cast<uint64_t>(first)) / kSignColumns);
        const int64_t used = smaller(count - first, kSignColumns);
        auto* const panel = static_cast<uint8_t*>(packed) + first * depth;
        for (int64_t k0 = 0; k0 < depth; k0 += strip) {
            const int64_t length = smaller(depth - k0, strip);
            uint64_t words[4][strip];
            for (int64_t k = 0; k < length; k += kSideBySide * kWordLanes) {
                Words blocks;
                for (int b = 0; b < kSideBySide; ++b) {
                    const Word j =
                        broadcast(feature + static_cast<uint64_t>(k0 + k + b * kWordLanes)) +
                        lane_numbers();
                    blocks.word[0][b] = block;
                    blocks.word[1][b] = j;
                    blocks.word[2][b] = j >> 32;
                    blocks.word[3][b] = tag;
                }
                philox(blocks, keys);
                for (int word = 0; word < 4; ++word) {
                    for (int b = 0; b < kSideBySide; ++b)
                        store(words[word] + k + b * kWordLanes, blocks.word[word][b]);
                }
            }
            for (int64_t k = 0; k < length; k += kGroup) {
                uint8_t* const target = panel + (k0 + k) / kGroup * kSignColumns;
                for (int64_t column = 0; column < used; column += kPatternColumns) {
                    uint16_t halves[kGroup];
                    for (int f = 0; f < kGroup; ++f)
                        halves[f] = static_cast<uint16_t>(words[column / 32][k + f] >> column % 32);
                    store(target + column, patterns_of(halves));
                }
            }
        }
    }
}

// The transpose: columns are features, and four components of one lie side by side in its words.
void generate_patterns_adjoint(const projection::Law& law, uint64_t feature, uint64_t component,
                               int64_t count, int64_t depth, void* packed) {
    const RoundKeys keys(law.seed);
    for (int64_t first = 0; first < count; first += kSignColumns) {
        auto* const panel = static_cast<uint8_t*>(packed) + first * depth;
        for (int64_t k0 = 0; k0 < depth; k0 += kSignColumns) {
            PanelWords<kSignColumns> words;
            panel_words(keys, kRademacherTag,
                        (component + static_cast<uint64_t>(k0)) / kSignColumns,
                        feature + static_cast<uint64_t>(first), words);
            for (int64_t k = 0; k < smaller(depth - k0, kSignColumns); k += kGroup) {
                const uint32_t* const word = words.word[k / 32];
                uint8_t* const target = panel + (k0 + k) / kGroup * kSignColumns;
                for (int f = 0; f < kSignColumns; ++f) {
                    target[f] =
                        static_cast<uint8_t>((word[f] >> (k % 32) & (kPatterns - 1)) * kPatterns);
                }
            }
        }
    }
}

// Entries as numbers, in the same panels; any `feature` and `depth`.
void generate_signs(const projection::Law& law, uint64_t feature, uint64_t component, int64_t count,
                    int64_t depth, void* packed) {
    const auto before = static_cast<int64_t>(feature % kGroup);
    const int64_t whole = (before + depth + kGroup - 1) / kGroup * kGroup;
    uint8_t patterns[(kDepthBlock / kGroup + 1) * kSignColumns];
    for (int64_t first = 0; first < count; first += kSignColumns) {
        generate_patterns(law, feature - static_cast<uint64_t>(before),
                          component + static_cast<uint64_t>(first), kSignColumns, whole, patterns);
        double* const panel = static_cast<double*>(packed) + first * depth;
        for (int64_t k = 0; k < depth; ++k) {
            const uint8_t* const source = patterns + (before + k) / kGroup * kSignColumns;
            const int bit = kPatterns << (before + k) % kGroup;
            for (int c = 0; c < kSignColumns; ++c)
                panel[k * kSignColumns + c] = (source[c] & bit) == 0 ? 1.0 : -1.0;
        }
    }
}

// --- The left operand: lanes are rows ---

template <class T>
void pack_sign_rows(const void* source, const int64_t* row_offsets, int64_t depth_stride,
                    int64_t count, const projection::PaddedDepth& depth, void* packed) {
    using Sum = SumOf<T>;
    constexpr int64_t lanes = kLanes<Sum>;
    constexpr int64_t height = kSignRows<Sum>;
    const int64_t padded = depth.before + depth.length + depth.after;
    auto* target = static_cast<Sum*>(packed);
    for (int64_t first = 0; first < count; first += height, target += height * padded) {
        const int64_t used = entry_vectors<Sum>(count - first) * lanes;
        for (int64_t row = 0; row < used; row += lanes) {
            const T* rows[lanes];
            for (int64_t i = 0; i < lanes; ++i) {  // the last row again, where there are no more
                rows[i] = static_cast<const T*>(source) +
                          row_offsets[smaller(first + row + i, count - 1)];
            }
            Sum* const column = target + row;
            for (int64_t k = 0; k < depth.before; ++k) store(column + k * height, Vec<Sum>{});
            const auto exchange = [&](int64_t k, int64_t width, auto read) {
                Vec<Sum> square[lanes];
                for (int64_t i = 0; i < lanes; ++i) square[i] = read(rows[i] + k * depth_stride);
                transpose<Sum>(square);
                for (int64_t i = 0; i < width; ++i)
                    store(column + (depth.before + k + i) * height, square[i]);
            };
            int64_t k = 0;
            if constexpr (std::is_same_v<T, Sum>) {
                // The next rows are asked for while these are exchanged.
                const T* next[lanes];
                for (int64_t i = 0; i < lanes; ++i) {
                    next[i] = static_cast<const T*>(source) +
                              row_offsets[smaller(first + row + lanes + i, count - 1)];
                }
                for (; depth_stride == 1 && k + lanes <= depth.length; k += lanes) {
                    for (int64_t i = 0; i < lanes; ++i) __builtin_prefetch(next[i] + k);
                    exchange(k, lanes, [](const T* numbers) { return load<Vec<T>>(numbers); });
                }
            }
            for (; k < depth.length; k += lanes) {
                const int64_t width = smaller(depth.length - k, lanes);
                exchange(k, width, [&](const T* numbers) {
                    Sum line[lanes] = {};
                    for (int64_t i = 0; i < width; ++i)
                        line[i] = widened(numbers[i * depth_stride]);
                    return load<Vec<Sum>>(line);
                });
            }
            for (k = depth.before + depth.length; k < padded; ++k)
                store(column + k * height, Vec<Sum>{});
        }
    }
}

// --- The product ---

// table[pattern] = ((+-x[0] +- x[1]) +- x[2]) +- x[3]. A pattern and its complement differ in sign.
template <class T, int vectors>
SLIPSTICK_INLINE void make_table(const T* x, T* table) {
    constexpr int lanes = kLanes<T>;
    constexpr int entry = vectors * lanes;
    for (int v = 0; v < entry; v += lanes) {
        Vec<T> number[kGroup];
        for (int f = 0; f < kGroup; ++f) number[f] = load<Vec<T>>(x + f * kSignRows<T> + v);
        Vec<T> sums[kPatterns / 2] = {number[0]};  // of the patterns that add number[0]
#pragma GCC unroll 4
        for (int f = 1, known = 1; f < kGroup; ++f, known *= 2) {
#pragma GCC unroll 4
            for (int p = 0; p < known; ++p) {
                sums[known + p] = sums[p] - number[f];
                sums[p] = sums[p] + number[f];
            }
        }
        for (int p = 0; p < kPatterns / 2; ++p) {
            store(table + 2 * p * entry + v, sums[p]);
            store(table + (kPatterns - 1 - 2 * p) * entry + v, -sums[p]);
        }
    }
}

constexpr int64_t kSignBlock = 256;  // columns that share a table: making it costs 16 of them

// acc (+)= the chains over `depth` of the rows' numbers times the columns' signs. A column's sums
// lie kSignRows apart in acc.
template <class T, int vectors>
void multiply_panel(const T* x, int64_t depth, int64_t columns, const uint8_t* patterns, T* acc,
                    bool accumulate) {
    constexpr int lanes = kLanes<T>;
    constexpr int entry = vectors * lanes;
    constexpr int64_t scale = entry * static_cast<int64_t>(sizeof(T)) / kPatterns;
    constexpr int64_t groups_at_once = 8;         // 16 KiB of tables, half of the first cache
    constexpr int columns_at_once = 8 / vectors;  // eight chains hide the latency of an addition
    alignas(kVectorBytes) T tables[groups_at_once][kPatterns * entry];
    alignas(kVectorBytes) T chains[kSignBlock * entry];  // of the columns, between two tables
    for (int64_t k = 0; k == 0 || k < depth; k += groups_at_once * kGroup) {  // depth 0: zeros
        const int64_t groups = smaller(groups_at_once, (depth - k) / kGroup);
        const bool is_last = k + groups_at_once * kGroup >= depth;
        for (int64_t g = 0; g < groups; ++g)
            make_table<T, vectors>(x + (k + g * kGroup) * kSignRows<T>, tables[g]);
        for (int64_t column = 0; column < columns; column += columns_at_once) {
            const uint8_t* pattern = patterns + column / kSignColumns * kSignColumns * depth +
                                     k / kGroup * kSignColumns + column % kSignColumns;
            T* const waiting = chains + column * entry;
            Vec<T> chain[columns_at_once][vectors] = {};
            const auto for_each_vector = [&](auto body) {
#pragma GCC unroll 8
                for (int c = 0; c < columns_at_once; ++c) {
#pragma GCC unroll 4
                    for (int v = 0; v < vectors; ++v) body(chain[c][v], c, v * lanes);
                }
            };
            if (k > 0) {
                for_each_vector([&](Vec<T>& sum, int c, int row) {
                    sum = load<Vec<T>>(waiting + c * entry + row);
                });
            }
            // Rolled: unrolled, GCC 12 strings the additions of a chain together, and waits.
#pragma GCC unroll 1
            for (int64_t g = 0; g < groups; ++g, pattern += kSignColumns) {
                const auto* const table = reinterpret_cast<const char*>(tables[g]);
                for_each_vector([&](Vec<T>& sum, int c, int row) {
                    sum +=
                        load<Vec<T>>(reinterpret_cast<const T*>(table + pattern[c] * scale) + row);
                });
            }
            T* const target = acc + column * kSignRows<T>;
            if (!is_last) {
                for_each_vector(
                    [&](Vec<T> sum, int c, int row) { store(waiting + c * entry + row, sum); });
            } else if (accumulate) {
                for_each_vector([&](Vec<T> sum, int c, int row) {
                    T* const total = target + c * kSignRows<T> + row;
                    store(total, load<Vec<T>>(total) + sum);
                });
            } else {
                for_each_vector([&](Vec<T> sum, int c, int row) {
                    store(target + c * kSignRows<T> + row, sum);
                });
            }
        }
    }
}

template <class T>
void multiply_signs(const void*, int64_t rows, int64_t depth, int64_t columns, const void* left,
                    const void* right, void* acc, int64_t acc_stride, bool accumulate) {
    constexpr int64_t height = kSignRows<T>;
    for (int64_t column = 0; column < columns; column += kSignBlock) {
        const int64_t width = (smaller(columns - column, kSignBlock) + kPatternColumns - 1) /
                              kPatternColumns * kPatternColumns;
        const auto* const patterns = static_cast<const uint8_t*>(right) + column * depth;
        for (int64_t row = 0; row < rows; row += height) {
            const T* const x = static_cast<const T*>(left) + row * depth;
            T* const sums = static_cast<T*>(acc) + row * acc_stride + column * height;
            switch (entry_vectors<T>(rows - row)) {
                case 1:
                    multiply_panel<T, 1>(x, depth, width, patterns, sums, accumulate);
                    break;
                case 2:
                    multiply_panel<T, 2>(x, depth, width, patterns, sums, accumulate);
                    break;
                default:
                    multiply_panel<T, kMaxEntryVectors>(x, depth, width, patterns, sums,
                                                        accumulate);
            }
        }
    }
}

template <class T>
constexpr MatmulKernel kSignKernel = {
    .multiply = &multiply_signs<T>,
    .tile_rows = kSignRows<T>,
    .tile_columns = kSignColumns,
    .left_bytes = sizeof(T),
    .right_bytes = 1,  // room for a pattern a feature; there is one a group
    .acc_bytes = sizeof(T),
    .acc_rows = kSignRows<T>,
};

}  // namespace
}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
