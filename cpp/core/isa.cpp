#include "core/isa.hpp"

#include <atomic>
#include <cstdlib>

#include "core/error.hpp"

namespace slipstick::cpu {
namespace {

Level detect() {
#if defined(__x86_64__)
    // Feature by feature: not every supported compiler knows the psABI names at run time. The
    // builtin includes the operating system's consent to the wide registers.
    __builtin_cpu_init();
    // (f16c and lzcnt have no name in Clang 16; every processor with these three has them.)
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") ||
        !__builtin_cpu_supports("bmi2")) {
        return Level::v2;
    }
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512cd") || !__builtin_cpu_supports("avx512dq") ||
        !__builtin_cpu_supports("avx512vl")) {
        return Level::v3;
    }
    if (!__builtin_cpu_supports("avx512bf16") || !__builtin_cpu_supports("avx512vnni"))
        return Level::v4;
    return Level::v4_bf16;
#else
    return Level::baseline;
#endif
}

std::string level_list(int count) {
    std::string list;
    for (int i = 0; i < count; ++i) {
        if (i > 0) list += ", ";
        list += kLevelNames[static_cast<size_t>(i)];
    }
    return list;
}

// -1 where the name is unknown.
int find(std::string_view name) {
    for (int i = 0; i < kLevelCount; ++i) {
        if (name == kLevelNames[static_cast<size_t>(i)]) return i;
    }
    return -1;
}

std::atomic<Level>& active() {
    static std::atomic<Level> level{best_level()};
    return level;
}

}  // namespace

Level best_level() {
    static const Level level = detect();
    return level;
}

Level active_level() { return active().load(std::memory_order_relaxed); }

void set_level(std::string_view name) {
    const int level = find(name);
    if (level < 0 || level > static_cast<int>(best_level())) {
        refuse_value("set_isa", "`level` must be one that this machine runs (",
                     level_list(static_cast<int>(best_level()) + 1), "), got '", name, "'");
    }
    active().store(static_cast<Level>(level), std::memory_order_relaxed);
}

void init_level_from_environment() {
    const char* value = std::getenv("SLIPSTICK_ISA");
    if (value == nullptr || *value == '\0') return;
    const int level = find(value);
    if (level < 0) {
        refuse_value("slipstick", "the environment variable SLIPSTICK_ISA must be one of ",
                     level_list(kLevelCount), ", got '", value, "'");
    }
    if (level < static_cast<int>(best_level())) set_level(value);
}

}  // namespace slipstick::cpu
