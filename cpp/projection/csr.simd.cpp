#include "projection/csr_kernels.hpp"
#include "projection/entries.hpp"
#include "projection/kernels.hpp"

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

using projection::Hit;
using projection::kPadding;
using projection::kSignBlock;
using projection::kSlotGroup;
using projection::Law;
using projection::Segment;
using slipstick::projection::kRademacherTag;

// --- Slots ---

void make_bits(const Law& law, const uint64_t* features, int64_t count, int64_t components,
               uint32_t* slots) {
    constexpr int64_t batch = kSideBySide * kWordLanes;
    const RoundKeys keys(law.seed);
    const int64_t sign_blocks = (components + kSignBlock - 1) / kSignBlock;
    for (int64_t first = 0; first < count; first += batch) {
        const int64_t used = count - first < batch ? count - first : batch;
        uint64_t columns[batch];
        for (int64_t i = 0; i < batch; ++i) columns[i] = features[first + (i < used ? i : 0)];
        for (int64_t group = 0; group < sign_blocks; ++group) {
            Words blocks;
            for (int b = 0; b < kSideBySide; ++b) {
                const Word j = load<Word>(columns + b * kWordLanes);
                blocks.word[0][b] = broadcast(static_cast<uint64_t>(group));
                blocks.word[1][b] = j;
                blocks.word[2][b] = j >> 32;
                blocks.word[3][b] = broadcast(uint64_t{kRademacherTag});
            }
            philox(blocks, keys);
            uint64_t made[4][batch];
            for (int word = 0; word < 4; ++word) {
                for (int b = 0; b < kSideBySide; ++b)
                    store(made[word] + b * kWordLanes, blocks.word[word][b]);
            }
            for (int64_t i = 0; i < used; ++i) {
                uint32_t* const slot = slots + ((first + i) * sign_blocks + group) * 4;
                for (int word = 0; word < 4; ++word)
                    slot[word] = static_cast<uint32_t>(made[word][i]);
            }
        }
    }
}

// Calls body(i, component, entries) for vectors of entries of feature i, in order.
template <class Entries, class Body>
SLIPSTICK_INLINE void for_each_entry_vector(const Law& law, const uint64_t* features, int64_t count,
                                            int64_t components, Body body) {
    static_assert(kPadding % kWordColumns == 0);
    const RoundKeys keys(law.seed);
    const Entries entries(law);
    for (int64_t i = 0; i < count; ++i) {
        for (int64_t component = 0; component < components;
             component += kSideBySide * kWordColumns) {
            uint64_t same[kSideBySide];
            Word groups[kSideBySide];
            for (int b = 0; b < kSideBySide; ++b) {
                same[b] = features[i];
                groups[b] = broadcast(static_cast<uint64_t>(component + b * kWordColumns) / 4) +
                            lane_numbers();
            }
            Vec<float> made[kSideBySide][2];
            make_entries(entries, keys, same, groups, made);
            for (int b = 0; b < kSideBySide; ++b) {
                const int64_t first = component + b * kWordColumns;
                if (first >= components) break;
                body(i, first, made[b][0]);
                body(i, first + kLanes<float>, made[b][1]);
            }
        }
    }
}

void make_entry_slots(const Law& law, const uint64_t* features, int64_t count, int64_t components,
                      float* slots) {
    const auto put = [&](int64_t i, int64_t component, Vec<float> entries) {
        store(slots + i * components + component, entries);
    };
    if (law.kind == projection::Kind::kGaussian) {
        for_each_entry_vector<GaussianEntries>(law, features, count, components, put);
    } else {
        for_each_entry_vector<SparseEntries>(law, features, count, components, put);
    }
}

int64_t make_sparse_hits(const Law& law, uint64_t feature, int64_t components, Hit* hits) {
    int64_t count = 0;
    for_each_entry_vector<SparseEntries>(
        law, &feature, 1, components, [&](int64_t, int64_t component, Vec<float> entries) {
            const auto pattern = bit_cast<Vec<uint32_t>>(entries);
            if (!any(pattern)) return;
            uint32_t lanes[kLanes<float>];
            store(lanes, pattern);
            for (int64_t lane = 0; lane < kLanes<float>; ++lane) {
                if (lanes[lane] == 0) continue;
                hits[count++] = static_cast<Hit>((component + lane) << 1) | lanes[lane] >> 31;
            }
        });
    return count;
}

