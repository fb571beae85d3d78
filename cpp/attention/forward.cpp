// The loop around the kernels: packs keys and values once for all query rows that share them, and
// hands tiles of query rows to the threads.
#include <algorithm>
#include <cstddef>
#include <limits>
#include <type_traits>
#include <vector>

#include "attention/attention.hpp"
#include "attention/few_rows.hpp"
#include "attention/kernels.hpp"
#include "attention/rows.hpp"
#include "attention/visibility.hpp"
#include "core/threads.hpp"

namespace slipstick::cpu::attention {
namespace {

// Panels of a query tile. They share a key tile while it lies in the second cache.
constexpr int64_t kPanels = 4;
// Keys and values of a tile, packed: a quarter of a 512 KiB second cache.
constexpr int64_t kTileBytes = 128 << 10;
constexpr int64_t kLongestTile = 240;  // the scores of 16 float32 rows: 15 KiB
constexpr int64_t kShortestTile = 48;
constexpr int64_t kTileStep = 24;  // a multiple of the rows of every level's register tile
// Packed keys and values that are alive at once, unless one head alone needs more.
constexpr int64_t kPackedBytes = 8 << 20;
constexpr double kSerialProducts = 1 << 20;  // about 50 us of multiply-adds

int64_t round_up(int64_t value, int64_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}
int64_t ceil_div(int64_t value, int64_t divisor) { return (value + divisor - 1) / divisor; }

// A function of dtype and head dimensions alone, so that a row's bits depend on its sequence only.
int64_t tile_keys(int64_t dim, int64_t dim_v, int64_t acc_bytes) {
    const int64_t fitting = kTileBytes / (acc_bytes * std::max<int64_t>(1, dim + dim_v));
    return std::clamp(fitting / kTileStep * kTileStep, kShortestTile, kLongestTile);
}

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
          rows_(shape.group() * shape.queries),
          tile_rows_(kPanels * kernels.lanes),
          tile_keys_(std::min(tile_keys(shape.dim, shape.dim_v, sizeof(Acc)),
                              round_up(std::max<int64_t>(1, shape.keys), kTileStep))),
          key_size_(tile_keys_ * shape.dim),
          value_size_(tile_keys_ * round_up(shape.dim_v, kernels.tile_rows)) {}

    void operator()() {
        const int64_t heads = shape_.batch * shape_.kv_heads;
        const int64_t query_tiles = ceil_div(rows_, tile_rows_);
        if (heads == 0 || query_tiles == 0) return;
        const int64_t grain = products_grain(static_cast<double>(std::min(rows_, tile_rows_)));
        if (query_tiles == 1) {
            // Each key tile is used once: packed where it is used, in the thread's own memory.
            parallel_for(heads, grain, [&](int64_t begin, int64_t end) {
                for (int64_t head = begin; head < end; ++head) run_tile(head, 0, nullptr);
            });
            return;
        }
        const int64_t key_tiles = ceil_div(shape_.keys, tile_keys_);
        const int64_t head_bytes = std::max<int64_t>(
            1, key_tiles * (key_size_ + value_size_) * static_cast<int64_t>(sizeof(Acc)));
        // Enough heads at a time to keep all threads busy.
        const int64_t wanted =
            std::max(kPackedBytes / head_bytes, ceil_div(int64_t{8} * num_threads(), query_tiles));
        const int64_t step = std::clamp<int64_t>(wanted, 1, heads);
        Packed packed(key_tiles, step, key_size_, value_size_);
        for (int64_t first = 0; first < heads; first += step) {
            const int64_t count = std::min(step, heads - first);
            parallel_for(count * key_tiles, std::max<int64_t>(1, grain / query_tiles),
                         [&](int64_t begin, int64_t end) {
                             for (int64_t at = begin; at < end; ++at)
                                 pack(first + at / key_tiles, at % key_tiles, packed.slot(at));
                         });
            parallel_for(count * query_tiles, grain, [&](int64_t begin, int64_t end) {
                for (int64_t at = begin; at < end; ++at) {
                    // The last query tile sees most under causal order: longest first.
                    const int64_t tile = query_tiles - 1 - at % query_tiles;
                    const int64_t slot = at / query_tiles * key_tiles;
                    run_tile(first + at / query_tiles, tile, [&packed, slot](int64_t key_tile) {
                        return packed.slot(slot + key_tile);
                    });
                }
            });
        }
    }

private:
    struct Slot {  // where a packed key tile lies
        Acc* key;
        Acc* value;
        uint8_t* finite;
    };

