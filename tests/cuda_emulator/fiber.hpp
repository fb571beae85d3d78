// A stack of its own on which a kernel's threads run, one after another, until one has to wait.
#pragma once

#include <cstddef>

#include "stack.hpp"

namespace cuda_emulator {

class Fiber {
public:
    using Entry = void (*)();

    // `entry` is called again whenever the fiber is resumed after it returned.
    explicit Fiber(Entry entry);
    ~Fiber();
    Fiber(const Fiber&) = delete;
    Fiber& operator=(const Fiber&) = delete;

    // Runs the fiber until it suspends itself, or its entry returns; says whether it returned.
    bool resume();
    // Back to who resumed the running fiber.
    static void suspend();
    // The same for good; the fiber cannot be resumed.
    [[noreturn]] static void abandon();

    static Fiber* running();
    // A place for abandon() to be called from where the fiber's own stack is full.
    static void* spare_stack();

private:
    static void run();

    Entry entry_;
    char* memory_;  // pages that nobody may touch, and the stack
    Stack stack_;
    bool returned_ = false;
    void* fake_stack_ = nullptr;  // AddressSanitizer's
};

}  // namespace cuda_emulator
