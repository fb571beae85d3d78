// Where the tile kernel (tile.cuh) finds its operands: matrices of any strides, or the patches of
// an image, brought from global memory into lanes in shared memory.
#pragma once

#include "core/cuda.cuh"
#include "core/dtype.hpp"

namespace slipstick::cuda::mitchell {

// Terms of the sums that a block of threads brings at once.
constexpr int kStep = 8;

// How the threads share an operand's `lines` (rows of the left one, columns of the right one) by
// kStep terms. Each takes four elements; no bank of shared memory is met twice.
enum class Access : uint8_t {
    kPackedDepth,  // four neighbours along k in one load
    kPackedLines,  // four neighbouring lines in one load
    kDepth,        // four along k one by one, neighbouring threads along k too
    kLines,        // four along k one by one, neighbouring threads on neighbouring lines
};

// Where the element of one k lies from where that of a line would lie without it.
struct Tap {
    int64_t offset;  // in elements
    int64_t y, x;
};

struct Operand {
    const void* data;
    int64_t line;  // steps in elements
    int64_t depth;
    Access access;
    const Tap* taps;  // instead of `depth`, or null
    // Of the right operand: line l is the output (l / width, l % width) of a convolution and reads
    // element (y * stride[0] + origin[0] + tap.y, ...) of an image of `size`, zero outside of it;
    // `step` are those of the image's rows and columns. A matrix where width is 0.
    int64_t width;
    int64_t stride[2];
    int64_t origin[2];
    int64_t size[2];
    int64_t step[2];
};

// What a thread holds of an operand between the load and the store of a step.
template <int lines, int threads, bool may_gather>
class Loader {
    static_assert(lines * kStep == 4 * threads);

public:
    // Lines beyond the last repeat it: their sums are not stored.
    __device__ __forceinline__ Loader(const Operand& operand, int item, int64_t batch_offset,
                                      int64_t first, int64_t count) {
        const int thread = static_cast<int>(threadIdx.x);
        if (operand.access == Access::kPackedLines) {
            line_ = thread % (lines / 4) * 4;
            k_ = thread / (lines / 4);
        } else if (operand.access == Access::kLines) {
            line_ = thread % lines;
            k_ = thread / lines * 4;
        } else {
            line_ = thread / 2;
            k_ = thread % 2 * 4;
        }
        int64_t line = first + line_;
        const int64_t last = operand.access == Access::kPackedLines ? count - 4 : count - 1;
        if (line > last) line = last;
        int64_t offset = batch_offset;
        y_ = x_ = 0;
        if (may_gather && operand.width != 0) {
            const int64_t row = line / operand.width;
            y_ = row * operand.stride[0] + operand.origin[0];
            x_ = (line - row * operand.width) * operand.stride[1] + operand.origin[1];
            offset += y_ * operand.step[0] + x_ * operand.step[1];
        } else {
            offset += line * operand.line;
        }
        data_ = static_cast<const char*>(operand.data) + offset * item;
    }

    // The elements of the terms from `k` on; those from `depth` on are not read. Where an element
    // becomes two terms, `halved` is 1.
    __device__ __forceinline__ void load(const Operand& operand, int item, int64_t k, int64_t depth,
                                         int halved) {
        k += k_;
        if (operand.access <= Access::kPackedLines) {
            if (k >= depth) return;
            const char* const source = data_ + k * operand.depth * item;
            if (item == 4) {
                hold(*reinterpret_cast<const Pack<uint32_t, 4>*>(source));
            } else if (item == 2) {
                hold(*reinterpret_cast<const Pack<uint32_t, 2>*>(source));
            } else {
                hold(*reinterpret_cast<const Pack<uint32_t, 1>*>(source));
            }
            return;
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            words_[i] = 0;
            const int64_t element = (k + i) >> halved;
            if (k + i >= depth) continue;
            int64_t offset = element * operand.depth;
            if (operand.taps != nullptr) {
                const Tap& tap = operand.taps[element];
                offset = tap.offset;
                if (may_gather && operand.width != 0) {
                    const auto y = static_cast<uint64_t>(y_ + tap.y);
                    const auto x = static_cast<uint64_t>(x_ + tap.x);
                    if (y >= static_cast<uint64_t>(operand.size[0]) ||
                        x >= static_cast<uint64_t>(operand.size[1]))
                        continue;
                }
            }
            const char* const source = data_ + offset * item;
            if (item == 4) {
                words_[i] = *reinterpret_cast<const uint32_t*>(source);
            } else if (item == 2) {
                words_[i] = *reinterpret_cast<const uint16_t*>(source);
            } else {
                words_[i] = *reinterpret_cast<const uint8_t*>(source);
            }
        }
    }

    // The bits of the i-th of the four elements, of `item` bytes.
    template <int item>
    __device__ __forceinline__ uint32_t element(const Operand& operand, int i) const {
        if (item == 4 || operand.access > Access::kPackedLines) return words_[i];
        const uint32_t word = words_[i * item / 4] >> (i * item % 4 * 8);
        return item == 2 ? word & 0xffff : word & 0xff;
    }

    // Four lanes of a plane of kStep lines, `pitch` words apart.
    template <int pitch>
    __device__ __forceinline__ void store(const Operand& operand, const Pack<uint32_t, 4>& lanes,
                                          uint32_t* plane) const {
        uint32_t* const target = plane + k_ * pitch + line_;
        if (operand.access == Access::kPackedLines) {
            *reinterpret_cast<Pack<uint32_t, 4>*>(target) = lanes;
            return;
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) target[i * pitch] = lanes.element[i];
    }

private:
    template <int words>
    __device__ __forceinline__ void hold(const Pack<uint32_t, words>& pack) {
#pragma unroll
        for (int word = 0; word < words; ++word) words_[word] = pack.element[word];
    }

    const char* data_;
    int line_;
    int k_;
    int64_t y_, x_;
    uint32_t words_[4];
};

}  // namespace slipstick::cuda::mitchell
