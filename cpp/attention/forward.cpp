// The loop around the kernels: packs keys and values once for all query rows that share them, and
// hands tiles of query rows to the threads.
#include <algorithm>
#include <array>
#include <limits>
#include <numeric>
#include <optional>
#include <span>
#include <vector>

#include "attention/attention.hpp"
#include "attention/few_rows.hpp"
#include "attention/forward.hpp"
#include "attention/forward_work.hpp"
#include "attention/kernels.hpp"
#include "attention/rows.hpp"
#include "attention/tiles.hpp"
#include "attention/visibility.hpp"
#include "core/threads.hpp"

namespace slipstick::cpu::attention {
namespace {

constexpr int64_t kLongestTile = 240;  // the scores of 16 float32 rows: 15 KiB
constexpr int64_t kShortestTile = 48;
constexpr int64_t kSerialPacking = 1 << 16;  // numbers to pack in that time
constexpr int64_t kTilesTogether = 1 << 16;  // query tiles that are listed at once

template <class Acc>
class Run {
public:
    Run(const Forward<Acc>& kernels, const Shape& shape, const Visibility& visibility,
        const Inputs& inputs, const Options& options, const Tensor& out, const Stats* stats)
        : kernels_(kernels),
          shape_(shape),
          visibility_(visibility),
          query_(inputs.query),
          key_(inputs.key),
          value_(inputs.value),
          out_(out),
          options_(options),
          numbers_(options, visibility, stats),
          tile_rows_(kPanels * kernels.lanes),
          tile_keys_(tile_keys(shape.dim, shape.dim_v, sizeof(Acc), kShortestTile, kLongestTile,
                               shape.keys)),
          key_size_(tile_keys_ * shape.dim),
          value_size_(tile_keys_ * round_up(shape.dim_v, kernels.tile_rows)) {
        for (size_t b = 0; b < visibility.sequences().size(); ++b)
            packed_.push_back(seen_tiles(static_cast<int64_t>(b)));
    }

    void operator()() {
        // Longest first, so that no thread is left alone with one at the end.
        std::vector<int64_t> order(visibility_.sequences().size());
        std::iota(order.begin(), order.end(), int64_t{0});
        std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
            return visibility_.sequence(a).keys > visibility_.sequence(b).keys;
        });
        std::erase_if(order, [&](int64_t b) { return rows_of(b) <= kFewRows; });  // few_rows.cpp
        const int64_t heads = static_cast<int64_t>(order.size()) * shape_.kv_heads;
        if (heads >= kHeadsPerThread * num_threads()) {
            run_heads(order);
        } else {
            run_tiles(order);
        }
    }

private:
    // The key tiles of a sequence that some row sees, masks aside.
    struct TileRange {
        int64_t first;
        int64_t last;
        int64_t count() const { return last - first; }
    };
    TileRange seen_tiles(int64_t sequence) const {
        KeyRange seen{visibility_.sequence(sequence).keys, 0};
        for (int64_t i = 0; i < visibility_.sequence(sequence).queries; ++i) {
            const KeyRange range = visibility_.range(sequence, i);
            if (range.last == 0) continue;
            seen = {std::min(seen.first, range.first), std::max(seen.last, range.last)};
        }
        if (seen.last == 0) return {0, 0};
        return {seen.first / tile_keys_, ceil_div(seen.last, tile_keys_)};
    }
    // Those that are packed for several query tiles. Where one query tile uses a key tile, it packs
    // it itself, in the thread's own memory.
    TileRange packed_tiles(int64_t sequence) const {
        return rows_of(sequence) <= tile_rows_ ? TileRange{0, 0}
                                               : packed_[static_cast<size_t>(sequence)];
    }

    // Many heads: a thread takes one as a whole, and finds its keys in the second cache again.
    void run_heads(const std::vector<int64_t>& order) const {
        const auto heads = static_cast<int64_t>(order.size()) * shape_.kv_heads;
        int64_t slots = 0;
        for (const int64_t b : order) slots = std::max(slots, packed_tiles(b).count());
        const double products = static_cast<double>(rows_of(order.front())) *
                                static_cast<double>(visibility_.sequence(order.front()).keys) *
                                static_cast<double>(shape_.dim + shape_.dim_v);
        const auto grain = static_cast<int64_t>(kSerialProducts / (products + 1)) + 1;
        parallel_for(heads, grain, [&](int64_t begin, int64_t end) {
            PackedTiles<Acc> packed(slots, key_size_, value_size_);
            for (int64_t at = begin; at < end; ++at) {
                const int64_t b = order[static_cast<size_t>(at / shape_.kv_heads)];
                const TileRange tiles = packed_tiles(b);
                const Unit unit{b, at % shape_.kv_heads, tiles.count() == 0 ? kUnpacked : 0,
                                tiles.first};
                for (int64_t tile = tiles.first; tile < tiles.last; ++tile)
                    pack(unit, tile, packed.slot(tile - tiles.first));
                for (int64_t tile = 0; tile < ceil_div(rows_of(b), tile_rows_); ++tile)
                    run_tile(unit, tile, packed);
            }
        });
    }

