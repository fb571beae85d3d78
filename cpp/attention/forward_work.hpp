// What the threads of the forward pass share: packed key tiles, and the list of tiles to do.
#pragma once

#include <cstdint>
#include <vector>

#include "core/threads.hpp"

namespace slipstick::cpu::attention {

template <class Acc>
struct PackedTile {  // where it lies
    Acc* key;
    Acc* value;
    uint8_t* finite;
};

template <class Acc>
class PackedTiles {
public:
    PackedTiles(int64_t slots, int64_t key_size, int64_t value_size)
        : key_size_(key_size),
          value_size_(value_size),
          key_(slots * key_size * static_cast<int64_t>(sizeof(Acc))),
          value_(slots * value_size * static_cast<int64_t>(sizeof(Acc))),
          finite_(static_cast<size_t>(slots)) {}
    int64_t slots() const { return static_cast<int64_t>(finite_.size()); }
    PackedTile<Acc> slot(int64_t at) {
        return {key_.template as<Acc>() + at * key_size_,
                value_.template as<Acc>() + at * value_size_, finite_.data() + at};
    }

private:
    int64_t key_size_;
    int64_t value_size_;
    Scratch key_;
    Scratch value_;
    std::vector<uint8_t> finite_;
};

// A key head of a sequence.
struct Unit {
    int64_t sequence;
    int64_t kv_head;
    int64_t slot;        // of its first packed key tile, or kUnpacked
    int64_t first_tile;  // the number of that tile
};
inline constexpr int64_t kUnpacked = -1;

struct UnitTile {  // of keys or of query rows
    int64_t unit;
    int64_t number;
};

// What the threads do between two waits.
struct Work {
    std::vector<Unit> units;
    std::vector<UnitTile> key_tiles;  // to pack, one a slot
    std::vector<UnitTile> query_tiles;

    void add(const Unit& unit, int64_t key_count, int64_t query_count) {
        const auto number = static_cast<int64_t>(units.size());
        units.push_back(unit);
        for (int64_t i = 0; i < key_count; ++i) key_tiles.push_back({number, unit.first_tile + i});
        // The last query tile sees most under causal order: longest first.
        for (int64_t i = query_count; i-- > 0;) query_tiles.push_back({number, i});
    }
    int64_t slots() const { return static_cast<int64_t>(key_tiles.size()); }
    int64_t tiles() const { return static_cast<int64_t>(query_tiles.size()); }
    const Unit& unit_of(const UnitTile& tile) const {
        return units[static_cast<size_t>(tile.unit)];
    }
    void clear() {
        units.clear();
        key_tiles.clear();
        query_tiles.clear();
    }
};

}  // namespace slipstick::cpu::attention
