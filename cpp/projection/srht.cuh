// What the block SRHT samples, on the device.
#pragma once

#include "core/cuda.hpp"

namespace slipstick::cuda::projection {

// r of the components of groups [first, end), 4096 a group, in scratch memory of the call: the
// forward Fisher-Yates orders.
const uint16_t* sampled_rows(const Context& context, const char* function, uint64_t seed,
                             uint64_t first_group, uint64_t end_group);

}  // namespace slipstick::cuda::projection