// --- Sums ---

// The products of a number with the signs of `vectors` vectors of components from `component` on,
// a multiple of the lanes; those of a word of 32 where `vectors` makes more of it.
template <class T, int vectors>
struct SignProducts {
    static constexpr bool kGrouped = true;  // a group of features is summed first
    using Lane = typename BitsOf<T>::Unsigned;
    using Signed = typename BitsOf<T>::Signed;
    static constexpr int kLane = kLanes<T>;
    static constexpr int kPerWord = 32 / kLane;
    static constexpr int kWords = (vectors + kPerWord - 1) / kPerWord;

    // Bit 31 (63) of a lane decides. The bits of a word's first vector are spread so that those of
    // the next ones follow by a shift of all lanes alike.
    SLIPSTICK_INLINE SignProducts(const T (&x)[2], const uint8_t* slot, int64_t component)
        : plus(broadcast(x[0])), minus(broadcast(x[1])) {
        Vec<Lane> spread;
        for (int lane = 0; lane < kLane; ++lane) spread[lane] = static_cast<Lane>(kLane - 1 - lane);
        for (int w = 0; w < kWords; ++w) {
            uint32_t word;
            __builtin_memcpy(&word, slot + (component / 32 + w) * 4, sizeof word);
            if (vectors < kPerWord) word >>= component % 32;
            words[w] = broadcast(Lane{word}) << spread;
        }
    }
    SLIPSTICK_INLINE Vec<T> operator()(int v) const {
        const int shift = 8 * static_cast<int>(sizeof(T)) - kLane * (v % kPerWord + 1);
        return bit_cast<Vec<Signed>>(words[v / kPerWord] << shift) < 0 ? minus : plus;
    }
    SLIPSTICK_INLINE Vec<T> add_to(Vec<T> chain, int v) const { return chain + (*this)(v); }

    Vec<T> plus;
    Vec<T> minus;
    Vec<Lane> words[kWords];
};

template <class T>
SLIPSTICK_INLINE Vec<T> load_entries(const uint8_t* slot, int64_t component) {
    const auto* const entries = reinterpret_cast<const float*>(slot) + component;
    if constexpr (sizeof(T) == sizeof(float)) {
        return load<Vec<T>>(entries);
    } else {
        return __builtin_convertvector((load<VecLike<float, double>>(entries)), Vec<double>);
    }
}

template <class T, int vectors>
struct EntryProducts {
    static constexpr bool kGrouped = false;
    SLIPSTICK_INLINE EntryProducts(const T (&number)[2], const uint8_t* slot, int64_t component)
        : x(broadcast(number[0])),
          entries(slot + component * static_cast<int64_t>(sizeof(float))) {}
    SLIPSTICK_INLINE Vec<T> operator()(int v) const {
        return x * load_entries<T>(entries, v * kLanes<T>);
    }
    SLIPSTICK_INLINE Vec<T> add_to(Vec<T> chain, int v) const {
        return fma(x, load_entries<T>(entries, v * kLanes<T>), chain);
    }

    Vec<T> x;
    const uint8_t* entries;
};

// What is known of a nonzero before its products: at most 512 at a time, whole blocks.
template <class T>
struct Batch {
    static constexpr int64_t kSize = 512;
    int64_t count = 0;
    T values[kSize][2];  // x and -x
    const uint8_t* slot[kSize];
    bool is_last[kSize];     // of its block
    bool ends_group[kSize];  // of kSignGroup features
};

