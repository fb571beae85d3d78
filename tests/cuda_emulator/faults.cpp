// Accesses to pages that are closed, and to addresses that a type's alignment does not divide,
// which kernels are compiled to trap at. In a kernel they end the kernel (on x86-64); elsewhere the
// process says what was touched and ends, as without an emulator.
#include <signal.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <mutex>

#include "emulator.hpp"
#include "fiber.hpp"

namespace cuda_emulator {
namespace {

constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGILL};
struct sigaction before[std::size(kSignals)];

#if defined(__x86_64__)
const void* touched = nullptr;

// Where a kernel goes on after a wrong access, on the spare stack.
void end_after_access() { end_kernel("touched " + describe(touched)); }
void end_after_trap() { end_kernel("accessed memory that is not aligned as its type has to be"); }

void leave_kernel(int number, const void* address, void* context) {
    touched = address;
    auto* const registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
    registers[REG_RIP] =
        reinterpret_cast<greg_t>(number == SIGILL ? &end_after_trap : &end_after_access);
    // As after a call, which leaves 8 bytes on an aligned stack.
    registers[REG_RSP] = reinterpret_cast<greg_t>(Fiber::spare_stack()) - 8;
}
#endif

void handle(int number, siginfo_t* information, [[maybe_unused]] void* context) {
#if defined(__x86_64__)
    if (in_kernel()) return leave_kernel(number, information->si_addr, context);
#endif
    if (device_of(information->si_addr, 1) >= 0) {
        const std::string message =
            "emulator: the host touched " + describe(information->si_addr) + "\n";
        if (write(STDERR_FILENO, message.data(), message.size()) < 0) _exit(1);
    }
    // The access happens again, and whoever was there before handles it.
    const auto* const index = std::find(std::begin(kSignals), std::end(kSignals), number);
    sigaction(number, &before[index - std::begin(kSignals)], nullptr);
}

}  // namespace

void catch_wrong_accesses() {
    static std::once_flag once;
    std::call_once(once, [] {
        struct sigaction action{};
        action.sa_sigaction = &handle;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        for (size_t i = 0; i < std::size(kSignals); ++i)
            sigaction(kSignals[i], &action, &before[i]);
    });
    // A full stack has no place for the handler.
    thread_local char stack[64 * 1024];
    stack_t current;
    sigaltstack(nullptr, &current);
    if ((current.ss_flags & SS_DISABLE) != 0) {
        const stack_t own{stack, 0, sizeof(stack)};
        sigaltstack(&own, nullptr);
    }
}

}  // namespace cuda_emulator
