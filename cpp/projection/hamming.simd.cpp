#include "core/lane_bits.hpp"
#include "projection/hamming_kernels.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

using projection::Hits;
using projection::kByteGroups;
using projection::kNibbleGroup;
using projection::kScanCodes;

// --- Word by word ---

SLIPSTICK_INLINE uint64_t word_at(const uint8_t* source) {
    uint64_t word;
    __builtin_memcpy(&word, source, sizeof word);
    return word;
}

SLIPSTICK_INLINE int bits_of(uint64_t word) { return __builtin_popcountll(word); }

// `words` > 0: their number, known to the compiler.
template <int words>
SLIPSTICK_INLINE int32_t distance_of(const uint8_t* a, const uint8_t* b, int64_t bytes) {
    int32_t total = 0;
    if constexpr (words > 0) {
#pragma GCC unroll 8
        for (int w = 0; w < words; ++w) total += bits_of(word_at(a + 8 * w) ^ word_at(b + 8 * w));
    } else {
        int64_t i = 0;
        for (; i + 8 <= bytes; i += 8) total += bits_of(word_at(a + i) ^ word_at(b + i));
        for (; i < bytes; ++i) total += bits_of(static_cast<uint64_t>(a[i] ^ b[i]));
    }
    return total;
}

template <int words>
void distances_of(const uint8_t* a, int64_t a_stride, const uint8_t* b, int64_t b_stride,
                  int64_t bytes, int64_t count, int32_t* out, int64_t out_stride) {
    for (int64_t i = 0; i < count; ++i)
        out[i * out_stride] = distance_of<words>(a + i * a_stride, b + i * b_stride, bytes);
}

void distances(const uint8_t* a, int64_t a_stride, const uint8_t* b, int64_t b_stride,
               int64_t bytes, int64_t count, int32_t* out, int64_t out_stride) {
    const auto run = [&]<int words>() {
        distances_of<words>(a, a_stride, b, b_stride, bytes, count, out, out_stride);
    };
    switch (bytes) {
        case 8:
            return run.template operator()<1>();
        case 16:
            return run.template operator()<2>();
        case 32:
            return run.template operator()<4>();
        case 64:
            return run.template operator()<8>();
        default:
            return run.template operator()<0>();
    }
}

// --- Nibbles of many codes side by side ---

typedef uint8_t Sixteen __attribute__((vector_size(16)));

// 16 rows of 16 bytes transposed: four times the same perfect shuffle of the 256 bytes.
SLIPSTICK_INLINE void transpose_bytes(Sixteen (&row)[16]) {
    for (int round = 0; round < 4; ++round) {
        Sixteen step[16];
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) {
            step[2 * i] = __builtin_shufflevector(row[i], row[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4,
                                                  20, 5, 21, 6, 22, 7, 23);
            step[2 * i + 1] = __builtin_shufflevector(row[i], row[i + 8], 8, 24, 9, 25, 10, 26, 11,
                                                      27, 12, 28, 13, 29, 14, 30, 15, 31);
        }
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i) row[i] = step[i];
    }
}

void transpose(const uint8_t* codes, int64_t code_stride, int64_t bytes, int64_t count,
               uint8_t* nibbles) {
    for (int64_t first = 0; first < kScanCodes; first += 16) {
        for (int64_t byte = 0; byte < bytes; byte += 16) {
            const int64_t length = bytes - byte < 16 ? bytes - byte : 16;
            Sixteen row[16] = {};
            for (int64_t i = 0; i < 16 && first + i < count; ++i) {
                const uint8_t* source = codes + (first + i) * code_stride + byte;
                if (length == 16) {
                    row[i] = load<Sixteen>(source);
                } else {
                    __builtin_memcpy(&row[i], source, static_cast<uint64_t>(length));
                }
            }
            transpose_bytes(row);
            for (int64_t i = 0; i < length; ++i) {
                uint8_t* target = nibbles + 2 * (byte + i) * kScanCodes + first;
                store(target, row[i] & uint8_t{15});
                store(target + kScanCodes, row[i] >> 4);
            }
        }
    }
}

// --- Scans ---

// Four vectors of codes a time: eight sums and three tables of the sixteen registers.
constexpr int kScanVectors = 4;
constexpr int kScanStep = kScanVectors * kVectorBytes;
static_assert(kScanCodes % kScanStep == 0);

// The 16 bytes again and again, in registers: by way of memory every load would wait for its store.
SLIPSTICK_INLINE Vec<uint8_t> table_at(const uint8_t* source) {
    const auto bytes = load<Sixteen>(source);
    if constexpr (kVectorBytes == 16) {
        return bit_cast<Vec<uint8_t>>(bytes);
    } else {
        typedef unsigned __int128 Whole;
        return bit_cast<Vec<uint8_t>>(bit_cast<Whole>(bytes) - Vec<Whole>{});
    }
}

