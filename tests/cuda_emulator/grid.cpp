// The execution of a grid: blocks one after another, the threads of a block on fibers, in an order
// that changes with every block and at every barrier. A fiber runs threads until one waits, so that
// a kernel without barriers needs one fiber.
#include <algorithm>
#include <cstring>
#include <exception>
#include <memory>
#include <numeric>
#include <utility>

#include "emulator.hpp"
#include "fiber.hpp"

dim3 threadIdx;
dim3 blockIdx;
dim3 blockDim;
dim3 gridDim;

namespace cuda_emulator {
namespace {

struct Site {
    const char* file;
    int line;
};

// Steele, Lea and Flood's SplitMix64.
class Random {
public:
    explicit Random(uint64_t seed) : state_(seed) {}
    uint64_t below(uint64_t limit) {
        state_ += 0x9e3779b97f4a7c15;
        uint64_t z = state_;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
        z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
        z ^= z >> 31;
        return static_cast<uint64_t>((static_cast<unsigned __int128>(z) * limit) >> 64);
    }
    template <class T>
    void shuffle(std::vector<T>& values) {
        for (size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[below(i)]);
    }

private:
    uint64_t state_;
};

// A block's dynamic shared memory: exactly as many bytes as asked for, for AddressSanitizer;
// without it, a margin around them shows who wrote there.
class SharedMemory {
public:
    explicit SharedMemory(size_t bytes)
        : bytes_(bytes), memory_(kMargin + bytes + kMargin, kUntouched) {
        std::fill_n(begin(), bytes_, kUninitialised);
    }
    unsigned char* begin() { return memory_.data() + kMargin; }
    bool is_overrun() const {
        const auto untouched = [](unsigned char byte) { return byte == kUntouched; };
        const auto end = memory_.begin() + static_cast<ptrdiff_t>(kMargin + bytes_);
        return !std::all_of(memory_.begin(), memory_.begin() + kMargin, untouched) ||
               !std::all_of(end, memory_.end(), untouched);
    }

private:
#if defined(__SANITIZE_ADDRESS__)
    static constexpr size_t kMargin = 0;
#else
    static constexpr size_t kMargin = 1024;
#endif
    static constexpr unsigned char kUntouched = 0xa7;
    size_t bytes_;
    std::vector<unsigned char> memory_;
};

struct Waiting {
    Fiber* fiber;
    unsigned thread;
    Site site;
};

// What the running fiber and the scheduler tell each other.
struct Block {
    const Launch* launch;
    const Thread* thread;
    std::vector<dim3> indices;    // of the threads
    std::vector<unsigned> order;  // of threads that have not started
    unsigned running;
    Site site;
    unsigned char* shared;
    std::exception_ptr failure;
};
Block block;

// As many as ever waited at the same time, and those that have nothing to do.
std::vector<std::unique_ptr<Fiber>> fibers;
std::vector<Fiber*> idle_fibers;

void become(unsigned thread) {
    block.running = thread;
    threadIdx = block.indices[thread];
}

std::string place() {
    return text(*block.launch) + ", block " + text(blockIdx) + ", thread " + text(threadIdx);
}

// A fiber's duty.
void run_threads() {
    try {
        while (!block.order.empty()) {
            become(block.order.back());
            block.order.pop_back();
            (*block.thread)();
        }
    } catch (...) {
        block.failure = std::current_exception();
    }
}

Fiber* take_fiber() {
    if (idle_fibers.empty()) {
        fibers.push_back(std::make_unique<Fiber>(&run_threads));
        return fibers.back().get();
    }
    Fiber* const fiber = idle_fibers.back();
    idle_fibers.pop_back();
    return fiber;
}

std::string name(const Site& site) {
    const char* const slash = std::strrchr(site.file, '/');
    return std::string(slash == nullptr ? site.file : slash + 1) + ":" + std::to_string(site.line);
}

void check_barrier(const std::vector<Waiting>& waiting) {
    const Waiting& first = waiting.front();
    const auto fail = [&](const std::string& reason) {
        become(first.thread);
        throw Fault(place() + ": waits at " + name(first.site) + ", but " + reason);
    };
    const size_t ended = block.indices.size() - waiting.size();
    if (ended != 0) fail(std::to_string(ended) + " threads of the block have ended");
    for (const Waiting& other : waiting) {
        const bool same = other.site.line == first.site.line &&
                          (other.site.file == first.site.file ||
                           std::strcmp(other.site.file, first.site.file) == 0);
        if (!same) fail("another thread of the block at " + name(other.site));
    }
}

// Goes on with a thread on its fiber, until it waits or ends.
void resume(Fiber* fiber, std::vector<Waiting>& waiting) {
    const bool ended = fiber->resume();
    if (block.failure) std::rethrow_exception(std::exchange(block.failure, nullptr));
    if (ended) {
        idle_fibers.push_back(fiber);
    } else {
        waiting.push_back({fiber, block.running, block.site});
    }
}

void run_block(Random& random) {
    SharedMemory shared(block.launch->shared_bytes);
    block.shared = shared.begin();
    block.order.resize(block.indices.size());
    std::iota(block.order.begin(), block.order.end(), 0u);
    random.shuffle(block.order);
    static std::vector<Waiting> waiting;
    static std::vector<Waiting> passing;
    waiting.clear();
    while (!block.order.empty()) resume(take_fiber(), waiting);
    while (!waiting.empty()) {
        check_barrier(waiting);
        passing.swap(waiting);
        waiting.clear();
        random.shuffle(passing);
        for (const Waiting& next : passing) {
            become(next.thread);
            resume(next.fiber, waiting);
        }
    }
    if (shared.is_overrun()) {
        throw Fault(text(*block.launch) + ", block " + text(blockIdx) + ": wrote beyond its " +
                    std::to_string(block.launch->shared_bytes) + " bytes of shared memory");
    }
}

void run_blocks(Random& random) {
    // Block i of the order is (first + i step) mod blocks.
    const uint64_t blocks = uint64_t{gridDim.x} * gridDim.y * gridDim.z;
    const uint64_t first = random.below(blocks);
    uint64_t step = 1 + random.below(blocks);
    while (std::gcd(step, blocks) != 1) step = 1 + random.below(blocks);
    uint64_t index = first;
    for (uint64_t i = 0; i < blocks; ++i) {
        blockIdx = dim3(static_cast<unsigned>(index % gridDim.x),
                        static_cast<unsigned>(index / gridDim.x % gridDim.y),
                        static_cast<unsigned>(index / gridDim.x / gridDim.y));
        run_block(random);
        index = (index + step) % blocks;
    }
}

}  // namespace

void run_grid(const Launch& launch, const Thread& thread, uint64_t seed) {
    gridDim = launch.grid;
    blockDim = launch.block;
    block = {&launch, &thread, {}, {}, 0, {}, nullptr, nullptr};
    for (unsigned z = 0; z < blockDim.z; ++z) {
        for (unsigned y = 0; y < blockDim.y; ++y) {
            for (unsigned x = 0; x < blockDim.x; ++x) block.indices.emplace_back(x, y, z);
        }
    }
    Random random(seed);
    try {
        run_blocks(random);
    } catch (...) {
        // Threads that still wait are forgotten with their stacks.
        idle_fibers.clear();
        fibers.clear();
        throw;
    }
}

void wait_for_block(const char* file, int line) {
    block.site = {file, line};
    Fiber::suspend();
}

unsigned char* shared_memory() { return block.shared; }

bool in_kernel() { return Fiber::running() != nullptr; }

void end_kernel(const std::string& reason) {
    block.failure = std::make_exception_ptr(Fault(place() + ": " + reason));
    Fiber::abandon();
}

}  // namespace cuda_emulator
