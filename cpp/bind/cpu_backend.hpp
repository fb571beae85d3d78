// What the bindings call to compute on the CPU.
#pragma once

#include <vector>

#include "attention/attention.hpp"
#include "bind/call.hpp"
#include "mitchell/backward.hpp"
#include "mitchell/conv2d.hpp"
#include "mitchell/mitchell.hpp"
#include "projection/csr.hpp"
#include "projection/hadamard.hpp"
#include "projection/hamming.hpp"
#include "projection/projection.hpp"
#include "projection/rotate.hpp"
#include "projection/signs.hpp"

namespace slipstick::bind {

class CpuBackend {
public:
    using Method = mitchell::Method;

    CpuBackend(const char*, const char*, const py::object&) {}

    const Place& place() const { return kOnCpu; }
    static const mitchell::Method& description(const Method& method) { return method; }

    ResultSpec result_of_matmul(const ConstTensor& a, const ConstTensor& b,
                                const Method& method) const {
        return cpu::mitchell::result_of_matmul(a, b, method);
    }
    ResultSpec result_of_conv2d(const ConstTensor& x, const ConstTensor& weight,
                                const mitchell::ConvOptions& options, const Method& method) const {
        return cpu::mitchell::result_of_conv2d(x, weight, options, method);
    }
    void check_matmul_backward(const ConstTensor& grad, const ConstTensor& a, const ConstTensor& b,
                               const Method& method) const {
        cpu::mitchell::check_matmul_backward(grad, a, b, method);
    }

    void multiply(const ConstTensor& a, const ConstTensor& b, const Method& method,
                  const Tensor& out) const {
        cpu::mitchell::multiply(a, b, method, out);
    }
    void divide(const ConstTensor& a, const ConstTensor& b, const Method& method,
                const Tensor& out) const {
        cpu::mitchell::divide(a, b, method, out);
    }
    void reciprocal(const ConstTensor& a, const Method& method, const Tensor& out) const {
        cpu::mitchell::reciprocal(a, method, out);
    }
    void sqrt(const ConstTensor& a, const Tensor& out) const { cpu::mitchell::sqrt(a, out); }
    void log2(const ConstTensor& a, const Tensor& out) const { cpu::mitchell::log2(a, out); }
    void exp2(const ConstTensor& a, const Tensor& out) const { cpu::mitchell::exp2(a, out); }
    template <class Exponent>
    void power(const ConstTensor& a, const Exponent& p, const Tensor& out) const {
        cpu::mitchell::power(a, p, out);
    }
    void matmul(const ConstTensor& a, const ConstTensor& b, const Method& method, double multiplier,
                const Tensor& out, mitchell::Path path) const {
        cpu::mitchell::matmul(a, b, method, multiplier, out, path);
    }
    void conv2d(const ConstTensor& x, const ConstTensor& weight,
                const mitchell::ConvOptions& options, const Method& method,
                const Tensor& out) const {
        cpu::mitchell::conv2d(x, weight, options, method, out);
    }
    void matmul_backward(const ConstTensor& grad, const ConstTensor& a, const ConstTensor& b,
                         const Method& method, mitchell::Gradient gradient,
                         const mitchell::Derivative& derivative, const Tensor& grad_a,
                         const Tensor& grad_b) const {
        cpu::mitchell::matmul_backward(grad, a, b, method, gradient, derivative, grad_a, grad_b);
    }

    void check_attention(const char*, const attention::Inputs&) const {}
    void check_attention_varlen(const char*, const attention::Inputs&) const {}
    std::vector<cpu::attention::Sequence> packed_sequences(const attention::Inputs& inputs,
                                                           const attention::Bounds& bounds) const {
        return cpu::attention::packed_sequences(inputs, bounds.queries, bounds.keys);
    }
    ResultSpec result_of_attention_varlen(const attention::Inputs& inputs,
                                          const std::vector<cpu::attention::Sequence>& sequences,
                                          const attention::Options& options) const {
        return cpu::attention::result_of_attention_varlen(inputs, sequences, options);
    }

    void attention(const attention::Inputs& inputs, const attention::Options& options,
                   const Tensor& out, const attention::Stats* stats) const {
        cpu::attention::attention(inputs, options, out, stats);
    }
    void attention_backward(const attention::Inputs& inputs, const attention::Options& options,
                            const attention::Returned& returned,
                            const attention::Gradients& gradients) const {
        cpu::attention::attention_backward(inputs, options, returned, gradients);
    }
    void attention_varlen(const attention::Inputs& inputs, const attention::Bounds&,
                          const std::vector<cpu::attention::Sequence>& sequences,
                          const attention::Options& options, const Tensor& out,
                          const attention::Stats* stats) const {
        cpu::attention::attention_varlen(inputs, sequences, options, out, stats);
    }
    void merge(const std::vector<attention::Part>& parts, const Tensor& out,
               const attention::Stats& stats) const {
        cpu::attention::merge(parts, out, stats);
    }
    void softmax(const ConstTensor& scores, const attention::Scale& scale, bool, int64_t axis,
                 const Tensor& out) const {
        cpu::attention::softmax(scores, scale, axis, out);
    }

    // Here the exact way is the fast one.
    void project(const ConstTensor& x, const projection::Law& law, uint64_t first_feature, bool,
                 const Tensor& out) const {
        cpu::projection::project(x, law, first_feature, out);
    }
    void back_project(const ConstTensor& y, const projection::Law& law, uint64_t first_feature,
                      const Tensor& out) const {
        cpu::projection::back_project(y, law, first_feature, out);
    }
    bool check_csr(const char* function, const projection::Csr& x) const {
        return cpu::projection::check_csr(function, x);
    }
    void project_csr(const projection::Csr& x, const projection::Law& law, uint64_t first_feature,
                     const Tensor& out) const {
        cpu::projection::project_csr(x, law, first_feature, out);
    }
    void block(const projection::Law& law, uint64_t first_row, uint64_t first_column,
               const Tensor& out) const {
        cpu::projection::block(law, first_row, first_column, out);
    }
    void hadamard(const ConstTensor& x, int64_t axis, const Tensor& out) const {
        cpu::projection::hadamard(x, axis, out);
    }
    void rotate(const ConstTensor& x, uint64_t seed, int64_t rounds, bool inverse,
                const Tensor& out) const {
        cpu::projection::rotate(x, seed, rounds, inverse, out);
    }
    int64_t gaussian_signs(const ConstTensor& x, uint64_t seed, int64_t n_bits,
                           const Tensor& codes) const {
        return cpu::projection::gaussian_signs(x, seed, n_bits, codes.as<uint8_t>());
    }
    void hamming_distance(const ConstTensor& a, const ConstTensor& b, const Tensor& out) const {
        cpu::projection::hamming_distance(a, b, out);
    }
    void hamming_topk(const ConstTensor& queries, const ConstTensor& codes, int64_t k,
                      const Tensor& distances, const Tensor& indices) const {
        cpu::projection::hamming_topk(queries, codes, k, distances.as<int32_t>(),
                                      indices.as<int64_t>());
    }
};

}  // namespace slipstick::bind
