// The methods' names for the compiler; methods.hpp says what each of them does.
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

}  // namespace slipstick::mitchell
