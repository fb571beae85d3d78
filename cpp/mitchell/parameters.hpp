// A method as the kernels take it, prepared for one dtype. Plain data: a GPU kernel gets a copy.
#pragma once

#include <cstdint>

namespace slipstick::mitchell {

enum class Kind : uint8_t {
    kMitchell,
    kRaw,
    kKossonJaggi,
    kLMul,
    kLMulFormula,
    kMbm,
    kRealm,
    kIlm,
    kMitchW,
    kDrum,
    kAlmSoa,
    kOperandDecomposition,
    kTable,
};

struct Parameters {
    uint64_t c;         // floats: 1.0 less the offset, in the bits of the operands' format
    uint64_t fraction;  // integers: floor(offset * 2^64)
    int64_t width;      // the method's own parameter
    int fraction_bits;  // m of the operands' format; n - 1 for integers of n bits
    int table_bits;     // log2 of the table's side
    const uint16_t* table;
};

}  // namespace slipstick::mitchell