    class Packed {
    public:
        Packed(int64_t tiles, int64_t heads, int64_t key_size, int64_t value_size)
            : key_size_(key_size),
              value_size_(value_size),
              key_(tiles * heads * key_size * static_cast<int64_t>(sizeof(Acc))),
              value_(tiles * heads * value_size * static_cast<int64_t>(sizeof(Acc))),
              finite_(static_cast<size_t>(tiles * heads)) {}
        Slot slot(int64_t at) {
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
        std::vector<int64_t> ranges;
        std::vector<void*> out_rows;
        int64_t row;    // the first row
        int64_t count;  // rows in use; the lanes behind them repeat the last one's range
        KeyRange some;  // keys that some row sees
        KeyRange all;   // keys that all rows see
    };

    // Query rows of one kv head, in the order of their queries, the heads of a group side by side:
    // rows of a tile then see nearly the same keys, and few queries still fill the lanes.
    int64_t head_of(int64_t kv_head, int64_t row) const {
        return kv_head * shape_.group() + row % shape_.group();
    }
    int64_t query_of(int64_t row) const { return row / shape_.group(); }

    int64_t products_grain(double rows) const {
        const double products = rows * static_cast<double>(shape_.keys) *
                                static_cast<double>(shape_.dim + shape_.dim_v);
        return std::max<int64_t>(1, static_cast<int64_t>(kSerialProducts / (products + 1)));
    }

    void pack(int64_t head, int64_t key_tile, const Slot& slot) const {
        const int64_t b = head / shape_.kv_heads;
        const int64_t h = head % shape_.kv_heads;
        const int64_t start = key_tile * tile_keys_;
        // Nothing is read behind the valid keys.
        const int64_t keys = std::min(tile_keys_, visibility_.length(b) - start);
        if (keys <= 0) return;
        kernels_.pack_keys(key_.address(b, h, start, int64_t{0}), key_.strides[2], key_.strides[3],
                           keys, shape_.dim, slot.key);
        *slot.finite =
            kernels_.pack_values(value_.address(b, h, start, int64_t{0}), value_.strides[2],
                                 value_.strides[3], keys, shape_.dim_v, slot.value);
    }

    TilePanel make_panel(int64_t head, int64_t row, int64_t count, Arena& arena) const {
        const int64_t lanes = kernels_.lanes;
        const int64_t b = head / shape_.kv_heads;
        TilePanel panel;
        panel.row = row;
        panel.count = count;
        panel.ranges.resize(static_cast<size_t>(2 * lanes));
        Panel<Acc>& arrays = panel.arrays;
        arrays.query = arena.take(shape_.dim * lanes);
        arrays.factor = arena.take(lanes);
        arrays.maximum = arena.take(lanes);
        arrays.sum = arena.take(lanes);
        arrays.moment = arena.take(lanes);
        const int64_t out_size = round_up(shape_.dim_v, kernels_.tile_rows) * lanes;
        arrays.out = arena.take(out_size);
        arrays.first = panel.ranges.data();
        arrays.last = panel.ranges.data() + lanes;

        std::fill_n(arrays.maximum, lanes, -std::numeric_limits<Acc>::infinity());
        std::fill_n(arrays.sum, lanes, Acc{0});
        std::fill_n(arrays.moment, lanes, Acc{0});
        std::fill_n(arrays.out, out_size, Acc{0});
        if (count < lanes) std::fill_n(arrays.query, shape_.dim * lanes, Acc{0});
        std::fill_n(arrays.factor, lanes, Acc{0});

        panel.some = {shape_.keys, 0};
        panel.all = {0, shape_.keys};
        for (int64_t lane = 0; lane < lanes; ++lane) {
            const int64_t at = row + std::min(lane, count - 1);
            const int64_t h = head_of(head % shape_.kv_heads, at);
            const int64_t i = query_of(at);
            const KeyRange seen = visibility_.range(b, i);
            arrays.first[lane] = seen.first;
            arrays.last[lane] = seen.last;
            panel.some = {std::min(panel.some.first, seen.last > 0 ? seen.first : shape_.keys),
                          std::max(panel.some.last, seen.last)};
            panel.all = {std::max(panel.all.first, seen.first),
                         std::min(panel.all.last, seen.last)};
            if (lane >= count) continue;
            kernels_.pack_query(query_.address(b, h, i, int64_t{0}), query_.strides[3], shape_.dim,
                                arrays.query + lane);
            arrays.factor[lane] = numbers_.factor(b, h, i);
            panel.out_rows.push_back(out_.address(b, h, i, int64_t{0}));
        }
        return panel;
    }

