#include "projection/codes.cuh"

#include <algorithm>

#include "core/launch.cuh"
#include "core/nest.hpp"

namespace slipstick::cuda::projection {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostBlocks = int64_t{1} << 30;

struct Rows {
    const uint8_t* data;
    int rank;  // of the axes of rows
    int64_t shape[kMaxRank];
    int64_t strides[kMaxRank];
    int64_t step;  // from byte to byte
    int64_t bytes;
};

__global__ void __launch_bounds__(kThreads)
    copy_words(const Rows rows, int64_t count, int length, uint32_t* target) {
    for (int64_t at = int64_t{blockIdx.x} * kThreads + threadIdx.x; at < count * length;
         at += int64_t{gridDim.x} * kThreads) {
        int64_t rest = at / length;
        const uint8_t* row = rows.data;
        for (int axis = rows.rank; axis-- > 0;) {
            row += rest % rows.shape[axis] * rows.strides[axis];
            rest /= rows.shape[axis];
        }
        const int64_t first = at % length * 4;
        uint32_t word = 0;
        for (int64_t i = 0; i < 4 && first + i < rows.bytes; ++i)
            word |= uint32_t{row[(first + i) * rows.step]} << (8 * i);
        target[at] = word;
    }
}

}  // namespace

Codes codes_of(const Context& context, const char* function, const ConstTensor& tensor) {
    const int last = tensor.rank - 1;
    const int64_t bytes = tensor.shape[last];
    const auto length = static_cast<int>(ceil_div(bytes, 4));
    const int64_t count = tensor.size() / bytes;
    const bool is_words = tensor.rank == 2 && bytes % 4 == 0 && tensor.strides[1] == 1 &&
                          tensor.strides[0] % 4 == 0 &&
                          reinterpret_cast<uintptr_t>(tensor.data) % 4 == 0;
    if (is_words) return {tensor.as<uint32_t>(), tensor.strides[0] / 4, count, length};
    Rows rows{};
    rows.data = tensor.as<uint8_t>();
    rows.rank = last;
    std::copy_n(tensor.shape, last, rows.shape);
    std::copy_n(tensor.strides, last, rows.strides);
    rows.step = tensor.strides[last];
    rows.bytes = bytes;
    auto* const words = context.memory->allocate_array<uint32_t>(count * length);
    launch(context, function, copy_words,
           static_cast<unsigned>(std::min(ceil_div(count * length, kThreads), kMostBlocks)),
           kThreads, 0, rows, count, length, words);
    return {words, length, count, length};
}

}  // namespace slipstick::cuda::projection
