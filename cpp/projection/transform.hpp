// The fast Walsh-Hadamard transform of rows in memory, cut into passes that fit the caches: what
// hadamard, rotate and srht compute with.
#pragma once

#include <array>

#include "core/tensor.hpp"
#include "projection/names.hpp"
#include "projection/transform_kernels.hpp"
#include "projection/vector_pairs.hpp"

namespace slipstick::cpu::projection {

// What numbers of a dtype are computed in: float, else double.
constexpr bool computed_in_float(Dtype dtype) {
    return dtype == Dtype::kFloat32 || dtype == Dtype::kFloat16 || dtype == Dtype::kBFloat16;
}

// The transform of 2^log2n numbers of a dtype of the table's, without a scale, or orthonormal: a
// factor 1/4 before the stages 0, 4, 8, ... (1/2 where two or three stages are left, none where one
// is), and the square root of 1/2, rounded to the numbers' type, in the first factor where log2n is
// odd. `mixed` divides the first factor by the square root of so many rows, which are to be mixed.
// No sum on the way then exceeds the norm of the vector.
class Transform {
public:
    enum class Scale { kNone, kOrthonormal };
    Transform(Dtype dtype, int log2n, Scale scale, int mixed = 1);

    int log2n() const { return log2n_; }
    int64_t size() const { return int64_t{1} << log2n_; }
    int64_t item() const { return item_; }
    const TransformKernels& kernels() const { return kernels_; }

    // Rows of adjacent numbers. Long rows are split over the threads; short ones are the caller's
    // to split.
    void rows(const void* source, int64_t source_stride, void* target, int64_t target_stride,
              int64_t count, const uint32_t* signs = nullptr) const;
    // Down the columns of a matrix, split over the threads.
    void columns(const void* source, int64_t source_stride, void* target, int64_t target_stride,
                 int64_t columns) const {
        column_stages(source, source_stride, target, target_stride, columns, 0);
    }

private:
    // The stages from `first_stage` on, of which row i of the matrix is the i-th at that distance.
    void column_stages(const void* source, int64_t source_stride, void* target,
                       int64_t target_stride, int64_t columns, int first_stage) const;
    const double* scales() const { return scaled_ ? scales_.data() : nullptr; }

    const TransformKernels& kernels_;
    int log2n_;
    int64_t item_;  // bytes of a number
    bool scaled_;
    std::array<double, 64 / kScaleStages + 1> scales_{};
};

}  // namespace slipstick::cpu::projection
