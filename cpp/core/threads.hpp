// The one verb for threads. A pool of our own instead of OpenMP: its workers sleep at once when
// idle, it survives fork(), nests serially, and rethrows exceptions (DESIGN: two OpenMP runtimes in
// one process cost each other up to 37 times).
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

namespace slipstick::cpu {

// A reference to a callable: two pointers, no allocation. The callable must outlive the call.
template <class Signature>
class FunctionRef;

template <class Result, class... Args>
class FunctionRef<Result(Args...)> {
public:
    template <class Callable>
        requires(!std::is_same_v<std::remove_cvref_t<Callable>, FunctionRef>)
    FunctionRef(Callable&& callable)
        : object_(const_cast<void*>(static_cast<const void*>(std::addressof(callable)))),
          call_([](void* object, Args... args) -> Result {
              return (*static_cast<std::remove_reference_t<Callable>*>(object))(args...);
          }) {}
    Result operator()(Args... args) const { return call_(object_, args...); }

private:
    void* object_;
    Result (*call_)(void*, Args...);
};

// Calls body(begin, end) for the chunks [0, grain), [grain, 2 grain), ... of [0, n), each exactly
// once, on this thread and the workers. The chunks depend on n and grain alone, so a body that
// writes only what belongs to its chunk gives results that do not depend on the number of threads.
// A wake-up costs about 20 us: choose the grain so that a chunk takes 50 us or more. The first
// exception (by chunk) is rethrown once all chunks have stopped. Every chunk runs with default
// rounding and with subnormals enabled.
void parallel_for(int64_t n, int64_t grain, FunctionRef<void(int64_t, int64_t)> body);

inline constexpr int kMaxThreads = 1024;

int num_threads();

// Throws std::invalid_argument outside 1 ... kMaxThreads.
void set_num_threads(int count);

// SLIPSTICK_NUM_THREADS, else OMP_NUM_THREADS, else the processors of the affinity mask. Throws
// std::invalid_argument where SLIPSTICK_NUM_THREADS is not a number in 1 ... kMaxThreads.
void init_threads_from_environment();

// 64-byte aligned scratch memory, uninitialised.
class Scratch {
public:
    explicit Scratch(int64_t bytes);
    ~Scratch();
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    template <class T = void>
    T* as() const {
        return static_cast<T*>(data_);
    }

private:
    void* data_;
};

}  // namespace slipstick::cpu
