// The forward pass over a list of sequences: what a batch and a packed batch have in common.
#pragma once

#include "attention/attention.hpp"
#include "attention/visibility.hpp"

namespace slipstick::cpu::attention {

// Computes the sequences of `visibility`. Tensors have the axes (batch, heads, tokens, columns) and
// may lack leading ones.
void attend(const Inputs& inputs, const Shape& shape, const Visibility& visibility,
            const Options& options, const Tensor& out, const Stats* stats);

}  // namespace slipstick::cpu::attention
