// What the block SRHT samples, on the device.
#pragma once

#include "core/cuda.hpp"
#include "core/tensor.hpp"
#include "projection/law.hpp"

namespace slipstick::cuda::projection {

// r of the components of groups [first, end), 4096 a group, in scratch memory of the call: the
// forward Fisher-Yates orders.
const uint16_t* sampled_rows(const Context& context, const char* function, uint64_t seed,
                             uint64_t first_group, uint64_t end_group);

// Of dense vectors, and the adjoint. The context's device is current.
void project_srht(const Context& context, const ConstTensor& x,
                  const slipstick::projection::Law& law, uint64_t first_feature, const Tensor& out);
void back_project_srht(const Context& context, const ConstTensor& y,
                       const slipstick::projection::Law& law, uint64_t first_feature,
                       const Tensor& out);

}  // namespace slipstick::cuda::projection
