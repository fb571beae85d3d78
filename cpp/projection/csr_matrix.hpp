// A sparse matrix in compressed rows, on any device.
#pragma once

#include "core/tensor.hpp"
#include "projection/law.hpp"

namespace slipstick::projection {

// Row r holds the elements row_starts[r] ... row_starts[r + 1] of values and columns.
struct Csr {
    ConstTensor values;      // float32 or float64; one axis, next to each other like the others
    ConstTensor columns;     // int32 or int64
    ConstTensor row_starts;  // of the columns' dtype
    int64_t rows;
    int64_t features;
};

// Throws TypeError or std::invalid_argument for arrays that are not as Csr says, whatever they
// hold.
void check_csr_arrays(const char* function, const Csr& x);

// Of kind "sparse": whether entries that are 0 are passed over where x is sparse.
inline constexpr double kFewEntries = 1.0 / 8;
constexpr bool has_few_entries(const Law& law) {
    return law.kind == Kind::kSparse && law.threshold < kFewEntries * 0x1p31 &&
           law.components <= 1 << 24;
}

}  // namespace slipstick::projection