    // `packed_tile(number)` gives a packed key tile; null: pack them here.
    template <class PackedTile>
    void run_tile(int64_t head, int64_t query_tile, PackedTile packed_tile) const {
        constexpr bool packs_here = std::is_same_v<PackedTile, std::nullptr_t>;
        const int64_t lanes = kernels_.lanes;
        const int64_t rows = std::min(tile_rows_, rows_ - query_tile * tile_rows_);
        const int64_t out_size = round_up(shape_.dim_v, kernels_.tile_rows) * lanes;
        const int64_t score_size = tile_keys_ * lanes;
        Arena arena(kPanels * ((shape_.dim + 4) * lanes + out_size) + 2 * score_size +
                    (packs_here ? key_size_ + value_size_ : 0));
        Acc* const scores = arena.take(score_size);
        Acc* const bias = arena.take(visibility_.has_mask() ? score_size : 0);
        uint8_t finite = 1;
        const Slot own{arena.take(packs_here ? key_size_ : 0),
                       arena.take(packs_here ? value_size_ : 0), &finite};

        std::vector<TilePanel> panels;
        panels.reserve(kPanels);
        KeyRange some{shape_.keys, 0};
        for (int64_t row = 0; row < rows; row += lanes) {
            panels.push_back(make_panel(head, query_tile * tile_rows_ + row,
                                        std::min(lanes, rows - row), arena));
            some = {std::min(some.first, panels.back().some.first),
                    std::max(some.last, panels.back().some.last)};
        }

        for (int64_t number = some.first / tile_keys_; number * tile_keys_ < some.last; ++number) {
            Slot slot = own;
            if constexpr (packs_here) {
                pack(head, number, slot);
            } else {
                slot = packed_tile(number);
            }
            const int64_t start = number * tile_keys_;
            const int64_t length = visibility_.length(head / shape_.kv_heads);
            const KeyTile<Acc> tile{slot.key, slot.value, start,
                                    std::min(tile_keys_, length - start), *slot.finite != 0};
            for (const TilePanel& panel : panels) fold(head, panel, tile, scores, bias);
        }
        for (TilePanel& panel : panels) finish(head, panel);
    }

    void fold(int64_t head, const TilePanel& panel, const KeyTile<Acc>& tile, Acc* scores,
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
            if (!fill_bias(head, panel, tile.start + step.begin, tile.start + step.end, bias))
                return;  // all hidden
            step.bias = bias;
        }
        (numbers_.has_stats() ? kernels_.fold_moment : kernels_.fold)(panel.arrays, tile, step);
    }

    bool fill_bias(int64_t head, const TilePanel& panel, int64_t first, int64_t last,
                   Acc* bias) const {
        bool shows = false;
        for (int64_t lane = 0; lane < kernels_.lanes; ++lane) {
            const int64_t row = panel.row + std::min(lane, panel.count - 1);
            shows |=
                visibility_.fill_bias(head / shape_.kv_heads, head_of(head % shape_.kv_heads, row),
                                      query_of(row), first, last, bias + lane, kernels_.lanes);
        }
        return shows;
    }

    void finish(int64_t head, TilePanel& panel) const {
        const int64_t b = head / shape_.kv_heads;
        for (int64_t lane = 0; lane < panel.count; ++lane) {
            const int64_t h = head_of(head % shape_.kv_heads, panel.row + lane);
            const int64_t i = query_of(panel.row + lane);
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
    int64_t rows_;
    int64_t tile_rows_;
    int64_t tile_keys_;
    int64_t key_size_;
    int64_t value_size_;
};

}  // namespace

void attention(const Inputs& inputs, const Options& options, const Tensor& out,
               const Stats* stats) {
    if (out.size() == 0 && stats == nullptr) return;
    const Shape shape = shape_of(inputs);
    const Visibility visibility(shape, inputs.query.rank == 4, options);
    if (shape.group() * shape.queries <= kFewRows)
        return attend_few_rows(shape, visibility, inputs, options, out, stats);
    dispatch<float, double, Float16, BFloat16>(inputs.query.dtype, [&]<class T>() {
        const auto& kernels = active_attention_kernels().of<T>().forward;
        Run<AccOf<T>>(kernels, shape, visibility, inputs, options, out, stats)();
    });
}

}  // namespace slipstick::cpu::attention
