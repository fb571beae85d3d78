// The attention family on CUDA devices. The functions are the CPU's (attention/attention.hpp), and
// results.hpp checks their arguments and says what the results look like. Tensors lie on the
// context's device, but for options that may lie on the host (OnDevice, Bounds): those are read
// before the call returns. What lies on the device is not looked at, so nothing waits and a call
// can be captured into a graph; where key_lengths, n_keys or bounds there hold what the CPU would
// refuse, the rows concerned become NaN.
#pragma once

#include <string>
#include <vector>

#include "attention/results.hpp"
#include "core/cuda.hpp"

namespace slipstick::cuda::attention {

using slipstick::attention::Bounds;
using slipstick::attention::Gradients;
using slipstick::attention::Inputs;
using slipstick::attention::Options;
using slipstick::attention::Packing;
using slipstick::attention::Part;
using slipstick::attention::Returned;
using slipstick::attention::Scale;
using slipstick::attention::Stats;

inline constexpr int64_t kMostColumns = 256;  // of a head
// Of a key head, or keys: kernels count them in 32 bits, with room for a tile behind the last.
inline constexpr int64_t kMostRows = (int64_t{1} << 31) - 1024;

// The kernels that a device of a compute capability gets, a line each, for people.
std::vector<std::string> kernels(int major, int minor);

// Refuses what result_of_attention accepts and no kernel here takes.
void check_sizes(const char* function, const Inputs& inputs);
void check_packed_sizes(const Inputs& inputs);

// `stats` may be null.
void attention(const Context& context, const Inputs& inputs, const Options& options,
               const Tensor& out, const Stats* stats);

void attention_backward(const Context& context, const Inputs& inputs, const Options& options,
                        const Returned& returned, const Gradients& gradients);

// `packing` is packing_of(inputs, bounds).
void attention_varlen(const Context& context, const Inputs& inputs, const Bounds& bounds,
                      const Packing& packing, const Options& options, const Tensor& out,
                      const Stats* stats);

// Of parts that result_of_merge accepts.
void merge(const Context& context, const std::vector<Part>& parts, const Tensor& out,
           const Stats& stats);

// `out` may be `scores`.
void softmax(const Context& context, const ConstTensor& scores, const Scale& scale,
             bool scale_on_device, int64_t axis, const Tensor& out);

}  // namespace slipstick::cuda::attention
