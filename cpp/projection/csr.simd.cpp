#include "projection/csr_kernels.hpp"
#include "projection/entries.hpp"

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
                for (int word = 0; word < 4; ++word) slot[word] = static_cast<uint32_t>(made[word][i]);
            }
        }
    }
}

// Calls body(i, component, entries) for vectors of entries of feature i.
template <class Entries, class Body>
SLIPSTICK_INLINE void for_each_entry_vector(const Law& law, const uint64_t* features, int64_t count,
                                            int64_t components, Body body) {
    const RoundKeys keys(law.seed);
    const Entries entries(law);
    for (int64_t first = 0; first < count; first += kSideBySide) {
        uint64_t pair[kSideBySide];
        for (int b = 0; b < kSideBySide; ++b)
            pair[b] = features[first + b < count ? first + b : first];
        for (int64_t component = 0; component < components; component += kWordColumns) {
            const Word groups = broadcast(static_cast<uint64_t>(component) / 4) + lane_numbers();
            Vec<float> made[kSideBySide][2];
            make_entries(entries, keys, pair, groups, made);
            for (int b = 0; b < kSideBySide && first + b < count; ++b) {
                body(first + b, component, made[b][0]);
                body(first + b, component + kLanes<float>, made[b][1]);
            }
        }
    }
}

void make_entry_slots(const Law& law, const uint64_t* features, int64_t count, int64_t components,
                      float* slots) {
    static_assert(kPadding % kWordColumns == 0);
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

// The signs of 8 components by their byte: a load in place of the shift and the mask of each lane.
template <class T>
struct SignTable {
    typename BitsOf<T>::Unsigned mask[256][8];
    constexpr SignTable() : mask{} {
        using Lane = typename BitsOf<T>::Unsigned;
        for (int byte = 0; byte < 256; ++byte) {
            for (int bit = 0; bit < 8; ++bit)
                mask[byte][bit] = static_cast<Lane>(static_cast<Lane>(byte >> bit & 1)
                                                    << (8 * sizeof(Lane) - 1));
        }
    }
};
template <class T>
constexpr SignTable<T> kSignTable{};

// x with the signs of the components from `component` on, a multiple of the lanes.
template <class T>
struct Bits {
    using Lane = typename BitsOf<T>::Unsigned;
    static constexpr int kLane = kLanes<T>;
    SLIPSTICK_INLINE static Vec<T> product(T x, const uint8_t* slot, int64_t component) {
        Vec<Lane> mask;
        if constexpr (kLane <= 8) {
            mask = load<Vec<Lane>>(&kSignTable<T>.mask[slot[component / 8]][component % 8]);
        } else {
            static_assert(kLane == 16 && sizeof(T) == 4);
            uint16_t bits;
            __builtin_memcpy(&bits, slot + component / 8, sizeof bits);
            Vec<Lane> shifts;
            for (int lane = 0; lane < kLane; ++lane) shifts[lane] = static_cast<Lane>(31 - lane);
            mask = (broadcast(Lane{bits}) << shifts) & 0x80000000u;
        }
        return bit_cast<Vec<T>>(bit_cast<Vec<Lane>>(broadcast(x)) ^ mask);
    }
    SLIPSTICK_INLINE static Vec<T> add(Vec<T> chain, T x, const uint8_t* slot, int64_t component) {
        return chain + product(x, slot, component);
    }
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

template <class T>
struct EntryProducts {
    SLIPSTICK_INLINE static Vec<T> product(T x, const uint8_t* slot, int64_t component) {
        return broadcast(x) * load_entries<T>(slot, component);
    }
    SLIPSTICK_INLINE static Vec<T> add(Vec<T> chain, T x, const uint8_t* slot, int64_t component) {
        return fma(broadcast(x), load_entries<T>(slot, component), chain);
    }
};

// What is known of a nonzero before its products: at most 512 at a time, whole blocks.
template <class T>
struct Batch {
    static constexpr int64_t kSize = 512;
    int64_t count = 0;
    T value[kSize];
    const uint8_t* slot[kSize];
    bool is_last[kSize];  // of its block
};

template <class T, class Index>
SLIPSTICK_INLINE int64_t fill(const Segment& segment, int64_t begin, Batch<T>& batch) {
    const auto* const values = static_cast<const T*>(segment.values);
    const auto* const columns = static_cast<const Index*>(segment.columns);
    int64_t end = segment.count;
    const auto block_of = [&](int64_t i) {
        return (static_cast<int64_t>(columns[i]) + segment.block_origin) / kDepthBlock;
    };
    if (end - begin > Batch<T>::kSize) {
        end = begin + Batch<T>::kSize;
        while (block_of(end - 1) == block_of(end)) --end;  // a block has at most half the room
    }
    batch.count = end - begin;
    for (int64_t i = begin; i < end; ++i) {
        const int64_t slot = segment.by_position ? i + segment.first_slot
                                                 : static_cast<int64_t>(columns[i]) -
                                                       segment.first_slot;
        batch.value[i - begin] = values[i];
        batch.slot[i - begin] =
            static_cast<const uint8_t*>(segment.table) + slot * segment.slot_bytes;
        __builtin_prefetch(batch.slot[i - begin]);
        batch.is_last[i - begin] = i + 1 == end || block_of(i) != block_of(i + 1);
    }
    return end;
}

// A chain that starts with its first product differs from one that starts at +0 in the sign of a
// zero alone, which the sum, +0 at first and hence never -0, does not keep.
template <class T, class Products, int vectors>
SLIPSTICK_INLINE void add_batch(const Batch<T>& batch, int64_t component, T* sums) {
    constexpr int lanes = kLanes<T>;
    Vec<T> sum[vectors];
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) sum[v] = load<Vec<T>>(sums + component + v * lanes);
    for (int64_t i = 0; i < batch.count; ++i) {
        if (batch.is_last[i]) {
#pragma GCC unroll 8
            for (int v = 0; v < vectors; ++v)
                sum[v] += Products::product(batch.value[i], batch.slot[i], component + v * lanes);
            continue;
        }
        Vec<T> chain[vectors];
#pragma GCC unroll 8
        for (int v = 0; v < vectors; ++v)
            chain[v] = Products::product(batch.value[i], batch.slot[i], component + v * lanes);
        do {
            ++i;
#pragma GCC unroll 8
            for (int v = 0; v < vectors; ++v) {
                chain[v] = Products::add(chain[v], batch.value[i], batch.slot[i],
                                         component + v * lanes);
            }
        } while (!batch.is_last[i]);
#pragma GCC unroll 8
        for (int v = 0; v < vectors; ++v) sum[v] += chain[v];
    }
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) store(sums + component + v * lanes, sum[v]);
}

