// How vectors of a length are rotated, on any device.
#pragma once

#include <bit>
#include <cstdint>

namespace slipstick::projection {

// The signs of feature j in a round: bit j & 127 of counter (round, low, high half of j >> 7,
// this).
inline constexpr uint32_t kRotateTag = 0x524F5400u;

// d = mixed * 2^p with mixed = 1, 12, 20 or 28, or else two overlapping powers of two.
struct RotationShape {
    int64_t size;
    int mixed = 1;
    int log2n;            // of the transform: p, or of the largest power of two within d
    int64_t overlap = 0;  // where the second transform begins; 0 if there is one alone

    explicit RotationShape(int64_t d) : size(d) {
        const int twos = std::countr_zero(static_cast<uint64_t>(d));
        const int64_t odd = d >> twos;
        if (odd == 1) {
            log2n = twos;
        } else if (twos >= 2 && odd <= 7) {
            mixed = static_cast<int>(4 * odd);
            log2n = twos - 2;
        } else {
            log2n = static_cast<int>(std::bit_width(static_cast<uint64_t>(d))) - 1;
            overlap = d - (int64_t{1} << log2n);
        }
    }
};

// The Hadamard matrix of order 12, 20 or 28 that mixes rows: +1 or -1.
double mixing_entry(int order, int row, int column);

}  // namespace slipstick::projection
