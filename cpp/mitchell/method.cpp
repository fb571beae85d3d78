#include "mitchell/method.hpp"

#include <cmath>

#include "core/error.hpp"
#include "mitchell/methods.hpp"
#include "mitchell/operands.hpp"

namespace slipstick::mitchell {
namespace {

[[noreturn]] void refuse_dtype(const char* function, const char* method, const char* expected,
                               Dtype dtype) {
    refuse_type(function, "`method` must be one for ", name(dtype), ", got ", method,
                ", which takes ", expected);
}

// A table of mantissas has at most 7 bits of them, as many as any format.
void check_table(const char* function, Dtype dtype, const Table& table) {
    if (table.side < 256) {
        if (!is_float(dtype)) refuse_dtype(function, "a Table of mantissas", kFloatDtypes, dtype);
        return;
    }
    const Dtype expected = table.is_signed ? Dtype::kInt8 : Dtype::kUInt8;
    if (dtype != expected) {
        refuse_dtype(function, table.is_signed ? "a signed Table" : "an unsigned Table",
                     name(expected), dtype);
    }
}

// A C++ caller can leave the table out, or describe it wrongly; Python's methods cannot.
void check_has_table(const char* function, const char* method, const Table* table) {
    if (table == nullptr) {
        refuse_value(function, "`method` must have a table, got ", method, " without one");
    }
    const auto entries = static_cast<int64_t>(table->entries.size());
    const int64_t side = table->side;
    if (side < 1 || side > 256 || (side & (side - 1)) != 0 || entries != side * side) {
        refuse_value(function,
                     "`method` must have a table of side * side entries, side a power of two up to "
                     "256, got ",
                     entries, " for a side of ", side);
    }
}

}  // namespace

bool find_kind(std::string_view name, Kind& kind) {
    bool found = false;
    Methods::for_each([&]<class M>() {
        if (name == M::kName) {
            kind = M::kKind;
            found = true;
        }
    });
    return found;
}

Method exchanged(const Method& method) {
    if (method.kind != Kind::kTable) return method;
    auto table = std::make_shared<Table>(*method.table);
    const auto side = static_cast<size_t>(table->side);
    for (size_t i = 0; i < side; ++i) {
        for (size_t j = 0; j < side; ++j)
            table->entries[side * i + j] = method.table->entries[side * j + i];
    }
    Method result = method;
    result.table = std::move(table);
    return result;
}

Parameters parameters(const char* function, Dtype dtype, const Method& method) {
    const bool floats = is_float(dtype);
    const int m =
        floats ? float_format(dtype).fraction_bits : static_cast<int>(item_size(dtype)) * 8 - 1;
    Parameters result{};
    result.fraction_bits = m;
    dispatch_method(method.kind, [&]<class M>() {
        if constexpr (M::kKind == Kind::kTable || M::kKind == Kind::kRealm)
            check_has_table(function, M::kSpelling, method.table.get());
        if constexpr (M::kDomain == Domain::kTable) {
            check_table(function, dtype, *method.table);
        } else if constexpr (M::kDomain == Domain::kFloats) {
            if (!floats) refuse_dtype(function, M::kSpelling, kFloatDtypes, dtype);
        } else if constexpr (M::kDomain == Domain::kFloat32) {
            if (dtype != Dtype::kFloat32) refuse_dtype(function, M::kSpelling, "float32", dtype);
        } else if constexpr (M::kDomain == Domain::kIntegers) {
            if (floats) refuse_dtype(function, M::kSpelling, kIntegerDtypes, dtype);
        }
        constexpr bool limited = M::limit(0).parameter != nullptr;
        if constexpr (limited) {
            if (method.width > M::limit(m).highest) {
                refuse_value(function, "`method` must have a `", M::limit(m).parameter,
                             "` of at most ", M::limit(m).highest, " for ", name(dtype), ", got ",
                             M::kSpelling, "(", M::limit(m).parameter, "=", method.width, ")");
            }
        }
        result.width = M::prepare(method.width, m, floats);
        const double offset = M::offset(method.bias, method.width, m);
        result.fraction = static_cast<uint64_t>(std::ldexp(offset, 64));
        if (floats) {
            constexpr bool adds_bits = M::kRule == Rule::kBitSum || M::kRule == Rule::kPattern;
            const double units = adds_bits ? std::nearbyint(std::ldexp(offset, m)) : 0;
            result.c = float_format(dtype).one - static_cast<uint64_t>(units);
        }
    });
    if (method.table != nullptr) {
        result.table = method.table->entries.data();
        while (int64_t{1} << result.table_bits < method.table->side) ++result.table_bits;
    }
    return result;
}

}  // namespace slipstick::mitchell
