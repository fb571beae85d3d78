// What a level offers to sparse input: columns of the matrix in the form that suits the kind, and
// the sum of a row's nonzeros times them.
#pragma once

#include "core/dtype.hpp"
#include "core/isa.hpp"
#include "core/matmul.hpp"
#include "projection/hashed_kernels.hpp"
#include "projection/projection.hpp"

namespace slipstick::cpu::projection {

// A column of the matrix in a table: kBits holds 4 words of 32 signs for each 128 components,
// kEntries one float32 a component, kHits the nonzeros.
enum class Form : int { kBits, kEntries, kHits };
inline constexpr int kFormCount = 3;

// Components are padded to whole vectors of every level.
inline constexpr int64_t kPadding = 32;
inline constexpr int64_t kSignBlock = 128;
// Slots are made, and their hits kept, by groups.
inline constexpr int64_t kSlotGroup = 256;

inline constexpr int64_t kChainBytes = 24;

// A piece of a row: whole blocks of 256 features, by increasing column.
struct Segment {
    const void* values;
    const void* columns;
    int64_t count;
    int64_t readable;      // columns from there on, those of the segment and what follows it
    int64_t block_origin;  // column c belongs to block (c + block_origin) / 256
    // The slot of nonzero i is i + first_slot where slots are by position, else its column -
    // first_slot.
    bool by_position;
    int64_t first_slot;
    // Slots of slot_bytes; or, where that is 0, the hits of group g are at hits[g], those of slot s
    // of it from offsets[g * (kSlotGroup + 1) + s] on.
    const void* table;
    int64_t slot_bytes;
    const Hit* const* hits;
    const uint32_t* offsets;
    void* chains;        // kHits: kChainBytes a component, zeros before the first use
    uint64_t* run;       // kHits: 0 before the first use of `chains`
    int64_t components;  // padded
};

// sums += the row's products, a chain a block, blocks in order.
using AccumulateFn = void (*)(const Segment& segment, void* sums);

struct CsrKernels {
    // Fills slots of `features`: signs, entries of kind gaussian or sparse.
    void (*make_bits)(const Law& law, const uint64_t* features, int64_t count, int64_t components,
                      uint32_t* slots);
    void (*make_entries)(const Law& law, const uint64_t* features, int64_t count,
                         int64_t components, float* slots);
    // The nonzeros of a column of kind sparse; returns how many. `hits` has room for all padded
    // components.
    int64_t (*make_sparse_hits)(const Law& law, uint64_t feature, int64_t components, Hit* hits);
    // By dtype of the values (float32, float64) and width of the columns (int32, int64).
    AccumulateFn accumulate[kFormCount][2][2];
    // Of rows [begin, end), by width of the columns: clears what does not hold. features >= 1.
    void (*check_rows[2])(const void* columns, const void* row_starts, int64_t begin, int64_t end,
                          uint64_t features, bool* in_range, bool* increasing);
    // out[i] = round(sums[i] * scale), in float64.
    void (*scale[2])(const void* sums, int64_t count, double scale, void* out);
};

}  // namespace slipstick::cpu::projection

namespace slipstick::cpu {
SLIPSTICK_LEVEL_TABLE(projection::CsrKernels, projection_csr_kernels)
}  // namespace slipstick::cpu
