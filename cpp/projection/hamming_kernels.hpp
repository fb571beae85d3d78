// What a level offers for Hamming distances.
//
// A nibble of a code is looked up in a table of its distances from the nibble of a query: one byte
// shuffle serves a vector of codes. An entry, at most 4, leaves room for that of a second query in
// the upper half of the byte, and three entries for their sum, at most 12: three shuffles for six
// distances a lane, 1.5 instructions where the population count of words takes 3.
#pragma once

#include <cstdint>

#include "core/isa.hpp"

namespace slipstick::cpu::projection {

// Codes that one scan compares with a pair of queries: their nibbles are 16 KiB at 256 bits, half
// of the first cache.
inline constexpr int64_t kScanCodes = 256;
// Nibbles that are added up before the two queries' sums are taken apart.
inline constexpr int64_t kNibbleGroup = 3;
// Groups whose sums fit a byte: 21 * 3 * 4 = 252.
inline constexpr int64_t kByteGroups = 21;
// Codes of at most so many bytes have distances that fit a byte, 256 becoming 0.
inline constexpr int64_t kByteCodeBytes = 32;
// And of so many, distances that fit 16 bits.
inline constexpr int64_t kWideCodeBytes = 8191;

// The codes that a scan found within the limits of query 0 and 1: bit i & 63 of word i >> 6.
struct Hits {
    uint64_t bits[2][kScanCodes / 64];
};

struct HammingKernels {
    // out[i * out_stride] = distance of `bytes` bytes at a + i * a_stride and b + i * b_stride.
    void (*distances)(const uint8_t* a, int64_t a_stride, const uint8_t* b, int64_t b_stride,
                      int64_t bytes, int64_t count, int32_t* out, int64_t out_stride);
    // nibbles[p * kScanCodes + i]: nibble p & 1 of byte p >> 1 of code i, low nibble first, for p
    // below 2 * bytes; 0 for i from `count` on.
    void (*transpose)(const uint8_t* codes, int64_t code_stride, int64_t bytes, int64_t count,
                      uint8_t* nibbles);
    // Distances of kScanCodes codes from two queries: `tables` holds, a nibble, 16 bytes, query 0's
    // distances in the lower half. Returns whether any distance is at most its query's limit, and
    // which. `scan` is for codes up to kByteCodeBytes, its distances are modulo 256.
    bool (*scan)(const uint8_t* nibbles, int64_t groups, const uint8_t* tables,
                 const int32_t* limits, uint8_t* distances, Hits& hits);
    bool (*scan_wide)(const uint8_t* nibbles, int64_t groups, const uint8_t* tables,
                      const int32_t* limits, uint16_t* distances, Hits& hits);
};

}  // namespace slipstick::cpu::projection

namespace slipstick::cpu {
SLIPSTICK_LEVEL_TABLE(projection::HammingKernels, projection_hamming_kernels)
}  // namespace slipstick::cpu
