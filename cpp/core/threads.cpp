#include "core/threads.hpp"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <limits>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include "core/error.hpp"

namespace slipstick::cpu {
namespace {

// A caller may have switched on flush-to-zero (torch.set_flush_denormal does) or another rounding;
// the workers have not. Both compute in the default environment, so that a result does not depend
// on who ran.
class DefaultFloatEnvironment {
public:
    DefaultFloatEnvironment() : saved_(get()) {
        if ((saved_ & ~kFlags) != kDefault) set(kDefault);
    }
    ~DefaultFloatEnvironment() {
        if (get() != saved_) set(saved_);
    }
    DefaultFloatEnvironment(const DefaultFloatEnvironment&) = delete;
    DefaultFloatEnvironment& operator=(const DefaultFloatEnvironment&) = delete;

private:
#if defined(__x86_64__)
    // The register that SSE obeys, read in 2 ns; fesetenv sets the x87's too, in 200.
    using Control = unsigned;
    static constexpr Control kDefault = 0x1f80;
    static constexpr Control kFlags = 0x3f;
    static Control get() { return _mm_getcsr(); }
    static void set(Control control) { _mm_setcsr(control); }
#else
    using Control = uint64_t;  // FPCR; the flags are in a register of their own
    static constexpr Control kDefault = 0;
    static constexpr Control kFlags = 0;
    static Control get() { return __builtin_aarch64_get_fpcr64(); }
    static void set(Control control) { __builtin_aarch64_set_fpcr64(control); }
#endif
    Control saved_;
};

// One parallel_for. Whoever takes part pulls chunk numbers from `next`.
struct Job {
    FunctionRef<void(int64_t, int64_t)> body;
    int64_t n;
    int64_t grain;
    int64_t chunks;
    std::atomic<int64_t> next{0};
    std::mutex error_mutex{};
    int64_t error_chunk = std::numeric_limits<int64_t>::max();
    std::exception_ptr error{};

    void run() {
        const DefaultFloatEnvironment environment;
        for (int64_t chunk; (chunk = next.fetch_add(1, std::memory_order_relaxed)) < chunks;) {
            try {
                const int64_t begin = chunk * grain;
                body(begin, begin + std::min(grain, n - begin));
            } catch (...) {
                const std::lock_guard lock(error_mutex);
                if (chunk < error_chunk) {
                    error_chunk = chunk;
                    error = std::current_exception();
                }
                next.store(chunks, std::memory_order_relaxed);  // no new chunks after a failure
            }
        }
    }
};

thread_local bool in_parallel_region = false;

class Region {  // marks this thread, so that a nested parallel_for runs serially
public:
    Region() { in_parallel_region = true; }
    ~Region() { in_parallel_region = false; }
    Region(const Region&) = delete;
    Region& operator=(const Region&) = delete;
};

class Pool {
public:
    // Runs the job with up to `helpers` workers; false where another thread's job has the pool.
    bool run(Job& job, int helpers) {
        std::unique_lock lock(mutex_);
        if (job_ != nullptr) return false;
        start_workers(helpers);
        helpers = std::min(helpers, workers_);
        job_ = &job;
        wanted_ = helpers;
        lock.unlock();
        for (int i = 0; i < helpers; ++i) wake_.notify_one();
        job.run();
        wanted_ = 0;  // whoever has not woken up by now is not needed any more
        spin([this] { return running_ == 0; });
        lock.lock();
        idle_.wait(lock, [this] { return running_ == 0; });
        job_ = nullptr;
        return true;
    }

private:
    // Waits a little before a lock is taken and the system asked: the next phase of a product comes
    // within microseconds, and a wake-up takes 20.
    template <class Condition>
    static void spin(Condition condition) {
        for (int i = 0; i < 2000 && !condition(); ++i) {
#if defined(__x86_64__)
            __builtin_ia32_pause();
#endif
        }
    }

