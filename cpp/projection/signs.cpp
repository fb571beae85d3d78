#include "projection/signs.hpp"

#include <algorithm>
#include <atomic>

#include "core/rounding.hpp"
#include "projection/left_operand.hpp"

namespace slipstick::cpu::projection {
namespace {

// Packs which of `columns` numbers are >= 0 into bytes, bit 0 first; returns whether one is NaN.
template <class T>
bool pack_signs(const T* line, int64_t columns, uint8_t* bytes) {
    bool has_nan = false;
    for (int64_t first = 0; first < columns; first += 8) {
        const int64_t count = std::min<int64_t>(8, columns - first);
        unsigned byte = 0;
        for (int64_t i = 0; i < count; ++i) {
            const T value = line[first + i];
            byte |= static_cast<unsigned>(value >= T{0}) << i;
            has_nan |= value != value;
        }
        bytes[first / 8] = static_cast<uint8_t>(byte);
    }
    return has_nan;
}

}  // namespace

int64_t gaussian_signs(const ConstTensor& x, uint64_t seed, int64_t n_bits, uint8_t* codes) {
    const Product& product =
        *active_projection_kernels().product[static_cast<int>(Kind::kGaussian)][x.dtype];
    Law law{};
    law.kind = Kind::kGaussian;
    law.seed = seed;
    const LeftOperand left(product, x, 0);
    const int64_t bytes = ceil_div(n_bits, 8);
    const MatmulProblem problem{
        .rows = left.rows(),
        .depth = left.depth(),
        .columns = n_bits,
        .pack_columns = product.generate_columns,
    };
    std::atomic<int64_t> first_nan{problem.rows};
    // Blocks of columns begin at multiples of 8: no panel is narrower.
    matmul(
        product.matmul, nullptr, problem,
        [&](int64_t row, int64_t rows, int64_t k, int64_t depth, void* packed) {
            left.pack(row, rows, k, depth, packed);
        },
        [&](int64_t column, int64_t columns, int64_t k, int64_t depth, void* packed) {
            product.generate(law, static_cast<uint64_t>(k), static_cast<uint64_t>(column), columns,
                             depth, packed);
        },
        [&](int64_t row, int64_t rows, int64_t column, int64_t columns, const void* acc,
            int64_t acc_stride) {
            const bool is_float = product.matmul.acc_bytes == sizeof(float);
            for (int64_t i = 0; i < rows; ++i) {
                uint8_t* const target = codes + (row + i) * bytes + column / 8;
                const auto* floats = static_cast<const float*>(acc) + i * acc_stride;
                const auto* doubles = static_cast<const double*>(acc) + i * acc_stride;
                if (!(is_float ? pack_signs(floats, columns, target)
                               : pack_signs(doubles, columns, target)))
                    continue;
                int64_t seen = first_nan.load();
                while (row + i < seen && !first_nan.compare_exchange_weak(seen, row + i)) {
                }
            }
        });
    return first_nan.load() < problem.rows ? first_nan.load() : -1;
}

}  // namespace slipstick::cpu::projection
