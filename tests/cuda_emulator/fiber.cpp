#include "fiber.hpp"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(__x86_64__)
#error "the emulator switches stacks on x86-64 only"
#endif

// Pushes what a function has to keep, stores the stack's end in *save and goes on with another
// stack: two orders of magnitude faster than swapcontext, which asks the kernel for the mask of
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
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kStackBytes = 256 * 1024;
#else
constexpr size_t kStackBytes = 64 * 1024;
#endif
constexpr size_t kPage = 4096;

Fiber* running_fiber = nullptr;
void* main_stack = nullptr;
alignas(16) char spare[64 * 1024];

// AddressSanitizer has to know which stack is in use.
#if defined(__SANITIZE_ADDRESS__)
void* main_fake_stack = nullptr;
const void* main_bottom = nullptr;
size_t main_bytes = 0;

void leave_main(const void* bottom) {
    __sanitizer_start_switch_fiber(&main_fake_stack, bottom, kStackBytes);
}
void arrive_at_main() { __sanitizer_finish_switch_fiber(main_fake_stack, nullptr, nullptr); }
void leave_for_main(void** fake_stack) {
    __sanitizer_start_switch_fiber(fake_stack, main_bottom, main_bytes);
}
void arrive_from_main(void* fake_stack) {
    __sanitizer_finish_switch_fiber(fake_stack, &main_bottom, &main_bytes);
}
void forget(char* stack) { __asan_unpoison_memory_region(stack, kStackBytes); }
#else
void leave_main(const void*) {}
void arrive_at_main() {}
void leave_for_main(void**) {}
void arrive_from_main(void*) {}
void forget(char*) {}
#endif

}  // namespace

Fiber::Fiber(Entry entry) : entry_(entry) {
    void* memory = mmap(nullptr, kPage + kStackBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    memory_ = static_cast<char*>(memory);
    mprotect(memory_, kPage, PROT_NONE);
    reset();
}

Fiber::~Fiber() {
    forget(memory_ + kPage);
    munmap(memory_, kPage + kStackBytes);
}

void Fiber::reset() {
    forget(memory_ + kPage);
    // As if run() had been called by nobody, and had been interrupted before its first instruction.
    void** top = reinterpret_cast<void**>(memory_ + kPage + kStackBytes);
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(&Fiber::run);
    for (int registers = 0; registers < 6; ++registers) *--top = nullptr;
    pointer_ = top;
    fake_stack_ = nullptr;
}

void Fiber::run() {
    arrive_from_main(nullptr);
    for (;;) {
        Fiber* const self = running_fiber;
        self->entry_();
        self->returned_ = true;
        suspend();
    }
}

bool Fiber::resume() {
    running_fiber = this;
    returned_ = false;
    leave_main(memory_ + kPage);
    cuda_emulator_switch(&main_stack, pointer_);
    arrive_at_main();
    running_fiber = nullptr;
    return returned_;
}

void Fiber::suspend() {
    Fiber* const self = running_fiber;
    leave_for_main(&self->fake_stack_);
    cuda_emulator_switch(&self->pointer_, main_stack);
    arrive_from_main(self->fake_stack_);
}

void Fiber::abandon() {
    Fiber* const self = running_fiber;
    void* ignored = nullptr;
    leave_for_main(nullptr);
    self->reset();
    cuda_emulator_switch(&ignored, main_stack);
    std::abort();
}

Fiber* Fiber::running() { return running_fiber; }

void* Fiber::spare_stack() { return spare + sizeof(spare); }

}  // namespace cuda_emulator
