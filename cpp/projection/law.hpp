// Which random matrix: what every function of the family is told, on any device.
#pragma once

#include <cstdint>
#include <string_view>

namespace slipstick::projection {

enum class Kind : int { kRademacher, kGaussian, kSparse, kSjlt, kCountsketch, kSrht };
inline constexpr int kProductKinds = 3;  // the first ones, whose entries are independent
constexpr bool is_hashed(Kind kind) { return kind == Kind::kSjlt || kind == Kind::kCountsketch; }

// By the name that the callers use; throws std::invalid_argument for another.
Kind kind_of(const char* function, std::string_view name);
const char* name(Kind kind);

struct Law {
    Kind kind;
    uint64_t seed;
    uint32_t threshold = 0;  // kSparse: an entry is not 0 iff its word's upper 31 bits are below
    double scale = 1;        // of the entries 0, +-1 and z
    int64_t nonzeros = 0;    // hashed kinds: of a column, s
    int64_t components = 0;  // hashed kinds and sparse input: k; at most 2^31 for hashed kinds
};

// Signs are summed by groups of four features (components, for the adjoint), aligned to the global
// index: ((+-x[0] +- x[1]) +- x[2]) +- x[3], then the groups. Part of the public definition.
inline constexpr int64_t kSignGroup = 4;

}  // namespace slipstick::projection
