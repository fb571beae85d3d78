// Where the tile kernel (tile.cuh) finds its operands: matrices of any strides, or the patches of
// an image, brought from global memory into lanes in shared memory.
#pragma once

#include "core/cuda.cuh"
#include "core/dtype.hpp"
#include "mitchell/lane_packing.hpp"

namespace slipstick::cuda::mitchell {

using slipstick::mitchell::ExactTerms;

// Terms of the sums that a block of threads brings at once.
constexpr int kStep = 8;

// How the threads share an operand's `lines` (rows of the left one, columns of the right one) by
// kStep terms. Each takes four elements: all steps of 16 bytes and no bank twice.
enum class Access : uint8_t {
    kPackedDepth,  // four neighbours along k in one load
    kPackedLines,  // four neighbouring lines in one load
    kDepth,        // four along k one by one, neighbouring threads along k too
    kLines,        // four along k one by one, neighbouring threads on neighbouring lines
    kGathered,     // the same from an image
};

// Where the element of one k lies from where that of a line would lie without it.
struct Tap {
    int64_t offset;  // in elements
    int64_t y, x;
};

struct Operand {
    const void* data;
    int64_t line;   // steps in elements
    int64_t depth;
    Access access;
    // kGathered: line l is the output (l / width, l % width), and reads element
    // (y * stride[0] + origin[0] + tap.y, ...) of an image of `size`, zero outside.
    const Tap* taps;
    int64_t width;
    int64_t stride[2];
    int64_t origin[2];
    int64_t size[2];
    int64_t step[2];  // of the image's rows and columns, in elements
};

// What a thread holds of an operand between the load and the store of a step.
template <int lines, int threads>
class Loader {
    static_assert(lines * kStep == 4 * threads);

public:
    // Lines beyond the last repeat it: their sums are not stored.
    __device__ __forceinline__ Loader(const Operand& operand, int item, int64_t batch_offset,
                                      int64_t first, int64_t count) {
        const int thread = static_cast<int>(threadIdx.x);
        switch (operand.access) {
            case Access::kPackedDepth:
            case Access::kDepth:
                line_ = thread / 2;
                k_ = thread % 2 * 4;
                break;
            case Access::kPackedLines:
                line_ = thread % (lines / 4) * 4;
                k_ = thread / (lines / 4);
                break;
            default:
                line_ = thread % lines;
                k_ = thread / lines * 4;
                break;
        }
        int64_t line = first + line_;
        const int64_t last = operand.access == Access::kPackedLines ? count - 4 : count - 1;
        if (line > last) line = last;
        int64_t offset = batch_offset;
        if (operand.access == Access::kGathered) {
            const int64_t row = line / operand.width;
            y_ = row * operand.stride[0] + operand.origin[0];
            x_ = (line - row * operand.width) * operand.stride[1] + operand.origin[1];
            offset += y_ * operand.step[0] + x_ * operand.step[1];
        } else {
            y_ = x_ = 0;
            offset += line * operand.line;
        }
        data_ = static_cast<const char*>(operand.data) + offset * item;
    }

    // The elements of the terms from `k` on; those from `depth` on are not read. Where an element
    // becomes two terms, `halved` is 1.
    __device__ __forceinline__ void load(const Operand& operand, int item, int64_t k,
                                         int64_t depth, int halved) {
        if (item == 4) {
            load_as<uint32_t>(operand, k, depth, halved);
        } else if (item == 2) {
            load_as<uint16_t>(operand, k, depth, halved);
        } else {
            load_as<uint8_t>(operand, k, depth, halved);
        }
    }

    // convert(element, i) for the i-th of the four elements gives lanes: an array of `words`.
    template <class T, int words, int pitch, class Convert>
    __device__ __forceinline__ void store(const Operand& operand, uint32_t* shared,
                                          Convert convert) const {
        Pack<uint32_t, 4> lanes[words];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const auto converted = convert(element<T>(i), i);
#pragma unroll
            for (int word = 0; word < words; ++word)
                lanes[word].element[i] = converted.element[word];
        }
        uint32_t* const target = shared + k_ * pitch + line_;
#pragma unroll
        for (int word = 0; word < words; ++word) {
            if (operand.access == Access::kPackedLines) {
                *reinterpret_cast<Pack<uint32_t, 4>*>(target + word * kStep * pitch) = lanes[word];
            } else {
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    target[word * kStep * pitch + i * pitch] = lanes[word].element[i];
            }
        }
    }

private:
    template <class Bits>
    __device__ __forceinline__ void load_as(const Operand& operand, int64_t step, int64_t depth,
                                            int halved) {
        constexpr int item = sizeof(Bits);
        const int64_t k = step + k_;
#pragma unroll
        for (int word = 0; word < item; ++word) raw_[word] = 0;
        if (operand.access <= Access::kPackedLines) {
            if (k >= depth) return;
            const auto four =
                *reinterpret_cast<const Pack<uint32_t, item>*>(data_ + k * operand.depth * item);
#pragma unroll
            for (int word = 0; word < item; ++word) raw_[word] = four.element[word];
            return;
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if (k + i < depth) {
                raw_[i * item / 4] |= uint32_t{single<Bits>(operand, (k + i) >> halved)}
                                      << (i * item % 4 * 8);
            }
        }
    }

    template <class T>
    __device__ __forceinline__ T element(int i) const {
        constexpr int item = sizeof(T);
        const uint32_t word = raw_[i * item / 4] >> (i * item % 4 * 8);
        if constexpr (item == 4) {
            return bits::as_float(word);
        } else if constexpr (item == 2) {
            return T{static_cast<uint16_t>(word)};
        } else {
            return static_cast<T>(static_cast<uint8_t>(word));
        }
    }

    template <class Bits>
    __device__ __forceinline__ Bits single(const Operand& operand, int64_t k) const {
        const Bits* const data = reinterpret_cast<const Bits*>(data_);
        if (operand.access != Access::kGathered) return data[k * operand.depth];
        const Tap tap = operand.taps[k];
        const int64_t y = y_ + tap.y;
        const int64_t x = x_ + tap.x;
        const bool inside = y >= 0 && y < operand.size[0] && x >= 0 && x < operand.size[1];
        return inside ? data[tap.offset] : Bits{0};
    }

    const char* data_;
    int line_;
    int k_;
    int64_t y_, x_;
    uint32_t raw_[4];
};

}  // namespace slipstick::cuda::mitchell
