// The CPU's functions stand beside what is the same on every device: cpu::projection::Law is
// projection::Law, and so on for all that law.hpp and results.hpp declare.
#pragma once

#include "projection/law.hpp"
#include "projection/results.hpp"

namespace slipstick::cpu::projection {

using namespace slipstick::projection;

}  // namespace slipstick::cpu::projection