template <class T, class Index>
SLIPSTICK_INLINE int64_t fill(const Segment& segment, int64_t begin, Batch<T>& batch) {
    const auto* const values = static_cast<const T*>(segment.values);
    const auto* const columns = static_cast<const Index*>(segment.columns);
    constexpr int64_t ahead = 96;  // nonzeros, of this row or the next, between a fetch and its use
    int64_t end = segment.count;
    const auto place_of = [&](int64_t i) {
        return static_cast<uint64_t>(static_cast<int64_t>(columns[i]) + segment.block_origin);
    };
    if (end - begin > Batch<T>::kSize) {
        end = begin + Batch<T>::kSize;
        // A block has at most half the room.
        while (place_of(end - 1) / kDepthBlock == place_of(end) / kDepthBlock) --end;
    }
    batch.count = end - begin;
    for (int64_t i = begin; i < end; ++i) {
        const int64_t slot = segment.by_position
                                 ? i + segment.first_slot
                                 : static_cast<int64_t>(columns[i]) - segment.first_slot;
        batch.values[i - begin][0] = values[i];
        batch.values[i - begin][1] = -values[i];
        batch.slot[i - begin] =
            static_cast<const uint8_t*>(segment.table) + slot * segment.slot_bytes;
        if (!segment.by_position) {
            const int64_t next = i + ahead < segment.readable ? i + ahead : i;
            __builtin_prefetch(static_cast<const uint8_t*>(segment.table) +
                               (static_cast<int64_t>(columns[next]) - segment.first_slot) *
                                   segment.slot_bytes);
        }
        // The bits above those in which two columns of a block, or of a group, may differ.
        const uint64_t apart = i + 1 == end ? ~uint64_t{0} : place_of(i) ^ place_of(i + 1);
        batch.is_last[i - begin] = apart >= kDepthBlock;
        batch.ends_group[i - begin] = apart >= projection::kSignGroup;
    }
    return end;
}

// sums += the products of nonzeros [begin, end), each alone in its block, or all of one block.
template <class T, template <class, int> class Products, int vectors>
SLIPSTICK_INLINE void add_alone(const Batch<T>& batch, int64_t begin, int64_t end,
                                int64_t component, T* sums) {
    constexpr int lanes = kLanes<T>;
    Vec<T> sum[vectors];
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) sum[v] = load<Vec<T>>(sums + component + v * lanes);
    for (int64_t i = begin; i < end; ++i) {
        const Products<T, vectors> products(batch.values[i], batch.slot[i], component);
#pragma GCC unroll 8
        for (int v = 0; v < vectors; ++v) sum[v] += products(v);
    }
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) store(sums + component + v * lanes, sum[v]);
}
template <class T, template <class, int> class Products, int vectors>
SLIPSTICK_INLINE void add_chain(const Batch<T>& batch, int64_t begin, int64_t end,
                                int64_t component, T* sums) {
    constexpr int lanes = kLanes<T>;
    Vec<T> chain[vectors];
    const Products<T, vectors> first(batch.values[begin], batch.slot[begin], component);
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) chain[v] = first(v);
    int64_t i = begin + 1;
    if constexpr (Products<T, vectors>::kGrouped) {
        for (; !batch.ends_group[i - 1]; ++i) {
            const Products<T, vectors> next(batch.values[i], batch.slot[i], component);
#pragma GCC unroll 8
            for (int v = 0; v < vectors; ++v) chain[v] = next.add_to(chain[v], v);
        }
    }
    while (i < end) {
        const Products<T, vectors> next(batch.values[i], batch.slot[i], component);
        if (!Products<T, vectors>::kGrouped || batch.ends_group[i]) {
            ++i;
#pragma GCC unroll 8
            for (int v = 0; v < vectors; ++v) chain[v] = next.add_to(chain[v], v);
            continue;
        }
        Vec<T> group[vectors];
#pragma GCC unroll 8
        for (int v = 0; v < vectors; ++v) group[v] = next(v);
        do {
            ++i;
            const Products<T, vectors> more(batch.values[i], batch.slot[i], component);
#pragma GCC unroll 8
            for (int v = 0; v < vectors; ++v) group[v] = more.add_to(group[v], v);
        } while (!batch.ends_group[i]);
        ++i;
#pragma GCC unroll 8
        for (int v = 0; v < vectors; ++v) chain[v] += group[v];
    }
    T* const target = sums + component;
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v)
        store(target + v * lanes, load<Vec<T>>(target + v * lanes) + chain[v]);
}