    // Few heads: the threads share the packing, then the query tiles, of as many heads at a time as
    // the packed keys allow, and enough to keep all threads busy.
    void run_tiles(const std::vector<int64_t>& order) const {
        const int64_t slot_bytes =
            std::max<int64_t>(1, (key_size_ + value_size_) * static_cast<int64_t>(sizeof(Acc)));
        const int64_t slots = kPackedBytes / slot_bytes;
        Work work;
        std::optional<PackedTiles<Acc>> packed;
        for (const int64_t b : order) {
            const TileRange tiles = packed_tiles(b);
            for (int64_t h = 0; h < shape_.kv_heads; ++h) {
                const bool full = work.tiles() >= (work.slots() + tiles.count() > slots
                                                       ? int64_t{8} * num_threads()
                                                       : kTilesTogether);
                if (full) run(work, packed);
                const int64_t slot = tiles.count() == 0 ? kUnpacked : work.slots();
                work.add({b, h, slot, tiles.first}, tiles.count(),
                         ceil_div(rows_of(b), tile_rows_));
            }
        }
        run(work, packed);
    }

    void run(Work& work, std::optional<PackedTiles<Acc>>& packed) const {
        if (!packed || packed->slots() < work.slots())
            packed.emplace(work.slots(), key_size_, value_size_);
        if (work.slots() > 0) {
            const int64_t grain = kSerialPacking / std::max<int64_t>(1, key_size_ + value_size_);
            parallel_for(work.slots(), std::max<int64_t>(1, grain),
                         [&](int64_t begin, int64_t end) {
                             for (int64_t at = begin; at < end; ++at) {
                                 const UnitTile& tile = work.key_tiles[static_cast<size_t>(at)];
                                 pack(work.unit_of(tile), tile.number, packed->slot(at));
                             }
                         });
        }
        // Chunks that are worth a thread each, however long their sequences are.
        std::vector<int64_t> ends;
        double products = 0;
        for (int64_t at = 0; at < work.tiles(); ++at) {
            products += products_of(work, at);
            if (products < kSerialProducts && at + 1 < work.tiles()) continue;
            ends.push_back(at + 1);
            products = 0;
        }
        parallel_for(static_cast<int64_t>(ends.size()), 1, [&](int64_t begin, int64_t end) {
            const int64_t last = ends[static_cast<size_t>(end - 1)];
            for (int64_t at = begin == 0 ? 0 : ends[static_cast<size_t>(begin - 1)]; at < last;
                 ++at) {
                const UnitTile& tile = work.query_tiles[static_cast<size_t>(at)];
                run_tile(work.unit_of(tile), tile.number, *packed);
            }
        });
        work.clear();
    }

    // Scratch memory of a query tile, cut into arrays.
    class Arena {
    public:
        explicit Arena(int64_t count) : memory_(count * static_cast<int64_t>(sizeof(Acc))) {}
        Acc* take(int64_t count) {
            Acc* const result = memory_.template as<Acc>() + used_;
            used_ += count;
            return result;
        }

    private:
        Scratch memory_;
        int64_t used_ = 0;
    };

    struct TilePanel {
        Panel<Acc> arrays;
        std::array<int64_t, kMostLanes> first_keys;  // where arrays.first points
        std::array<int64_t, kMostLanes> last_keys;
        std::array<void*, kMostLanes> out_rows;
        int64_t row;    // the first row
        int64_t count;  // rows in use; the lanes behind them repeat the last one's range
        KeyRange some;  // keys that some row sees
        KeyRange all;   // keys that all rows see
    };

    int64_t rows_of(int64_t sequence) const {
        return shape_.group() * visibility_.sequence(sequence).queries;
    }

    double products_of(const Work& work, int64_t at) const {
        const UnitTile& tile = work.query_tiles[static_cast<size_t>(at)];
        const int64_t b = work.unit_of(tile).sequence;
        return static_cast<double>(std::min(rows_of(b), tile_rows_)) *
               static_cast<double>(visibility_.sequence(b).keys) *
               static_cast<double>(shape_.dim + shape_.dim_v);
    }

