// What the bindings call to compute on a CUDA device.
#pragma once

#include <vector>

#include "attention/cuda.hpp"
#include "bind/call.hpp"
#include "core/cuda.hpp"
#include "mitchell/cuda.hpp"
#include "mitchell/sums.hpp"
#include "projection/cuda.hpp"

namespace slipstick::bind {

// Scratch memory from the caller's framework: one-dimensional arrays of bytes, which go back to its
// allocator with the call. Like the call's results they are ordered on its stream.
class FrameworkMemory : public cuda::Memory {
public:
    FrameworkMemory(const char* function, const py::object& empty, const Place& place)
        : function_(function), empty_(empty), place_(place) {}

    void* allocate(int64_t bytes) override {
        if (bytes == 0) return nullptr;
        const py::gil_scoped_acquire gil;
        arrays_.push_back(empty_(py::make_tuple(bytes), "uint8"));
        return Array(function_, "empty", arrays_.back(), place_).writable().mutable_data();
    }

private:
    const char* function_;
    py::object empty_;
    Place place_;
    std::vector<py::object> arrays_;
};

// `empty` is what makes the call's arrays, empty(shape, dtype_name), and knows where: its
// attributes `device` and `stream` are integers. `first` names the argument that they come from.
class CudaBackend {
public:
    using Method = cuda::mitchell::Method;

    CudaBackend(const char* function, const char* first, const py::object& empty)
        : place_{dlpack::kCuda, empty.attr("device").cast<int>(),
                 empty.attr("stream").cast<intptr_t>(), first},
          memory_(function, empty, place_),
          context_{place_.device, reinterpret_cast<void*>(place_.stream), &memory_} {}
    CudaBackend(const CudaBackend&) = delete;
    CudaBackend& operator=(const CudaBackend&) = delete;

    const Place& place() const { return place_; }
    static const mitchell::Method& description(const Method& method) { return method.description; }

    ResultSpec result_of_matmul(const ConstTensor& a, const ConstTensor& b,
                                const Method& method) const {
        return mitchell::result_of_matmul(a, b, method.description, "matmul", kSums);
    }
    ResultSpec result_of_conv2d(const ConstTensor& x, const ConstTensor& weight,
                                const mitchell::ConvOptions& options, const Method& method) const {
        return mitchell::result_of_conv2d(x, weight, options, method.description, kSums);
    }
    void check_matmul_backward(const ConstTensor& grad, const ConstTensor& a, const ConstTensor& b,
                               const Method& method) const {
        mitchell::check_matmul_backward(grad, a, b, method.description, kSums);
    }

    void multiply(const ConstTensor& a, const ConstTensor& b, const Method& method,
                  const Tensor& out) const {
        cuda::mitchell::multiply(context_, a, b, method, out);
    }
    void divide(const ConstTensor& a, const ConstTensor& b, const Method& method,
                const Tensor& out) const {
        cuda::mitchell::divide(context_, a, b, method, out);
    }
    void reciprocal(const ConstTensor& a, const Method& method, const Tensor& out) const {
        cuda::mitchell::reciprocal(context_, a, method, out);
    }
    void sqrt(const ConstTensor& a, const Tensor& out) const {
        cuda::mitchell::sqrt(context_, a, out);
    }
    void log2(const ConstTensor& a, const Tensor& out) const {
        cuda::mitchell::log2(context_, a, out);
    }
    void exp2(const ConstTensor& a, const Tensor& out) const {
        cuda::mitchell::exp2(context_, a, out);
    }
    template <class Exponent>
    void power(const ConstTensor& a, const Exponent& p, const Tensor& out) const {
        cuda::mitchell::power(context_, a, p, out);
    }
    void matmul(const ConstTensor& a, const ConstTensor& b, const Method& method, double multiplier,
                const Tensor& out, mitchell::Path path) const {
        cuda::mitchell::matmul(context_, a, b, method, multiplier, out, path);
    }
    void conv2d(const ConstTensor& x, const ConstTensor& weight,
                const mitchell::ConvOptions& options, const Method& method,
                const Tensor& out) const {
        cuda::mitchell::conv2d(context_, x, weight, options, method, out);
    }
    void matmul_backward(const ConstTensor& grad, const ConstTensor& a, const ConstTensor& b,
                         const Method& method, mitchell::Gradient gradient,
                         const mitchell::Derivative& derivative, const Tensor& grad_a,
                         const Tensor& grad_b) const {
        cuda::mitchell::matmul_backward(context_, grad, a, b, method, gradient, derivative, grad_a,
                                        grad_b);
    }