// A chain (or a group) that starts with its first product differs from one that starts at +0 in the
// sign of a zero alone, which the sum, +0 at first and hence never -0, does not keep.
template <class T, class Index, template <class, int> class Products>
void accumulate(const Segment& segment, void* target) {
    constexpr int vectors = 8;
    constexpr int lanes = kLanes<T>;
    constexpr int64_t step = vectors * lanes;
    T* const sums = static_cast<T*>(target);
    const int64_t whole = segment.components / step * step;
    Batch<T> batch;
    for (int64_t begin = 0; begin < segment.count;) {
        begin = fill<T, Index>(segment, begin, batch);
        // Runs outside, components inside: where a run ends is guessed wrongly once, not for every
        // few components.
        for (int64_t i = 0; i < batch.count;) {
            int64_t end = i;
            while (end < batch.count && batch.is_last[end]) ++end;
            if (end > i) {
                for (int64_t c = 0; c < whole; c += step)
                    add_alone<T, Products, vectors>(batch, i, end, c, sums);
                for (int64_t c = whole; c < segment.components; c += lanes)
                    add_alone<T, Products, 1>(batch, i, end, c, sums);
                i = end;
                continue;
            }
            while (!batch.is_last[end]) ++end;
            ++end;
            for (int64_t c = 0; c < whole; c += step)
                add_chain<T, Products, vectors>(batch, i, end, c, sums);
            for (int64_t c = whole; c < segment.components; c += lanes)
                add_chain<T, Products, 1>(batch, i, end, c, sums);
            i = end;
        }
    }
}

template <class T>
SLIPSTICK_INLINE T signed_value(T value, Hit hit) {
    using Lane = typename BitsOf<T>::Unsigned;
    const Lane sign = static_cast<Lane>(Lane{hit & 1} << (8 * sizeof(Lane) - 1));
    return bit_cast<T>(bit_cast<Lane>(value) ^ sign);
}

// Where the chain of a component in the block at hand stands.
template <class T>
struct Chain {
    T before;  // the component's sum when the block began
    T chain;
    uint64_t run;  // which block has met the component last, by a number that never comes back
};
static_assert(sizeof(Chain<float>) <= projection::kChainBytes &&
              sizeof(Chain<double>) <= projection::kChainBytes);

template <class T, class Index>
void accumulate_hits(const Segment& segment, void* target) {
    T* const sums = static_cast<T*>(target);
    const auto* const values = static_cast<const T*>(segment.values);
    const auto* const columns = static_cast<const Index*>(segment.columns);
    Chain<T>* const chains = static_cast<Chain<T>*>(segment.chains);
    struct Range {
        const Hit* begin;
        const Hit* end;
    };
    const auto slot_of = [&](int64_t i) {
        return segment.by_position ? i + segment.first_slot
                                   : static_cast<int64_t>(columns[i]) - segment.first_slot;
    };
    const int64_t fixed = segment.slot_bytes / static_cast<int64_t>(sizeof(Hit));
    const auto hits_of = [&](int64_t i) {
        const int64_t slot = slot_of(i);
        if (fixed > 0) {
            const Hit* const hits = static_cast<const Hit*>(segment.table) + slot * fixed;
            return Range{hits, hits + fixed};
        }
        const int64_t group = slot / kSlotGroup;
        const uint32_t* const ends = segment.offsets + group * (kSlotGroup + 1) + slot % kSlotGroup;
        return Range{segment.hits[group] + ends[0], segment.hits[group] + ends[1]};
    };
    constexpr int64_t ahead = 32;  // nonzeros, of this row or the next, between a fetch and its use
    const auto block_of = [&](int64_t i) {
        return (static_cast<int64_t>(columns[i]) + segment.block_origin) / kDepthBlock;
    };
    // A wrong guess of whether a nonzero is alone in its block costs as much as four hits.
    const bool always_chained = fixed > 0 && fixed < 4;
    uint64_t run = *segment.run;
    int64_t block = -1;
    for (int64_t i = 0; i < segment.count; ++i) {
        // Written out: GCC takes a function that only fetches for one without effect.
        if (fixed > 0 && !segment.by_position) {
            const int64_t slot = slot_of(i + ahead < segment.readable ? i + ahead : i);
            __builtin_prefetch(static_cast<const Hit*>(segment.table) + slot * fixed);
        } else if (!segment.by_position) {
            const int64_t slot = slot_of(i + ahead < segment.readable ? i + ahead : i);
            __builtin_prefetch(segment.offsets + slot / kSlotGroup * (kSlotGroup + 1) +
                               slot % kSlotGroup);
            // And what the offsets, fetched by now, lead to.
            if (i + ahead / 2 < segment.count) __builtin_prefetch(hits_of(i + ahead / 2).begin);
        }
        const int64_t next = block_of(i);
        run += next != block ? 1 : 0;
        const bool alone = next != block && (i + 1 == segment.count || block_of(i + 1) != next);
        block = next;
        const Range hits = hits_of(i);
        if (!always_chained && alone) {
            for (const Hit* hit = hits.begin; hit < hits.end; ++hit)
                sums[*hit >> 1] += signed_value(values[i], *hit);
            continue;
        }
        for (const Hit* hit = hits.begin; hit < hits.end; ++hit) {
            const uint32_t component = *hit >> 1;
            Chain<T>& place = chains[component];
            const bool again = place.run == run;
            const T before = again ? place.before : sums[component];
            const T chain = (again ? place.chain : T{0}) + signed_value(values[i], *hit);
            place = {before, chain, run};
            sums[component] = before + chain;
        }
    }
    *segment.run = run;
}

