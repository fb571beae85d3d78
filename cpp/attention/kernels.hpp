// What a level offers to the family. Scores are held transposed, keys x rows, with the rows of a
// panel in the lanes of a vector: maxima, sums and the rows' own factors are plain vectors, and the
// weights are the packed right operand of the product with the values as they lie.
#pragma once

#include <cstdint>

#include "core/dtype.hpp"
#include "core/isa.hpp"

namespace slipstick::cpu::attention {

inline constexpr int64_t kMostLanes = 32;  // of a panel, at any level

// `lanes` query rows. Each array holds one element a row, unless it says otherwise. Query, key and
// value are filled by a level's pack_ functions and read by its folds alone: where those multiply
// pairs of bfloat16 (bfloat16.hpp) the pairs take the first half of the room.
template <class Acc>
struct Panel {
    Acc* query;      // dim x lanes
    Acc* factor;     // lambda
    Acc* maximum;    // m, -inf at the start
    Acc* sum;        // l = sum of e^(s - m)
    Acc* moment;     // a = sum of e^(s - m) (s - m)
    Acc* out;        // dim_v (rounded up to tile_rows) x lanes: sum of e^(s - m) v
    int64_t* first;  // the row sees the keys first <= j < last that its mask shows
    int64_t* last;
};

// A run of keys with its values, packed; shared by all rows.
template <class Acc>
struct KeyTile {
    const Acc* key;    // panels of tile_rows keys, each dim x tile_rows
    const Acc* value;  // panels of tile_rows columns, each keys x tile_rows
    int64_t start;     // number of the first key
    int64_t keys;
    bool finite;  // no value is an infinity or NaN
};

// How the keys [begin, end) of a tile, counted from its start, turn into scores. `begin` is a
// multiple of tile_rows.
template <class Acc>
struct Step {
    int64_t dim;
    int64_t dim_v;
    int64_t begin;
    int64_t end;
    bool all_visible;  // every row sees every key from begin to end
    const Acc* bias;   // (end - begin) x lanes, or null
    Acc softcap;       // 0: none
    Acc* scores;       // room for (end - begin, rounded up to tile_rows) x lanes
};

template <class Acc>
struct Forward {
    int64_t lanes;
    int64_t tile_rows;
    // `lanes` rows, of `dim` elements, into a panel's query; zeros for a null one.
    void (*pack_queries)(const void* const* rows, int64_t stride, int64_t dim, Acc* panel);
    void (*pack_keys)(const void* source, int64_t key_stride, int64_t dim_stride, int64_t keys,
                      int64_t dim, Acc* packed);
    // Returns whether all are finite.
    bool (*pack_values)(const void* source, int64_t key_stride, int64_t dim_stride, int64_t keys,
                        int64_t dim_v, Acc* packed);
    // Takes a step's keys into m, l, out, and (fold_moment) a.
    void (*fold)(const Panel<Acc>&, const KeyTile<Acc>&, const Step<Acc>&);
    void (*fold_moment)(const Panel<Acc>&, const KeyTile<Acc>&, const Step<Acc>&);
    // rows[lane][c * stride] = round(out / sum), for the first `count` lanes.
    void (*finish)(const Panel<Acc>&, int64_t dim_v, void* const* rows, int64_t count,
                   int64_t stride);
};

template <class Acc>
struct Softmax {
    int64_t lanes;
    // row[j] = source[j * stride]; returns how many are above -inf. NaN counts.
    int64_t (*read)(const void* source, int64_t stride, int64_t count, Acc* row);
    // scores -> weights, in place; room for a multiple of `lanes`. An empty row becomes zeros.
    void (*weigh)(Acc* row, int64_t count, Acc factor, bool empty);
    void (*write)(const Acc* row, void* target, int64_t stride, int64_t count);
};

template <class Acc>
struct ForDtype {
    Forward<Acc> forward;
    Softmax<Acc> softmax;
};

template <class T>
struct AccOfType {
    using type = float;
};
template <>
struct AccOfType<double> {
    using type = double;
};
// What T is accumulated in.
template <class T>
using AccOf = typename AccOfType<T>::type;

// A table for each dtype.
template <template <class> class Table>
struct PerFloat {
    Table<float> float32;
    Table<double> float64;
    Table<float> float16;
    Table<float> bfloat16;

    template <class T>
    const Table<AccOf<T>>& of() const {
        if constexpr (DtypeOf<T>::value == Dtype::kFloat32) {
            return float32;
        } else if constexpr (DtypeOf<T>::value == Dtype::kFloat64) {
            return float64;
        } else if constexpr (DtypeOf<T>::value == Dtype::kFloat16) {
            return float16;
        } else {
            return bfloat16;
        }
    }
};

using Kernels = PerFloat<ForDtype>;

}  // namespace slipstick::cpu::attention

namespace slipstick::cpu {
SLIPSTICK_LEVEL_TABLE(attention::Kernels, attention_kernels)
}  // namespace slipstick::cpu