// The sums of `groups` groups, modulo 256, for query 0 and 1 and a step of codes.
SLIPSTICK_INLINE void sum_groups(const uint8_t* nibbles, int64_t groups, const uint8_t* tables,
                                 Vec<uint8_t> (&sums)[2][kScanVectors]) {
    const Vec<uint8_t> low_half = broadcast(uint8_t{15});
    Vec<uint8_t> both[kScanVectors] = {};   // query 0 + 16 * query 1
    Vec<uint8_t> upper[kScanVectors] = {};  // query 1
#pragma GCC unroll 1
    for (int64_t g = 0; g < groups; ++g) {
        const uint8_t* nibble = nibbles + g * kNibbleGroup * kScanCodes;
        const uint8_t* entries = tables + g * kNibbleGroup * 16;
        const Vec<uint8_t> table[kNibbleGroup] = {table_at(entries), table_at(entries + 16),
                                                  table_at(entries + 32)};
#pragma GCC unroll 4
        for (int v = 0; v < kScanVectors; ++v) {
            const uint8_t* lane = nibble + v * kVectorBytes;
            const Vec<uint8_t> sum = lookup(table[0], load<Vec<uint8_t>>(lane)) +
                                     lookup(table[1], load<Vec<uint8_t>>(lane + kScanCodes)) +
                                     lookup(table[2], load<Vec<uint8_t>>(lane + 2 * kScanCodes));
            both[v] += sum;
            upper[v] += bit_cast<Vec<uint8_t>>(bit_cast<Vec<uint16_t>>(sum) >> 4) & low_half;
        }
    }
#pragma GCC unroll 4
    for (int v = 0; v < kScanVectors; ++v) {
        // 16 * upper modulo 256: its lower halves, shifted within pairs of bytes.
        sums[0][v] =
            both[v] - bit_cast<Vec<uint8_t>>(bit_cast<Vec<uint16_t>>(upper[v] & low_half) << 4);
        sums[1][v] = upper[v];
    }
}

bool scan(const uint8_t* nibbles, int64_t groups, const uint8_t* tables, const int32_t* limits,
          uint8_t* distances, Hits& hits) {
    Vec<uint8_t> limit[2];
    for (int query = 0; query < 2; ++query) {
        // A negative limit lets 0 through: the caller looks at each hit again.
        const int32_t clipped = limits[query] < 0 ? 0 : limits[query] > 255 ? 255 : limits[query];
        limit[query] = broadcast(static_cast<uint8_t>(clipped));
    }
    hits = {};
    bool found = false;
    for (int64_t first = 0; first < kScanCodes; first += kScanStep) {
        Vec<uint8_t> sums[2][kScanVectors];
        sum_groups(nibbles + first, groups, tables, sums);
        for (int query = 0; query < 2; ++query) {
            auto within = sums[query][0] <= limit[query];
            for (int v = 1; v < kScanVectors; ++v) within |= sums[query][v] <= limit[query];
            if (!any(within)) continue;
            found = true;
            for (int v = 0; v < kScanVectors; ++v) {
                const int64_t code = first + v * kVectorBytes;
                store(distances + query * kScanCodes + code, sums[query][v]);
                hits.bits[query][code / 64] |= lane_bits(sums[query][v] <= limit[query])
                                               << (code % 64);
            }
        }
    }
    return found;
}

bool scan_wide(const uint8_t* nibbles, int64_t groups, const uint8_t* tables, const int32_t* limits,
               uint16_t* distances, Hits& hits) {
    constexpr int lanes = kLanes<uint16_t>;
    for (int64_t i = 0; i < 2 * kScanCodes; ++i) distances[i] = 0;
    const int64_t segments = (groups + kByteGroups - 1) / kByteGroups;
    for (int64_t s = 0; s < segments; ++s) {
        const int64_t begin = s * groups / segments;  // parts of at most kByteGroups, all but equal
        const int64_t end = (s + 1) * groups / segments;
        for (int64_t first = 0; first < kScanCodes; first += kScanStep) {
            Vec<uint8_t> sums[2][kScanVectors];
            sum_groups(nibbles + begin * kNibbleGroup * kScanCodes + first, end - begin,
                       tables + begin * kNibbleGroup * 16, sums);
            for (int query = 0; query < 2; ++query) {
                uint8_t bytes[kScanStep];
                for (int v = 0; v < kScanVectors; ++v)
                    store(bytes + v * kVectorBytes, sums[query][v]);
                uint16_t* const target = distances + query * kScanCodes + first;
                for (int i = 0; i < kScanStep; ++i)
                    target[i] = static_cast<uint16_t>(target[i] + bytes[i]);
            }
        }
    }
    hits = {};
    bool found = false;
    for (int query = 0; query < 2; ++query) {
        if (limits[query] < 0) continue;
        const int32_t clipped = limits[query] > 65535 ? 65535 : limits[query];
        const Vec<uint16_t> limit = broadcast(static_cast<uint16_t>(clipped));
        for (int64_t code = 0; code < kScanCodes; code += lanes) {
            const uint16_t* line = distances + query * kScanCodes + code;
            if (!any(load<Vec<uint16_t>>(line) <= limit)) continue;
            found = true;
            for (int i = 0; i < lanes; ++i) {
                hits.bits[query][code / 64] |= static_cast<uint64_t>(line[i] <= clipped)
                                               << (code % 64 + i);
            }
        }
    }
    return found;
}

}  // namespace

const projection::HammingKernels hamming_kernels = {
    .distances = &distances,
    .transpose = &transpose,
    .scan = &scan,
    .scan_wide = &scan_wide,
};

}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
