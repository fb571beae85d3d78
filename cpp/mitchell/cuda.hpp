// The Mitchell family on CUDA devices. The functions and the bits of their results are the CPU's
// (mitchell/mitchell.hpp); what the result looks like says mitchell/results.hpp. Tensors lie on the
// context's device, nothing waits for it, and a call can be captured into a graph, which needs its
// method as long as it is replayed.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "core/cuda.hpp"
#include "core/tensor.hpp"
#include "mitchell/results.hpp"

namespace slipstick::cuda::mitchell {

using slipstick::mitchell::ConvOptions;
using slipstick::mitchell::Derivative;
using slipstick::mitchell::Gradient;
using slipstick::mitchell::Parameters;
using slipstick::mitchell::Path;

// Copies of a table on the devices that asked for one, kept as long as this lives.
class DeviceTables {
public:
    explicit DeviceTables(std::shared_ptr<const slipstick::mitchell::Table> table);
    ~DeviceTables();
    DeviceTables(const DeviceTables&) = delete;
    DeviceTables& operator=(const DeviceTables&) = delete;

    // The entries on the context's device, which is current. The first call for a device copies
    // them, on a stream of its own, and waits for that.
    const uint16_t* on(const Context& context, const char* function);

private:
    struct Copy {
        int device;
        uint16_t* entries;
    };
    std::shared_ptr<const slipstick::mitchell::Table> table_;
    std::mutex mutex_;
    std::vector<Copy> copies_;
};

// A method, and its table on the devices; copies share it.
struct Method {
    slipstick::mitchell::Method description;
    std::shared_ptr<DeviceTables> tables;

    explicit Method(slipstick::mitchell::Method method);
};

// As slipstick::mitchell::parameters, for kernels: the table lies on the context's device.
Parameters device_parameters(const Context& context, const char* function, Dtype dtype,
                             const Method& method);

void multiply(const Context& context, const ConstTensor& a, const ConstTensor& b,
              const Method& method, const Tensor& out);
void divide(const Context& context, const ConstTensor& a, const ConstTensor& b,
            const Method& method, const Tensor& out);
void reciprocal(const Context& context, const ConstTensor& a, const Method& method,
                const Tensor& out);
void sqrt(const Context& context, const ConstTensor& a, const Tensor& out);
void log2(const Context& context, const ConstTensor& a, const Tensor& out);
void exp2(const Context& context, const ConstTensor& a, const Tensor& out);
void power(const Context& context, const ConstTensor& a, const ConstTensor& p, const Tensor& out);
void power(const Context& context, const ConstTensor& a, double p, const Tensor& out);

// Sums of products take float32, float16, bfloat16, int8 and uint8.
constexpr bool is_summand(Dtype dtype) {
    return dtype == Dtype::kFloat32 || dtype == Dtype::kFloat16 || dtype == Dtype::kBFloat16 ||
           dtype == Dtype::kInt8 || dtype == Dtype::kUInt8;
}
inline constexpr const char* kSummandDtypes = "float32, float16, bfloat16, int8 or uint8 on CUDA";

void matmul(const Context& context, const ConstTensor& a, const ConstTensor& b,
            const Method& method, double multiplier, const Tensor& out, Path path = Path::kAuto);
void conv2d(const Context& context, const ConstTensor& x, const ConstTensor& weight,
            const ConvOptions& options, const Method& method, const Tensor& out);
void matmul_backward(const Context& context, const ConstTensor& grad, const ConstTensor& a,
                     const ConstTensor& b, const Method& method, Gradient gradient,
                     const Derivative& derivative, const Tensor& grad_a, const Tensor& grad_b);

}  // namespace slipstick::cuda::mitchell
