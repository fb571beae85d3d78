// Matrix products of 8-bit operands by a table of all 65,536 products.
//
// A gather costs one load a product. Here the table is turned round first: for one k and sixteen
// rows of the left operand, `rows[b]` holds the sixteen products with b side by side, 64 bytes, so
// that a column adds them with two vector loads. Turning 256 entries of sixteen rows takes about
// 1200 cycles, and each column saves 14 loads: worth it from about a hundred columns.
#include "core/simd.hpp"
#include "mitchell/kernels.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

using mitchell::kLookupRows;

typedef uint16_t Eight __attribute__((vector_size(16)));
template <class Entry>
using EightWide =
    typename VectorOf<std::conditional_t<std::is_signed_v<Entry>, int32_t, uint32_t>, 32>::type;

// Eight rows of eight entries, transposed.
SLIPSTICK_INLINE void transpose(Eight (&row)[8]) {
    Eight step[8];
    for (int i = 0; i < 4; ++i) {
        step[2 * i] = __builtin_shufflevector(row[i], row[i + 4], 0, 8, 1, 9, 2, 10, 3, 11);
        step[2 * i + 1] = __builtin_shufflevector(row[i], row[i + 4], 4, 12, 5, 13, 6, 14, 7, 15);
    }
    for (int i = 0; i < 4; ++i) {
        row[2 * i] = __builtin_shufflevector(step[i], step[i + 4], 0, 8, 1, 9, 2, 10, 3, 11);
        row[2 * i + 1] = __builtin_shufflevector(step[i], step[i + 4], 4, 12, 5, 13, 6, 14, 7, 15);
    }
    for (int i = 0; i < 4; ++i) {
        step[2 * i] = __builtin_shufflevector(row[i], row[i + 4], 0, 8, 1, 9, 2, 10, 3, 11);
        step[2 * i + 1] = __builtin_shufflevector(row[i], row[i + 4], 4, 12, 5, 13, 6, 14, 7, 15);
    }
    for (int i = 0; i < 8; ++i) row[i] = step[i];
}

// rows[b * kLookupRows + i] = table[left[i]][b]
template <class Entry>
SLIPSTICK_INLINE void turn(const Entry* table, const uint8_t* left, uint32_t* rows) {
    typedef Entry EightEntries __attribute__((vector_size(16)));
    for (int half = 0; half < kLookupRows; half += 8) {
        for (int b = 0; b < 256; b += 8) {
            Eight block[8];
            for (int i = 0; i < 8; ++i)
                block[i] = load<Eight>(table + 256 * int{left[half + i]} + b);
            transpose(block);
            for (int i = 0; i < 8; ++i) {
                store(rows + (b + i) * kLookupRows + half,
                      __builtin_convertvector(bit_cast<EightEntries>(block[i]), EightWide<Entry>));
            }
        }
    }
}

constexpr int kVectors = kLookupRows / kLanes<uint32_t>;

template <class Entry>
void lookup(const uint16_t* table, const uint8_t* left, const uint8_t* right, int64_t right_stride,
            int64_t depth, int64_t columns, uint32_t* scratch, uint32_t* acc) {
    using V = Vec<uint32_t>;
    const auto* entries = reinterpret_cast<const Entry*>(table);
    uint32_t* const second = scratch + 256 * kLookupRows;
    int64_t k = 0;
    // Two at a time: the sums are read and written half as often.
    for (; k + 2 <= depth; k += 2) {
        turn(entries, left + k * kLookupRows, scratch);
        turn(entries, left + (k + 1) * kLookupRows, second);
        const uint8_t* line = right + k * right_stride;
        const uint8_t* next = line + right_stride;
        for (int64_t j = 0; j < columns; ++j) {
            const uint32_t* a = scratch + int64_t{line[j]} * kLookupRows;
            const uint32_t* b = second + int64_t{next[j]} * kLookupRows;
            uint32_t* target = acc + j * kLookupRows;
            for (int v = 0; v < kVectors; ++v) {
                const int64_t at = v * kLanes<uint32_t>;
                store(target + at, load<V>(target + at) + load<V>(a + at) + load<V>(b + at));
            }
        }
    }
    if (k < depth) {
        turn(entries, left + k * kLookupRows, scratch);
        const uint8_t* line = right + k * right_stride;
        for (int64_t j = 0; j < columns; ++j) {
            const uint32_t* a = scratch + int64_t{line[j]} * kLookupRows;
            uint32_t* target = acc + j * kLookupRows;
            for (int v = 0; v < kVectors; ++v) {
                const int64_t at = v * kLanes<uint32_t>;
                store(target + at, load<V>(target + at) + load<V>(a + at));
            }
        }
    }
}

}  // namespace

const mitchell::LookupKernels mitchell_lookup_kernels = {
    .of_unsigned = &lookup<uint16_t>,
    .of_signed = &lookup<int16_t>,
};

}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
