// The CPU's functions stand beside what is the same on every device: cpu::mitchell::Method is
// mitchell::Method, and so on for all that method.hpp and results.hpp declare.
#pragma once

#include "mitchell/method.hpp"
#include "mitchell/results.hpp"

namespace slipstick::cpu::mitchell {

using namespace slipstick::mitchell;

}  // namespace slipstick::cpu::mitchell