    void pack(const Unit& unit, int64_t key_tile, const PackedTile<Acc>& slot) const {
        const Sequence& own = visibility_.sequence(unit.sequence);
        const int64_t start = key_tile * tile_keys_;
        // Nothing is read behind the valid keys.
        const int64_t keys = std::min(tile_keys_, visibility_.length(unit.sequence) - start);
        if (keys <= 0) return;
        const auto first = [&](const View<4>& view) {
            return view.address(own.batch, unit.kv_head, own.first_key + start, int64_t{0});
        };
        kernels_.pack_keys(first(key_), key_.strides[2], key_.strides[3], keys, shape_.dim,
                           slot.key);
        *slot.finite = kernels_.pack_values(first(value_), value_.strides[2], value_.strides[3],
                                            keys, shape_.dim_v, slot.value);
    }

    void make_panel(const Unit& unit, int64_t row, int64_t count, Arena& arena,
                    TilePanel& panel) const {
        const int64_t lanes = kernels_.lanes;
        const int64_t b = unit.sequence;
        const Sequence& own = visibility_.sequence(b);
        panel.row = row;
        panel.count = count;
        Panel<Acc>& arrays = panel.arrays;
        arrays.query = arena.take(shape_.dim * lanes);
        arrays.factor = arena.take(lanes);
        arrays.maximum = arena.take(lanes);
        arrays.sum = arena.take(lanes);
        arrays.moment = arena.take(lanes);
        const int64_t out_size = round_up(shape_.dim_v, kernels_.tile_rows) * lanes;
        arrays.out = arena.take(out_size);
        arrays.first = panel.first_keys.data();
        arrays.last = panel.last_keys.data();

        std::fill_n(arrays.maximum, lanes, -std::numeric_limits<Acc>::infinity());
        std::fill_n(arrays.sum, lanes, Acc{0});
        std::fill_n(arrays.moment, lanes, Acc{0});
        std::fill_n(arrays.out, out_size, Acc{0});
        std::fill_n(arrays.factor, lanes, Acc{0});

        panel.some = {own.keys, 0};
        panel.all = {0, own.keys};
        std::array<const void*, kMostLanes> query_rows{};
        for (int64_t lane = 0; lane < lanes; ++lane) {
            const int64_t at = row + std::min(lane, count - 1);
            const int64_t h = shape_.head_of(unit.kv_head, at);
            const int64_t i = shape_.query_of(at);
            const KeyRange seen = visibility_.range(b, i);
            arrays.first[lane] = seen.first;
            arrays.last[lane] = seen.last;
            panel.some = {std::min(panel.some.first, seen.last > 0 ? seen.first : own.keys),
                          std::max(panel.some.last, seen.last)};
            panel.all = {std::max(panel.all.first, seen.first),
                         std::min(panel.all.last, seen.last)};
            if (lane >= count) continue;
            const int64_t token = own.first_query + i;
            const auto slot = static_cast<size_t>(lane);
            query_rows[slot] = query_.address(own.batch, h, token, int64_t{0});
            panel.out_rows[slot] = out_.address(own.batch, h, token, int64_t{0});
            arrays.factor[lane] = numbers_.factor(b, h, i);
        }
        kernels_.pack_queries(query_rows.data(), query_.strides[3], shape_.dim, arrays.query);
    }

    void run_tile(const Unit& unit, int64_t query_tile, PackedTiles<Acc>& packed) const {
        const bool packs_here = unit.slot == kUnpacked;
        const int64_t lanes = kernels_.lanes;
        const int64_t rows = std::min(tile_rows_, rows_of(unit.sequence) - query_tile * tile_rows_);
        const int64_t out_size = round_up(shape_.dim_v, kernels_.tile_rows) * lanes;
        const int64_t score_size = tile_keys_ * lanes;
        Arena arena(kPanels * ((shape_.dim + 4) * lanes + out_size) + 2 * score_size +
                    (packs_here ? key_size_ + value_size_ : 0));
        Acc* const scores = arena.take(score_size);
        Acc* const bias = arena.take(visibility_.has_mask() ? score_size : 0);
        uint8_t finite = 1;
        const PackedTile<Acc> own{arena.take(packs_here ? key_size_ : 0),
                                  arena.take(packs_here ? value_size_ : 0), &finite};

        std::array<TilePanel, kPanels> all_panels;
        const std::span panels(all_panels.data(), static_cast<size_t>(ceil_div(rows, lanes)));
        KeyRange some{visibility_.sequence(unit.sequence).keys, 0};
        int64_t row = 0;
        for (TilePanel& panel : panels) {
            make_panel(unit, query_tile * tile_rows_ + row, std::min(lanes, rows - row), arena,
                       panel);
            some = {std::min(some.first, panel.some.first), std::max(some.last, panel.some.last)};
            row += lanes;
        }

        for (int64_t number = some.first / tile_keys_; number * tile_keys_ < some.last; ++number) {
            const PackedTile<Acc> slot =
                packs_here ? own : packed.slot(unit.slot + number - unit.first_tile);
            if (packs_here) pack(unit, number, slot);
            const int64_t start = number * tile_keys_;
            const int64_t length = visibility_.length(unit.sequence);
            const KeyTile<Acc> tile{slot.key, slot.value, start,
                                    std::min(tile_keys_, length - start), *slot.finite != 0};
            for (const TilePanel& panel : panels) fold(unit, panel, tile, scores, bias);
        }
        for (TilePanel& panel : panels) finish(unit, panel);
    }

