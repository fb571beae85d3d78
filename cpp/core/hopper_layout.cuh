// What boxes of tensors and matrices of products look like on compute capability 9.0, in shared
// memory and to the instructions of hopper.cuh: definitions that an emulation of those shares.
#pragma once

#include <cstdint>

#include "core/cuda.cuh"
#include "core/dtype.hpp"

namespace slipstick::cuda {

// Of shared memory, in the window of the block.
__device__ uint32_t shared_address(const void* pointer);

// --- Boxes of a tensor ---
//
// A tensor has four axes, the first contiguous; a box is a part of it, which the copy engine puts
// into shared memory row by row, with zeros for what lies outside of the tensor. Its rows are 128
// bytes (64 elements), and swizzled: the 16-byte piece number i of the row at a multiple of 128
// bytes, number r = (address / 128) % 8, lies at place i ^ r. Boxes start at multiples of 1024.

inline constexpr int kBoxColumns = 64;  // of 16 bits
inline constexpr int64_t kTensorMapAlignment = 16;

struct TensorShape {
    const void* data;
    Dtype dtype;         // float16 or bfloat16
    int64_t lengths[4];  // columns, rows and two more axes; each at least 1
    int64_t steps[3];    // in bytes, of all but the columns: multiples of 16, at least 16
    int box_rows;        // at most 256; the box has length 1 in the last two axes
};

// Whether the driver and the copy engine take such a tensor.
inline bool fits_tensor_map(const TensorShape& shape) {
    bool fits = reinterpret_cast<uintptr_t>(shape.data) % kTensorMapAlignment == 0;
    for (const int64_t length : shape.lengths) fits &= length >= 1 && length <= int64_t{1} << 31;
    for (const int64_t step : shape.steps) {
        fits &= step >= kTensorMapAlignment && step % kTensorMapAlignment == 0 &&
                step < int64_t{1} << 40;
    }
    return fits;
}

// --- Matrices of a warpgroup's products ---
//
// They are made of the copy engine's boxes: rows of 64 elements, swizzled. The
// hardware computes an element's address as if nothing were swizzled, and exchanges bits 4 to 6 for
// themselves ^ bits 7 to 9: so a matrix may start at a 32-byte piece of a row, or 8 rows further.
//   along the depth (K-major): rows are A's rows or B's columns, 16 neighbours of the 64 the depth.
//     8 rows take 1024 bytes, the stride offset. The leading offset is not used.
//   across it (MN-major): rows are the depth, and 64 neighbours are B's columns. 8 rows of the
//     depth to the next 8 are the stride offset, 1024; 64 columns to the next 64 the leading one.
// A descriptor is, from bit 0, the start / 16 (14 bits), from bit 16 the leading offset / 16, from
// bit 32 the stride offset / 16, from bit 62 the swizzle: 1 is 128 bytes.

using Matrix = uint64_t;

__device__ inline Matrix matrix(const void* start, uint32_t leading_bytes) {
    constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
    constexpr uint64_t kStride = 1024 / 16;
    return kSwizzle128 | kStride << 32 | static_cast<uint64_t>(leading_bytes / 16) << 16 |
           (shared_address(start) & 0x3ffff) / 16;
}
__device__ inline Matrix matrix_along_depth(const void* start) { return matrix(start, 16); }
__device__ inline Matrix matrix_across_depth(const void* start, uint32_t panel_bytes) {
    return matrix(start, panel_bytes);
}
// The matrix that starts so many bytes further, a multiple of 16.
__device__ inline Matrix advance(Matrix matrix, uint32_t bytes) { return matrix + bytes / 16; }

}  // namespace slipstick::cuda
