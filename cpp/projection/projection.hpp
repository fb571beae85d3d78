// The projection family on the CPU: y = A x with a random matrix A that is never stored. Entry
// (i, j), component i and feature j, is a pure function of (kind, seed, i, j); README.md has the
// contract.
#pragma once

#include <cstdint>
#include <string_view>

#include "core/result.hpp"
#include "core/tensor.hpp"

namespace slipstick::cpu::projection {

enum class Kind : int { kRademacher, kGaussian, kSparse, kSjlt, kCountsketch, kSrht };
inline constexpr int kProductKinds = 3;  // the first ones, whose entries fill the panels of matmul
constexpr bool is_hashed(Kind kind) { return kind == Kind::kSjlt || kind == Kind::kCountsketch; }

// By the name that the callers use; throws std::invalid_argument for another.
Kind kind_of(const char* function, std::string_view name);

// Which matrix.
struct Law {
    Kind kind;
    uint64_t seed;
    uint32_t threshold = 0;  // kSparse: an entry is not 0 iff its word's upper 31 bits are below
    double scale = 1;        // of the entries 0, +-1 and z
    int64_t nonzeros = 0;    // hashed kinds: of a column, s
    int64_t components = 0;  // hashed kinds and sparse input: k; at most 2^31 for hashed kinds
};

// x (..., n_features) of any dtype gives (..., n_components) of the same, or of float64 for
// integers and bools. Throws where x has no features or its last one, first_feature + n_features -
// 1, does not fit 64 bits.
ResultSpec result_of_project(const ConstTensor& x, int64_t n_components, uint64_t first_feature);
// Column 0 of x is feature first_feature. Infinities and NaNs propagate.
void project(const ConstTensor& x, const Law& law, uint64_t first_feature, const Tensor& out);

// y (..., n_components) gives (..., n_features) of A^T y, by the rules of project. n_features >= 1.
ResultSpec result_of_back_project(const ConstTensor& y, int64_t n_features, uint64_t first_feature);
void back_project(const ConstTensor& y, const Law& law, uint64_t first_feature, const Tensor& out);

// out[i][j] = A[first_row + i][first_column + j], float64, from the generator of project.
void block(const Law& law, uint64_t first_row, uint64_t first_column, const Tensor& out);

}  // namespace slipstick::cpu::projection
