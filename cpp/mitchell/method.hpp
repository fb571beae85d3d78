// Which multiplier runs: the description that a caller makes once, and what the kernels see of it.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "core/dtype.hpp"
#include "mitchell/kind.hpp"
#include "mitchell/parameters.hpp"

namespace slipstick::mitchell {

// A square array of bit patterns: 256 x 256 products of 8-bit operands, 2^m x 2^m mantissas with
// the carry above them (m = 1..7), or the 64 s_ij of REALM.
struct Table {
    std::vector<uint16_t> entries;
    int64_t side;
    bool is_signed;
};

// Of the width only what depends on the operands' dtype is checked (by parameters): it must be one
// that Python's class of the method takes. A caller in C++ keeps to that.
struct Method {
    Kind kind = Kind::kMitchell;
    int64_t width = 0;  // of the method's own parameter: bits, segments, iterations
    double bias = 0;    // d of Mitchell's method
    std::shared_ptr<const Table> table = nullptr;  // of kTable and kRealm
};

// The kernels that give the same bits where they may run; a test asks for each in turn. kExact
// gives ordinary products instead, whatever the method: what `matmul` is timed beside.
enum class Path { kAuto, kSums, kFlushed, kGeneral, kExact };

// The method of a name that a struct of methods.hpp carries, or false.
bool find_kind(std::string_view name, Kind& kind);

// The method with the operands in the other order: a table's axes exchanged, all others as they
// are.
Method exchanged(const Method& method);

// Throws std::invalid_argument or TypeError (core/error.hpp) where the method does not take
// operands of `dtype`.
Parameters parameters(const char* function, Dtype dtype, const Method& method);

}  // namespace slipstick::mitchell
