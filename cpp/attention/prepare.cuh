// A call's options as its kernels find them: on the device, checked where the host can look, and
// counted. Scratch memory is the context's.
#pragma once

#include "attention/cuda.hpp"
#include "attention/problem.cuh"
#include "attention/shape.hpp"

namespace slipstick::cuda::attention {

// The problem without results: those are the caller's to add. `sequences` are as long as each
// other, of inputs that may lack leading axes.
Problem prepare(const Context& context, Caller caller, const Inputs& inputs,
                const Options& options);

// Of packed sequences.
Problem prepare_packed(const Context& context, const Inputs& inputs, const Bounds& bounds,
                       const Packing& packing, const Options& options);

// The problem with `tile_starts` for tiles of so many rows, where its sequences are packed.
Problem prepare_tiles(const Context& context, Problem problem, int64_t tile_rows);

// A tensor of at most four axes, aligned at the last one.
Operand operand_of(const ConstTensor& tensor);
Target target_of(const Tensor& tensor);
// A tensor of at most three axes, (batch, heads, rows).
Operand row_operand_of(const ConstTensor& tensor);
Target row_target_of(const Tensor& tensor);

}  // namespace slipstick::cuda::attention