template <class T, class Index, class Products>
void accumulate(const Segment& segment, void* target) {
    constexpr int vectors = 8;
    constexpr int lanes = kLanes<T>;
    T* const sums = static_cast<T*>(target);
    Batch<T> batch;
    for (int64_t begin = 0; begin < segment.count;) {
        begin = fill<T, Index>(segment, begin, batch);
        int64_t component = 0;
        for (; component + vectors * lanes <= segment.components; component += vectors * lanes)
            add_batch<T, Products, vectors>(batch, component, sums);
        for (; component < segment.components; component += lanes)
            add_batch<T, Products, 1>(batch, component, sums);
    }
}

template <class T>
SLIPSTICK_INLINE T signed_value(T value, Hit hit) {
    return (hit & 1) != 0 ? -value : value;
}

template <class T, class Index>
void accumulate_hits(const Segment& segment, void* target) {
    T* const sums = static_cast<T*>(target);
    const auto* const values = static_cast<const T*>(segment.values);
    const auto* const columns = static_cast<const Index*>(segment.columns);
    const auto block_of = [&](int64_t i) {
        return (static_cast<int64_t>(columns[i]) + segment.block_origin) / kDepthBlock;
    };
    struct Range {
        const Hit* begin;
        const Hit* end;
    };
    const auto hits_of = [&](int64_t i) {
        const int64_t slot = segment.by_position ? i + segment.first_slot
                                                 : static_cast<int64_t>(columns[i]) -
                                                       segment.first_slot;
        const int64_t group = slot / kSlotGroup;
        const uint32_t* const ends = segment.offsets + group * (kSlotGroup + 1) + slot % kSlotGroup;
        return Range{segment.hits[group] + ends[0], segment.hits[group] + ends[1]};
    };
    T* const chains = static_cast<T*>(segment.chains);
    for (int64_t i = 0; i < segment.count;) {
        const Range first = hits_of(i);
        int64_t total = first.end - first.begin;
        int64_t end = i + 1;
        for (; end < segment.count && block_of(end) == block_of(i); ++end) {
            const Range hits = hits_of(end);
            total += hits.end - hits.begin;
        }
        if (end - i == 1) {
            for (const Hit* hit = first.begin; hit < first.end; ++hit)
                sums[*hit >> 1] += signed_value(values[i], *hit);
            i = end;
            continue;
        }
        // Chains that are +0 before and after. Few are listed, perhaps twice where one comes back
        // to 0: what is added then is +0. Of many, all are added.
        const bool listed = 4 * total < segment.components;
        uint32_t* touched = segment.touched;
        for (; i < end; ++i) {
            const Range hits = hits_of(i);
            for (const Hit* hit = hits.begin; hit < hits.end; ++hit) {
                T& chain = chains[*hit >> 1];
                *touched = *hit >> 1;
                touched += listed && chain == 0 ? 1 : 0;
                chain += signed_value(values[i], *hit);
            }
        }
        if (listed) {
            for (const uint32_t* component = segment.touched; component < touched; ++component) {
                sums[*component] += chains[*component];
                chains[*component] = 0;
            }
        } else {
            for (int64_t c = 0; c < segment.components; c += kLanes<T>) {
                store(sums + c, load<Vec<T>>(sums + c) + load<Vec<T>>(chains + c));
                store(chains + c, Vec<T>{});
            }
        }
    }
}

template <class T>
void scale_row(const void* sums, int64_t count, double scale, void* out) {
    const T* const source = static_cast<const T*>(sums);
    T* const target = static_cast<T*>(out);
    for (int64_t i = 0; i < count; ++i)
        target[i] = static_cast<T>(static_cast<double>(source[i]) * scale);
}

}  // namespace

const projection::CsrKernels csr_kernels = {
    .make_bits = &make_bits,
    .make_entries = &make_entry_slots,
    .make_sparse_hits = &make_sparse_hits,
    .accumulate = {{{&accumulate<float, int32_t, Bits<float>>,
                     &accumulate<float, int64_t, Bits<float>>},
                    {&accumulate<double, int32_t, Bits<double>>,
                     &accumulate<double, int64_t, Bits<double>>}},
                   {{&accumulate<float, int32_t, EntryProducts<float>>,
                     &accumulate<float, int64_t, EntryProducts<float>>},
                    {&accumulate<double, int32_t, EntryProducts<double>>,
                     &accumulate<double, int64_t, EntryProducts<double>>}},
                   {{&accumulate_hits<float, int32_t>, &accumulate_hits<float, int64_t>},
                    {&accumulate_hits<double, int32_t>, &accumulate_hits<double, int64_t>}}},
    .scale = {&scale_row<float>, &scale_row<double>},
};

}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
