// Which instruction-set level runs. The levels carry the psABI's names; v4_bf16 is v4 with
// AVX512_BF16 and AVX512_VNNI. The environment variable SLIPSTICK_ISA may lower the level, never
// raise it.
#pragma once

#include <array>
#include <string_view>

// The list of levels, lowest first; CMakeLists.txt holds the flags of each.
#if defined(__x86_64__)
#define SLIPSTICK_FOR_EACH_LEVEL(X, ...) \
    X(v2 __VA_OPT__(, ) __VA_ARGS__)     \
    X(v3 __VA_OPT__(, ) __VA_ARGS__)     \
    X(v4 __VA_OPT__(, ) __VA_ARGS__) X(v4_bf16 __VA_OPT__(, ) __VA_ARGS__)
#else
#define SLIPSTICK_FOR_EACH_LEVEL(X, ...) X(baseline __VA_OPT__(, ) __VA_ARGS__)
#endif

namespace slipstick::cpu {

enum class Level : int {
#define SLIPSTICK_ENUMERATOR(level) level,
    SLIPSTICK_FOR_EACH_LEVEL(SLIPSTICK_ENUMERATOR)
#undef SLIPSTICK_ENUMERATOR
};

inline constexpr std::array kLevelNames = {
#define SLIPSTICK_NAME(level) #level,
    SLIPSTICK_FOR_EACH_LEVEL(SLIPSTICK_NAME)
#undef SLIPSTICK_NAME
};
inline constexpr int kLevelCount = static_cast<int>(kLevelNames.size());

constexpr const char* name(Level level) { return kLevelNames[static_cast<size_t>(level)]; }

// The highest level that this machine runs, operating system included.
Level best_level();

// The level in force: best_level(), lowered by SLIPSTICK_ISA or set_level().
Level active_level();

// Throws std::invalid_argument for an unknown name or a level above best_level().
void set_level(std::string_view name);

// Reads SLIPSTICK_ISA; throws std::invalid_argument for an unknown name. A level above best_level()
// is taken as best_level().
void init_level_from_environment();

}  // namespace slipstick::cpu

// One `const Table` a level, declared in the level's namespace and picked at run time:
//   SLIPSTICK_LEVEL_TABLE(mitchell::Kernels, mitchell_kernels)   in namespace slipstick::cpu
// declares v2::mitchell_kernels, v3::mitchell_kernels, ... and active_mitchell_kernels().
#define SLIPSTICK_LEVEL_TABLE(Table, table)                                   \
    SLIPSTICK_FOR_EACH_LEVEL(SLIPSTICK_DECLARE_TABLE, Table, table)           \
    inline const Table& active_##table() {                                    \
        static constexpr const Table* tables[] = {                            \
            SLIPSTICK_FOR_EACH_LEVEL(SLIPSTICK_TABLE_ADDRESS, Table, table)}; \
        return *tables[static_cast<int>(active_level())];                     \
    }
#define SLIPSTICK_DECLARE_TABLE(level, Table, table) \
    namespace level {                                \
    extern const Table table;                        \
    }
#define SLIPSTICK_TABLE_ADDRESS(level, Table, table) &level::table,
