#include "core/upload.cuh"

#include <algorithm>
#include <cstring>

#include "core/launch.cuh"

namespace slipstick::cuda {
namespace {

constexpr int kThreads = 256;

// A kernel may have 4096 bytes of arguments.
constexpr int kWords = 400;
struct Chunk {
    uint64_t word[kWords];
};
constexpr int64_t kWordBytes = sizeof(uint64_t);

__global__ void __launch_bounds__(kThreads)
    store_words(uint64_t* target, int count, const Chunk chunk) {
    for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) target[i] = chunk.word[i];
}

}  // namespace

void* upload_bytes(const Context& context, const char* function, const void* data, int64_t bytes) {
    const int64_t words = ceil_div(bytes, kWordBytes);
    auto* const target = context.memory->allocate_array<uint64_t>(words);
    for (int64_t first = 0; first < words; first += kWords) {
        const auto here = static_cast<int>(std::min<int64_t>(kWords, words - first));
        Chunk chunk{};
        std::memcpy(chunk.word, static_cast<const char*>(data) + first * kWordBytes,
                    static_cast<size_t>(std::min(here * kWordBytes, bytes - first * kWordBytes)));
        launch(context, function, store_words, 1, kThreads, 0, target + first, here, chunk);
    }
    return target;
}

}  // namespace slipstick::cuda
