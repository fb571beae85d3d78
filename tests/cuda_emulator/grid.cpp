// The execution of a grid: blocks one after another, the threads of a block on fibers, in an order
// that changes with every block and at every barrier. A fiber runs threads until one waits, so that
// a kernel without barriers needs one fiber.
//
// Threads wait at meetings, which so many of them have to reach: all of a block, of a warp, of a
// group. Or until something holds that other threads make true.
#include <algorithm>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <numeric>
#include <utility>

#include "emulator.hpp"
#include "fiber.hpp"
#include "hopper.hpp"

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

// What a thread waits for.
struct Wait {
    int meeting;
    unsigned members;
    Site site;
    std::function<bool()> holds;  // instead of a meeting, if there is one
};

struct Waiting {
    Fiber* fiber;
    unsigned thread;
    Wait wait;
};

// What the running fiber and the scheduler tell each other.
struct Block {
    const Launch* launch;
    const Thread* thread;
    std::vector<dim3> indices;    // of the threads
    std::vector<unsigned> order;  // of threads that have not started
    unsigned running;
    Wait wait;  // of the thread that waits last
    unsigned char* shared;
    std::exception_ptr failure;
    Random* random;
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
            end_copies();
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

[[noreturn]] void fail(const Waiting& at, const std::string& reason) {
    become(at.thread);
    throw Fault(place() + ": waits at " + name(at.wait.site) + ", but " + reason);
}

bool is_same(const Site& a, const Site& b) {
    return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

// All have to wait at the same place of the program.
void check_places(const Waiting& first, const std::vector<Waiting>& others) {
    for (const Waiting& other : others) {
        if (!is_same(other.wait.site, first.wait.site))
            fail(first, "another thread of the block at " + name(other.wait.site));
    }
}

// The threads of a block that have started and not ended: those that can go on, those that wait for
// others at a meeting, and those that wait for something to hold.
class Threads {
public:
    explicit Threads(Random& random) : random_(random), hurried_(random.below(2) == 0) {}

    void run() {
        while (!block.order.empty()) resume(take_fiber());
        while (next() || recheck()) {
            if (!polling_.empty() && random_.below(8) == 0) recheck_one();
            if (!hurried_) std::swap(ready_.back(), ready_[random_.below(ready_.size())]);
            const Waiting going = std::move(ready_.back());
            ready_.pop_back();
            become(going.thread);
            resume(going.fiber);
        }
        if (!meetings_.empty()) fail_at_meeting();
        if (!polling_.empty()) fail(polling_.front(), "nobody makes true what it waits for");
    }

private:
    bool next() const { return !ready_.empty(); }

    // Goes on with a thread on its fiber, until it waits or ends.
    void resume(Fiber* fiber) {
        const bool ended = fiber->resume();
        if (block.failure) std::rethrow_exception(std::exchange(block.failure, nullptr));
        if (ended) {
            idle_fibers.push_back(fiber);
            return;
        }
        Waiting waiting{fiber, block.running, std::move(block.wait)};
        if (waiting.wait.holds) {
            polling_.push_back(std::move(waiting));
            return;
        }
        std::vector<Waiting>& all = meetings_[waiting.wait.meeting];
        all.push_back(std::move(waiting));
        if (all.size() < all.front().wait.members) return;
        check_places(all.front(), all);
        random_.shuffle(all);
        for (Waiting& each : all) ready_.push_back(std::move(each));
        meetings_.erase(ready_.back().wait.meeting);
    }

    // Whether something holds that a thread waits for, which then is ready.
    bool recheck() {
        random_.shuffle(polling_);
        for (size_t i = polling_.size(); i > 0; --i) go_on_if_it_holds(i - 1);
        return !ready_.empty();
    }
    // So that a thread may go on as soon as it can, before those that it no longer waits for.
    void recheck_one() { go_on_if_it_holds(random_.below(polling_.size())); }

    void go_on_if_it_holds(size_t i) {
        become(polling_[i].thread);
        if (!polling_[i].wait.holds()) return;
        ready_.push_back(std::move(polling_[i]));
        if (i + 1 < polling_.size()) polling_[i] = std::move(polling_.back());
        polling_.pop_back();
    }

    // Nobody can go on.
    [[noreturn]] void fail_at_meeting() {
        const Waiting& first = meetings_.begin()->second.front();
        for (const auto& [id, waiting] : meetings_) check_places(first, waiting);
        check_places(first, polling_);
        const size_t missing = first.wait.members - meetings_.begin()->second.size();
        fail(first, std::to_string(missing) + " threads of the block have ended");
    }

    Random& random_;
    // In every other block whoever met last goes on first: one warp may be far ahead of the others.
    bool hurried_;
    std::vector<Waiting> ready_;
    std::map<int, std::vector<Waiting>> meetings_;
    std::vector<Waiting> polling_;
};

void run_block(Random& random) {
    SharedMemory shared(block.launch->shared_bytes);
    block.shared = shared.begin();
    block.order.resize(block.indices.size());
    std::iota(block.order.begin(), block.order.end(), 0u);
    random.shuffle(block.order);
    forget_hopper();
    forget_products();
    Threads(random).run();
    if (are_boxes_on_their_way() || are_products_running()) {
        throw Fault(text(*block.launch) + ", block " + text(blockIdx) +
                    ": ended before what it had started");
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
    block = {&launch, &thread, {}, {}, 0, {}, nullptr, nullptr, nullptr};
    forget_block();
    for (unsigned z = 0; z < blockDim.z; ++z) {
        for (unsigned y = 0; y < blockDim.y; ++y) {
            for (unsigned x = 0; x < blockDim.x; ++x) block.indices.emplace_back(x, y, z);
        }
    }
    Random random(seed);
    block.random = &random;
    try {
        run_blocks(random);
    } catch (...) {
        // Threads that still wait are forgotten with their stacks.
        idle_fibers.clear();
        fibers.clear();
        throw;
    }
}

void meet(int id, unsigned members, const char* file, int line) {
    block.wait = {id, members, {file, line}, {}};
    Fiber::suspend();
}

void wait_until(std::function<bool()> holds, const char* file, int line) {
    if (holds()) return;
    block.wait = {0, 0, {file, line}, std::move(holds)};
    Fiber::suspend();
}

void wait_for_block(const char* file, int line) { meet(0, block_threads(), file, line); }

unsigned running_thread() { return block.running; }
unsigned block_threads() { return static_cast<unsigned>(block.indices.size()); }

unsigned char* shared_memory() { return block.shared; }
size_t shared_bytes() { return block.launch->shared_bytes; }
uint64_t random_below(uint64_t limit) { return block.random->below(limit); }

bool in_kernel() { return Fiber::running() != nullptr; }

void end_kernel(const std::string& reason) {
    block.failure = std::make_exception_ptr(Fault(place() + ": " + reason));
    Fiber::abandon();
}

}  // namespace cuda_emulator
