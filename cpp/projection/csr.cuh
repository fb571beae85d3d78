// Products of sparse rows. A device's indices are not looked at before: a row whose columns do not
// increase or lie outside of the features, or whose starts are none, becomes NaN.
#pragma once

#include "core/cuda.cuh"
#include "projection/csr_matrix.hpp"
#include "projection/rows.cuh"

namespace slipstick::cuda::projection {

using slipstick::projection::Csr;
using slipstick::projection::Law;

struct SparseRows {
    const void* values;
    const void* columns;
    const void* starts;
    bool wide;  // indices have 64 bits
    int64_t stored;
    int64_t rows;
    int64_t features;
    uint64_t first_feature;

    __device__ __forceinline__ static int64_t index_at(const void* data, bool wide, int64_t i) {
        return wide ? static_cast<const int64_t*>(data)[i] : static_cast<const int32_t*>(data)[i];
    }
    __device__ __forceinline__ int64_t column(int64_t i) const {
        return index_at(columns, wide, i);
    }
};

// The elements of a row; none where its starts are not what they have to be.
struct Span {
    int64_t begin;
    int64_t end;
    bool valid;
};
__device__ __forceinline__ Span span_of(const SparseRows& x, int64_t row) {
    const int64_t begin = SparseRows::index_at(x.starts, x.wide, row);
    const int64_t end = SparseRows::index_at(x.starts, x.wide, row + 1);
    const bool valid = 0 <= begin && begin <= end && end <= x.stored;
    return {valid ? begin : 0, valid ? end : 0, valid};
}
// Whether element i of a span has a column, and one behind its predecessor's.
__device__ __forceinline__ bool is_in_order(const SparseRows& x, const Span& span, int64_t i) {
    const int64_t own = x.column(i);
    return own >= (i == span.begin ? 0 : x.column(i - 1) + 1) && own < x.features;
}

// The context's device is current.
void project_sparse_rows(const Context& context, const SparseRows& x, const Law& law,
                         const Tensor& out);
void project_srht(const Context& context, const SparseRows& x, const Law& law, const Tensor& out);

}  // namespace slipstick::cuda::projection