    void check_attention(const char* function, const attention::Inputs& inputs) const {
        cuda::attention::check_sizes(function, inputs);
    }
    void check_attention_varlen(const char*, const attention::Inputs& inputs) const {
        cuda::attention::check_packed_sizes(inputs);
    }
    attention::Packing packed_sequences(const attention::Inputs& inputs,
                                        const attention::Bounds& bounds) const {
        return attention::packing_of(inputs, bounds);
    }
    ResultSpec result_of_attention_varlen(const attention::Inputs& inputs,
                                          const attention::Packing& packing,
                                          const attention::Options& options) const {
        return attention::result_of_attention_varlen(inputs, packing, options);
    }

    void attention(const attention::Inputs& inputs, const attention::Options& options,
                   const Tensor& out, const attention::Stats* stats) const {
        cuda::attention::attention(context_, inputs, options, out, stats);
    }
    void attention_backward(const attention::Inputs& inputs, const attention::Options& options,
                            const attention::Returned& returned,
                            const attention::Gradients& gradients) const {
        cuda::attention::attention_backward(context_, inputs, options, returned, gradients);
    }
    void attention_varlen(const attention::Inputs& inputs, const attention::Bounds& bounds,
                          const attention::Packing& packing, const attention::Options& options,
                          const Tensor& out, const attention::Stats* stats) const {
        cuda::attention::attention_varlen(context_, inputs, bounds, packing, options, out, stats);
    }
    void merge(const std::vector<attention::Part>& parts, const Tensor& out,
               const attention::Stats& stats) const {
        cuda::attention::merge(context_, parts, out, stats);
    }
    void softmax(const ConstTensor& scores, const attention::Scale& scale, bool scale_on_device,
                 int64_t axis, const Tensor& out) const {
        cuda::attention::softmax(context_, scores, scale, scale_on_device, axis, out);
    }

    void project(const ConstTensor& x, const projection::Law& law, uint64_t first_feature,
                 bool fast, const Tensor& out) const {
        cuda::projection::project(context_, x, law, first_feature, fast, out);
    }
    void back_project(const ConstTensor& y, const projection::Law& law, uint64_t first_feature,
                      const Tensor& out) const {
        cuda::projection::back_project(context_, y, law, first_feature, out);
    }
    // Nothing waits for the device: a row whose projection is NaN cannot be refused.
    int64_t gaussian_signs(const ConstTensor& x, uint64_t seed, int64_t n_bits,
                           const Tensor& codes) const {
        cuda::projection::gaussian_signs(context_, x, seed, n_bits, codes);
        return -1;
    }
    // What a device's memory holds is not looked at.
    bool check_csr(const char*, const projection::Csr&) const { return true; }
    void project_csr(const projection::Csr& x, const projection::Law& law, uint64_t first_feature,
                     const Tensor& out) const {
        cuda::projection::project_csr(context_, x, law, first_feature, out);
    }
    void block(const projection::Law& law, uint64_t first_row, uint64_t first_column,
               const Tensor& out) const {
        cuda::projection::block(context_, law, first_row, first_column, out);
    }
    void hadamard(const ConstTensor& x, int64_t axis, const Tensor& out) const {
        cuda::projection::hadamard(context_, x, axis, out);
    }
    void rotate(const ConstTensor& x, uint64_t seed, int64_t rounds, bool inverse,
                const Tensor& out) const {
        cuda::projection::rotate(context_, x, seed, rounds, inverse, out);
    }
    void hamming_distance(const ConstTensor& a, const ConstTensor& b, const Tensor& out) const {
        cuda::projection::hamming_distance(context_, a, b, out);
    }
    void hamming_topk(const ConstTensor& queries, const ConstTensor& codes, int64_t k,
                      const Tensor& distances, const Tensor& indices) const {
        cuda::projection::hamming_topk(context_, queries, codes, k, distances, indices);
    }

private:
    static constexpr mitchell::Sums kSums{
        &cuda::mitchell::is_summand, cuda::mitchell::kSummandDtypes,
        "float32, float16 or bfloat16 on CUDA", &mitchell::check_sums_by_bound};

    Place place_;
    mutable FrameworkMemory memory_;  // a backend does not change by what a call works with
    cuda::Context context_;
};

}  // namespace slipstick::bind