    void fold(const Unit& unit, const TilePanel& panel, const KeyTile<Acc>& tile, Acc* scores,
              Acc* bias) const {
        const int64_t first = std::max<int64_t>(0, panel.some.first - tile.start);
        Step<Acc> step{.dim = shape_.dim,
                       .dim_v = shape_.dim_v,
                       .begin = first / kernels_.tile_rows * kernels_.tile_rows,
                       .end = std::min(tile.keys, panel.some.last - tile.start),
                       .all_visible = false,
                       .bias = nullptr,
                       .softcap = static_cast<Acc>(options_.softcap),
                       .scores = scores};
        if (first >= step.end) return;
        step.all_visible =
            panel.all.first <= tile.start + step.begin && panel.all.last >= tile.start + step.end;
        if (visibility_.has_mask()) {
            if (!fill_bias(unit, panel, tile.start + step.begin, tile.start + step.end, bias))
                return;  // all hidden
            step.bias = bias;
        }
        (numbers_.has_stats() ? kernels_.fold_moment : kernels_.fold)(panel.arrays, tile, step);
    }

    bool fill_bias(const Unit& unit, const TilePanel& panel, int64_t first, int64_t last,
                   Acc* bias) const {
        bool shows = false;
        for (int64_t lane = 0; lane < kernels_.lanes; ++lane) {
            const int64_t row = panel.row + std::min(lane, panel.count - 1);
            shows |= visibility_.fill_bias(unit.sequence, shape_.head_of(unit.kv_head, row),
                                           shape_.query_of(row), first, last, bias + lane,
                                           kernels_.lanes);
        }
        return shows;
    }

    void finish(const Unit& unit, TilePanel& panel) const {
        const int64_t b = unit.sequence;
        for (int64_t lane = 0; lane < panel.count; ++lane) {
            const int64_t h = shape_.head_of(unit.kv_head, panel.row + lane);
            const int64_t i = shape_.query_of(panel.row + lane);
            const bool empty = visibility_.visible(b, h, i) == 0;
            if (numbers_.has_stats()) {
                numbers_.write_stats(b, h, i, empty, panel.arrays.maximum[lane],
                                     panel.arrays.sum[lane], panel.arrays.moment[lane]);
            }
            if (empty) panel.arrays.sum[lane] = 1;  // the output is 0 already
        }
        kernels_.finish(panel.arrays, shape_.dim_v, panel.out_rows.data(), panel.count,
                        out_.strides[3]);
    }

    const Forward<Acc>& kernels_;
    const Shape& shape_;
    const Visibility& visibility_;
    View<4> query_;
    View<4> key_;
    View<4> value_;
    View<4> out_;
    const Options& options_;
    Rows<Acc> numbers_;
    int64_t tile_rows_;
    int64_t tile_keys_;
    int64_t key_size_;
    int64_t value_size_;
    std::vector<TileRange> packed_;  // of each sequence
};

}  // namespace

void attend(const Inputs& inputs, const Shape& shape, const Visibility& visibility,
            const Options& options, const Tensor& out, const Stats* stats) {
    dispatch<float, double, Float16, BFloat16>(inputs.query.dtype, [&]<class T>() {
        const auto& kernels = active_attention_kernels().of<T>().forward;
        Run<AccOf<T>>(kernels, shape, visibility, inputs, options, out, stats)();
    });
    attend_few_rows(shape, visibility, inputs, options, out, stats);
}

void attention(const Inputs& inputs, const Options& options, const Tensor& out,
               const Stats* stats) {
    if (out.size() == 0 && stats == nullptr) return;
    const Shape shape = shape_of(inputs);
    attend(inputs, shape, Visibility(shape, inputs.query.rank == 4, options), options, out, stats);
}

}  // namespace slipstick::cpu::attention
