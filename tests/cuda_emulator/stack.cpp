#include "stack.hpp"

#if defined(__x86_64__)

// Pushes what a function has to keep, stores the stack's end in *save and goes on with another
// stack. swapcontext takes twenty times as long, since it asks the operating system for the mask of
// signals.
asm(R"(
    .text
    .p2align 4
    .hidden cuda_emulator_switch
    .globl cuda_emulator_switch
    .type cuda_emulator_switch, @function
cuda_emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size cuda_emulator_switch, .-cuda_emulator_switch
)");
extern "C" void cuda_emulator_switch(void** save, void* stack);

namespace cuda_emulator {

void Stack::prepare(char* memory, size_t bytes, void (*entry)()) {
    // As if nobody had called the entry, and it had been interrupted before its first instruction.
    void** top = reinterpret_cast<void**>(memory + bytes);
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(entry);
    for (int registers = 0; registers < 6; ++registers) *--top = nullptr;
    end_ = top;
}

void switch_stacks(Stack& from, Stack& to) { cuda_emulator_switch(&from.end_, to.end_); }

}  // namespace cuda_emulator

#else

namespace cuda_emulator {

void Stack::prepare(char* memory, size_t bytes, void (*entry)()) {
    getcontext(&context_);
    context_.uc_stack.ss_sp = memory;
    context_.uc_stack.ss_size = bytes;
    context_.uc_link = nullptr;
    makecontext(&context_, entry, 0);
}

void switch_stacks(Stack& from, Stack& to) { swapcontext(&from.context_, &to.context_); }

}  // namespace cuda_emulator

#endif
