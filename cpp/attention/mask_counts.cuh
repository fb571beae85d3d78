// How many keys each row sees under a mask: counted before the first tile, since lambda is needed
// at once.
#pragma once

#include "attention/problem.cuh"

namespace slipstick::cuda::attention {

// Fills mask_counts of a problem that has a mask, in one pass over each row of it, however many
// rows of scores that is broadcast to.
void count_mask(const Context& context, Problem& problem);

}  // namespace slipstick::cuda::attention
