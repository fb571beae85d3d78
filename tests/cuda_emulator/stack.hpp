// A stack that the processor can be switched to.
#pragma once

#include <cstddef>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace cuda_emulator {

class Stack {
public:
    // `entry`, which never returns, is called when the stack is switched to for the first time.
    void prepare(char* memory, size_t bytes, void (*entry)());
    // Goes on with `to`, until somebody goes on with `from`.
    friend void switch_stacks(Stack& from, Stack& to);

private:
#if defined(__x86_64__)
    void* end_ = nullptr;  // while it is not in use
#else
    ucontext_t context_;
#endif
};

void switch_stacks(Stack& from, Stack& to);

}  // namespace cuda_emulator
