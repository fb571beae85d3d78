// Projection by random signs on tensor cores: mode="fast".
#pragma once

#include "projection/cuda.hpp"

namespace slipstick::cuda::projection {

// Whether sums of x are float32 and there are enough of them; the exact way is the faster one else.
bool tensor_cores_serve(const Context& context, const ConstTensor& x, const Tensor& out);
// As project of signs, with other bits; the context's device is current.
void project_on_tensor_cores(const Context& context, const ConstTensor& x, const Law& law,
                             uint64_t first_feature, const Tensor& out);

}  // namespace slipstick::cuda::projection
