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
    int64_t advance;  // bytes from one step of the sums to the next; 0 with taps
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

// What the `thread`-th of the 2 * lines threads that an operand takes holds of it between the load
// and the store of a step.
template <int lines, bool may_gather>
class Loader {
public:
    Loader() = default;
    // For the lines from `first` on of `count`, and the terms from `begin` on. Lines beyond the
    // last repeat it: their sums are not stored.
    __device__ __forceinline__ Loader(const Operand& operand, int thread, int item,
                                      int64_t batch_offset, int64_t first, int64_t count,
                                      int64_t begin, int halved) {
        if (operand.access == Access::kPackedLines) {
            place_ = place(thread / (lines / 4), thread % (lines / 4) * 4);
        } else if (operand.access == Access::kLines) {
            place_ = place(thread / lines * 4, thread % lines);
        } else {
            place_ = place(thread % 2 * 4, thread / 2);
        }
        int64_t line = first + first_line();
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
        if (operand.taps == nullptr) offset += ((begin + first_term()) >> halved) * operand.depth;
        data_ = static_cast<const char*>(operand.data) + offset * item;
    }

    // The elements of the next step, whose terms begin at `k`; those from the count-th on are not
    // read. Where an element becomes two terms, `halved` is 1.
    __device__ __forceinline__ void load(const Operand& operand, int item, int64_t k, int count,
                                         int halved) {
        if (operand.access <= Access::kPackedLines) {
            if (first_term() < count) load_pack(item);
        } else {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int term = first_term() + i;
                words_[i] = term < count ? single(operand, item, k + term, i >> halved, halved) : 0;
            }
        }
        data_ += operand.advance;
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
        uint32_t* const target = plane + first_term() * pitch + first_line();
        if (operand.access == Access::kPackedLines) {
            *reinterpret_cast<Pack<uint32_t, 4>*>(target) = lanes;
            return;
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) target[i * pitch] = lanes.element[i];
    }

private:
    // Of the four elements within a step: in one register.
    __device__ __forceinline__ static int place(int term, int line) { return term << 16 | line; }
    __device__ __forceinline__ int first_term() const { return place_ >> 16; }
    __device__ __forceinline__ int first_line() const { return place_ & 0xffff; }

    // Each size as a type of its own: of equal ones a compiler reads the first word in one place
    // for all sizes, and the others one by one.
    __device__ __forceinline__ void load_pack(int item) {
        if (item == 4) {
            const auto pack = *reinterpret_cast<const Pack<float, 4>*>(data_);
#pragma unroll
            for (int i = 0; i < 4; ++i) words_[i] = bits::of(pack.element[i]);
        } else if (item == 2) {
            const auto pack = *reinterpret_cast<const uint64_t*>(data_);
            words_[0] = static_cast<uint32_t>(pack);
            words_[1] = static_cast<uint32_t>(pack >> 32);
        } else {
            words_[0] = *reinterpret_cast<const uint32_t*>(data_);
        }
    }

    // The element of term k, `further` elements from the first.
    __device__ __forceinline__ uint32_t single(const Operand& operand, int item, int64_t k,
                                               int further, int halved) const {
        int64_t offset = further * operand.depth;
        if (operand.taps != nullptr) {
            const Tap& tap = operand.taps[k >> halved];
            offset = tap.offset;
            if (may_gather && operand.width != 0) {
                const auto y = static_cast<uint64_t>(y_ + tap.y);
                const auto x = static_cast<uint64_t>(x_ + tap.x);
                if (y >= static_cast<uint64_t>(operand.size[0]) ||
                    x >= static_cast<uint64_t>(operand.size[1]))
                    return 0;
            }
        }
        const char* const source = data_ + offset * item;
        if (item == 4) return *reinterpret_cast<const uint32_t*>(source);
        if (item == 2) return *reinterpret_cast<const uint16_t*>(source);
        return *reinterpret_cast<const uint8_t*>(source);
    }

    const char* data_;
    int place_;
    int64_t y_, x_;
    uint32_t words_[4];
};

// The same where a block has fewer threads than an operand takes, so that each stands for several,
// or more, so that some have none.
template <int lines, int threads, bool may_gather>
class Loaders {
public:
    static constexpr int kCount = (2 * lines + threads - 1) / threads;

    template <class... Arguments>
    __device__ __forceinline__ explicit Loaders(const Operand& operand, Arguments... arguments) {
        for_each([&](Loader<lines, may_gather>& loader, int i) {
            const int thread = static_cast<int>(threadIdx.x) + i * threads;
            loader = Loader<lines, may_gather>(operand, thread, arguments...);
        });
    }

    // Calls f(loader, its number) for those of the thread.
    template <class F>
    __device__ __forceinline__ void for_each(F f) {
#pragma unroll
        for (int i = 0; i < kCount; ++i) {
            if (2 * lines % threads == 0 || static_cast<int>(threadIdx.x) + i * threads < 2 * lines)
                f(loaders_[i], i);
        }
    }

private:
    Loader<lines, may_gather> loaders_[kCount];
};

}  // namespace slipstick::cuda::mitchell
