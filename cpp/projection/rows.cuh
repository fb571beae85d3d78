// Rows of tensors of any rank and strides as kernels find them, and their elements as numbers.
#pragma once

#include "core/cuda.cuh"
#include "core/tensor.hpp"

namespace slipstick::cuda::projection {

// All axes of a tensor but the last, as few as there can be. Strides count elements.
struct Rows {
    int64_t count = 1;
    int rank = 0;
    int64_t shape[kMaxRank];
    int64_t strides[kMaxRank];

    Rows() = default;
    explicit Rows(const ConstTensor& tensor) : shape{}, strides{} {
        for (int axis = 0; axis + 1 < tensor.rank; ++axis) {
            const int64_t size = tensor.shape[axis];
            const int64_t stride = tensor.strides[axis];
            if (size == 1) continue;
            if (rank > 0 && strides[rank - 1] == size * stride) {  // one axis with the one before
                shape[rank - 1] *= size;
                strides[rank - 1] = stride;
            } else {
                shape[rank] = size;
                strides[rank++] = stride;
            }
            count *= size;
        }
    }
};

__device__ __forceinline__ int64_t offset_of(const Rows& rows, int64_t row) {
    int64_t offset = 0;
#pragma unroll 1
    for (int axis = rows.rank - 1; axis > 0; --axis) {
        const int64_t outer = row / rows.shape[axis];
        offset += (row - outer * rows.shape[axis]) * rows.strides[axis];
        row = outer;
    }
    return rows.rank == 0 ? 0 : offset + row * rows.strides[0];
}

// Whether sums of a dtype's numbers are float32; else they are float64.
constexpr bool sums_in_float(Dtype dtype) {
    return dtype == Dtype::kFloat32 || dtype == Dtype::kFloat16 || dtype == Dtype::kBFloat16;
}

// Element `place` as a number: float for 32 and 16 bits, double for the others, whose sums are
// float64.
template <class Sum>
__device__ __forceinline__ Sum load_number(const void* data, Dtype dtype, int64_t place) {
    if constexpr (sizeof(Sum) == sizeof(float)) {
        switch (dtype) {
            case Dtype::kFloat16:
                return to_float(static_cast<const Float16*>(data)[place]);
            case Dtype::kBFloat16:
                return to_float(static_cast<const BFloat16*>(data)[place]);
            default:
                return static_cast<const float*>(data)[place];
        }
    } else {
        switch (dtype) {
            case Dtype::kInt8:
                return static_cast<const int8_t*>(data)[place];
            case Dtype::kInt16:
                return static_cast<const int16_t*>(data)[place];
            case Dtype::kInt32:
                return static_cast<const int32_t*>(data)[place];
            case Dtype::kInt64:
                return static_cast<double>(static_cast<const int64_t*>(data)[place]);
            case Dtype::kUInt8:
                return static_cast<const uint8_t*>(data)[place];
            case Dtype::kUInt16:
                return static_cast<const uint16_t*>(data)[place];
            case Dtype::kUInt32:
                return static_cast<const uint32_t*>(data)[place];
            case Dtype::kUInt64:
                return static_cast<double>(static_cast<const uint64_t*>(data)[place]);
            case Dtype::kBool:
                return static_cast<const uint8_t*>(data)[place] != 0 ? 1.0 : 0.0;
            default:
                return static_cast<const double*>(data)[place];
        }
    }
}

// The end of every sum: scaled in float64, rounded once (the CPU's core/store.cpp).
struct ScaledTarget {
    void* data;
    Dtype dtype;
    double scale;
    int64_t columns;
    int64_t column_stride;
    Rows rows;

    ScaledTarget() = default;
    ScaledTarget(const Tensor& out, double factor)
        : data(out.mutable_data()),
          dtype(out.dtype),
          scale(factor),
          columns(out.shape[out.rank - 1]),
          column_stride(out.strides[out.rank - 1]),
          rows(out) {}

    // `place` counts elements.
    template <class Sum>
    __device__ __forceinline__ void store(int64_t place, Sum sum) const {
        const double scaled = static_cast<double>(sum) * scale;
        switch (dtype) {
            case Dtype::kFloat32:
                static_cast<float*>(data)[place] = static_cast<float>(scaled);
                break;
            case Dtype::kFloat16:
                static_cast<Float16*>(data)[place] = to_float16(to_float_odd(scaled));
                break;
            case Dtype::kBFloat16:
                static_cast<BFloat16*>(data)[place] = to_bfloat16(to_float_odd(scaled));
                break;
            default:
                static_cast<double*>(data)[place] = scaled;
                break;
        }
    }
};

}  // namespace slipstick::cuda::projection