// Whether the columns of rows lie below `features`, and increase.
template <class Index>
void check_rows(const void* source, const void* row_starts, int64_t begin, int64_t end,
                uint64_t features, bool* in_range, bool* increasing) {
    using Unsigned = std::make_unsigned_t<Index>;
    const auto* const columns = static_cast<const Index*>(source);
    const auto* const starts = static_cast<const Index*>(row_starts);
    const auto last_column =
        static_cast<Unsigned>(features - 1 < Unsigned(-1) / 2 ? features - 1 : Unsigned(-1) / 2);
    Unsigned outside = 0;
    Unsigned falls = 0;
    for (int64_t row = begin; row < end; ++row) {
        const int64_t last = starts[row + 1];
        for (int64_t i = starts[row]; i < last; ++i)
            outside |= static_cast<Unsigned>(static_cast<Unsigned>(columns[i]) > last_column);
        for (int64_t i = starts[row] + 1; i < last; ++i)
            falls |= static_cast<Unsigned>(columns[i - 1] >= columns[i]);
    }
    *in_range &= outside == 0;
    *increasing &= falls == 0;
}

template <class T>
void scale_row(const void* sums, int64_t count, double scale, void* out) {
    const T* const source = static_cast<const T*>(sums);
    T* const target = static_cast<T*>(out);
    for (int64_t i = 0; i < count; ++i)
        target[i] = static_cast<T>(static_cast<double>(source[i]) * scale);
}

}  // namespace

const projection::CsrKernels projection_csr_kernels = {
    .make_bits = &make_bits,
    .make_entries = &make_entry_slots,
    .make_sparse_hits = &make_sparse_hits,
    .accumulate =
        {{{&accumulate<float, int32_t, SignProducts>, &accumulate<float, int64_t, SignProducts>},
          {&accumulate<double, int32_t, SignProducts>, &accumulate<double, int64_t, SignProducts>}},
         {{&accumulate<float, int32_t, EntryProducts>, &accumulate<float, int64_t, EntryProducts>},
          {&accumulate<double, int32_t, EntryProducts>,
           &accumulate<double, int64_t, EntryProducts>}},
         {{&accumulate_hits<float, int32_t>, &accumulate_hits<float, int64_t>},
          {&accumulate_hits<double, int32_t>, &accumulate_hits<double, int64_t>}}},
    .check_rows = {&check_rows<int32_t>, &check_rows<int64_t>},
    .scale = {&scale_row<float>, &scale_row<double>},
};

}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
