#include "fiber.hpp"

#include <sys/mman.h>

#include <cstdlib>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace cuda_emulator {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kStackBytes = 256 * 1024;
#else
constexpr size_t kStackBytes = 64 * 1024;
#endif
// Below a stack; no function's frame is so large that it reaches beyond.
constexpr size_t kGuardBytes = 64 * 1024;

Fiber* running_fiber = nullptr;
Stack main_stack;
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
// What it knows of whoever had the memory before.
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
    void* memory = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    memory_ = static_cast<char*>(memory);
    mprotect(memory_, kGuardBytes, PROT_NONE);
    // Stacks that end at the same place of a page would share a few sets of the cache.
    static size_t next_offset = 0;
    const size_t offset = next_offset;
    next_offset = (next_offset + 320) % 4096;
    forget(memory_ + kGuardBytes);
    stack_.prepare(memory_ + kGuardBytes, kStackBytes - offset, &Fiber::run);
}

Fiber::~Fiber() {
    forget(memory_ + kGuardBytes);
    munmap(memory_, kGuardBytes + kStackBytes);
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
    leave_main(memory_ + kGuardBytes);
    switch_stacks(main_stack, stack_);
    arrive_at_main();
    running_fiber = nullptr;
    return returned_;
}

void Fiber::suspend() {
    Fiber* const self = running_fiber;
    leave_for_main(&self->fake_stack_);
    switch_stacks(self->stack_, main_stack);
    arrive_from_main(self->fake_stack_);
}

void Fiber::abandon() {
    Stack forgotten;
    leave_for_main(nullptr);
    switch_stacks(forgotten, main_stack);
    std::abort();
}

Fiber* Fiber::running() { return running_fiber; }

void* Fiber::spare_stack() { return spare + sizeof(spare); }

}  // namespace cuda_emulator
