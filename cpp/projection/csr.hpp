// Projection of a sparse matrix in compressed rows, without making it dense.
#pragma once

#include "projection/csr_matrix.hpp"
#include "projection/projection.hpp"

namespace slipstick::cpu::projection {

// Row starts and columns of either width.
class Indices {
public:
    explicit Indices(const ConstTensor& tensor)
        : data_(tensor.data), wide_(tensor.dtype == Dtype::kInt64) {}
    int64_t operator[](int64_t i) const {
        return wide_ ? static_cast<const int64_t*>(data_)[i]
                     : static_cast<const int32_t*>(data_)[i];
    }
    const void* at(int64_t i) const {
        return static_cast<const char*>(data_) + i * (wide_ ? 8 : 4);
    }
    bool wide() const { return wide_; }
    // The first i of [first, last) whose number is at least `number`; they increase.
    int64_t lower_bound(int64_t first, int64_t last, int64_t number) const {
        while (first < last) {
            const int64_t middle = first + (last - first) / 2;
            if ((*this)[middle] < number) {
                first = middle + 1;
            } else {
                last = middle;
            }
        }
        return first;
    }

private:
    const void* data_;
    bool wide_;
};

// Throws TypeError or std::invalid_argument for arrays that do not fit together, or columns outside
// the features. False where a row's columns do not increase, which project_csr asks for.
bool check_csr(const char* function, const Csr& x);

// (rows, n_components), with the bits of project for the dense matrix, where all its elements are
// finite: zeros are skipped here.
void project_csr(const Csr& x, const Law& law, uint64_t first_feature, const Tensor& out);

}  // namespace slipstick::cpu::projection
