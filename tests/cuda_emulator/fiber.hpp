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
    // The same for good: what lies on the fiber's stack is forgotten, and so it starts anew.
    [[noreturn]] static void abandon();
    // Forgets what lies on the stack of a fiber that is suspended.
    void reset();

    static Fiber* running();
    // A place for abandon() to be called from where the fiber's own stack is full.
    static void* spare_stack();

private:
    static void run();

    Entry entry_;
    char* memory_;   // a page that nobody may touch, and the stack
    size_t offset_;  // from the stack's end to where it begins
    Stack stack_;
    bool returned_ = false;
    void* fake_stack_ = nullptr;  // AddressSanitizer's
};

}  // namespace cuda_emulator