    void start_workers(int count) {
        for (; workers_ < count; ++workers_) {
            try {
                std::thread([this] { work(); }).detach();
            } catch (const std::system_error&) {
                return;  // the system grants no more threads: go on with those we have
            }
        }
    }

    void work() {
        const Region region;
        std::unique_lock lock(mutex_);
        for (;;) {
            lock.unlock();
            spin([this] { return wanted_ > 0; });
            lock.lock();
            wake_.wait(lock, [this] { return wanted_ > 0; });
            --wanted_;
            ++running_;
            Job& job = *job_;
            lock.unlock();
            job.run();
            lock.lock();
            if (--running_ == 0) idle_.notify_one();
        }
    }

    std::mutex mutex_;
    std::condition_variable wake_;
    std::condition_variable idle_;
    Job* job_ = nullptr;
    int workers_ = 0;
    std::atomic<int> wanted_{0};   // workers that may still join the job
    std::atomic<int> running_{0};  // workers inside the job
};

// Never destroyed: detached workers wait on it until the process ends.
std::atomic<Pool*> pool_instance{nullptr};

Pool& pool() {
    static const bool once = [] {
        pool_instance = new Pool;
        // A forked child has none of the workers, and its copy of the mutex may be locked for ever.
        pthread_atfork(nullptr, nullptr, [] { pool_instance = new Pool; });
        return true;
    }();
    static_cast<void>(once);
    return *pool_instance;
}

int affinity_count() {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
    return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

// 0 where the text does not start with a number in 1 ... kMaxThreads. OMP_NUM_THREADS may be a
// list.
int parse_count(const char* value, bool list) {
    int count = 0;
    const char* end = value + std::strlen(value);
    const auto [stop, error] = std::from_chars(value, end, count);
    if (error != std::errc() || (stop != end && !(list && *stop == ','))) return 0;
    return count >= 1 && count <= kMaxThreads ? count : 0;
}

std::atomic<int> thread_count{affinity_count()};

}  // namespace

void parallel_for(int64_t n, int64_t grain, FunctionRef<void(int64_t, int64_t)> body) {
    if (n <= 0) return;
    Job job{body, n, grain, (n - 1) / grain + 1};
    const int64_t threads = in_parallel_region ? 1 : num_threads();
    const auto helpers = static_cast<int>(std::min(threads, job.chunks) - 1);
    if (helpers < 1) {
        job.run();
    } else {
        const Region region;
        if (!pool().run(job, helpers)) job.run();
    }
    if (job.error) std::rethrow_exception(job.error);
}

int num_threads() { return thread_count.load(std::memory_order_relaxed); }

void set_num_threads(int count) {
    if (count < 1 || count > kMaxThreads) {
        refuse_value("set_num_threads", "`count` must be between 1 and ", kMaxThreads, ", got ",
                     count);
    }
    thread_count.store(count, std::memory_order_relaxed);
}

void init_threads_from_environment() {
    if (const char* own = std::getenv("SLIPSTICK_NUM_THREADS"); own != nullptr && *own != '\0') {
        const int count = parse_count(own, false);
        if (count == 0) {
            refuse_value(
                "slipstick",
                "the environment variable SLIPSTICK_NUM_THREADS must be a number from 1 to ",
                kMaxThreads, ", got '", own, "'");
        }
        set_num_threads(count);
    } else if (const char* omp = std::getenv("OMP_NUM_THREADS"); omp != nullptr) {
        // Other libraries define this one; what we cannot read we leave alone.
        if (const int count = parse_count(omp, true); count > 0) set_num_threads(count);
    }
}

Scratch::Scratch(int64_t bytes)
    : data_(bytes < 0 ? throw std::bad_alloc()
                      : ::operator new(static_cast<size_t>(std::max<int64_t>(bytes, 1)),
                                       std::align_val_t{64})) {}

Scratch::~Scratch() { ::operator delete(data_, std::align_val_t{64}); }

}  // namespace slipstick::cpu
