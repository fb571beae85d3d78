// Products of any dtype.
#include "core/cuda.cuh"
#include "mitchell/cuda.hpp"
#include "mitchell/operands.hpp"
#include "mitchell/products.cuh"

namespace slipstick::cuda::mitchell {

void multiply(const Context& context, const ConstTensor& a, const ConstTensor& b,
              const Method& method, const Tensor& out) {
    const DeviceGuard guard(context, "multiply");
    const Parameters parameters = device_parameters(context, "multiply", a.dtype, method);
    const bool floats = slipstick::mitchell::is_float(a.dtype);
    (floats ? multiply_floats : multiply_integers)(context, method.description.kind, parameters, a,
                                                   b, out);
}

}  // namespace slipstick::cuda::mitchell
