// Dense products with "sjlt" and "countsketch", whose columns have few entries.
#pragma once

#include "core/cuda.hpp"
#include "core/tensor.hpp"
#include "projection/law.hpp"

namespace slipstick::cuda::projection {

// The context's device is current.
void project_hashed(const Context& context, const ConstTensor& x,
                    const slipstick::projection::Law& law, uint64_t first_feature,
                    const Tensor& out);
void back_project_hashed(const Context& context, const ConstTensor& y,
                         const slipstick::projection::Law& law, uint64_t first_feature,
                         const Tensor& out);

}  // namespace slipstick::cuda::projection
