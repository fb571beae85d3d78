// Registers the microbenchmarks of attention's inner kernels, one function a level.
#pragma once

#include "core/isa.hpp"

namespace slipstick::cpu {
#define SLIPSTICK_REGISTER(level)                       \
    namespace level {                                   \
    void register_attention_kernels(const char* level); \
    }
SLIPSTICK_FOR_EACH_LEVEL(SLIPSTICK_REGISTER)
#undef SLIPSTICK_REGISTER
}  // namespace slipstick::cpu
