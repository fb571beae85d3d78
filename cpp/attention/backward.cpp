// The loop around the gradients' kernels. Rows are packed once; then a thread owns a few key tiles
// of a head, with their dK and dV, and adds what they give to dQ to a sum of its own; last, these
// sums are added up. Every sum has one owner and one order, so there is nothing atomic.
#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "attention/attention.hpp"
#include "attention/backward_kernels.hpp"
#include "attention/backward_rows.hpp"
#include "attention/few_rows.hpp"
#include "attention/scale_gradient.hpp"
#include "attention/tiles.hpp"
#include "attention/visibility.hpp"
#include "core/threads.hpp"

namespace slipstick::cpu::attention {
namespace {

constexpr int64_t kLongestTile = 120;  // weights and gradients of 16 float32 rows: 15 KiB
constexpr int64_t kShortestTile = 24;
// Sums of dQ of a head, and threads that a head can keep busy; fewer where the sums are long.
constexpr int64_t kFewestSplits = 4;
constexpr int64_t kMostSplits = 8;
constexpr int64_t kSumElements = 1 << 24;  // of all splits: 64 MiB in float32
constexpr int64_t kSerialElements = 1 << 15;

template <class Acc>
class BackwardRun {
public:
    BackwardRun(const Backward<Acc>& kernels, const FewRowsKernels<Acc>& few_rows,
                const Shape& shape, const Visibility& visibility, const Inputs& inputs,
                const Options& options, const Returned& returned, const Gradients& gradients,
                double* grad_factor)
        : kernels_(kernels),
          few_rows_(few_rows),
          shape_(shape),
          visibility_(visibility),
          options_(options),
          packer_(kernels, shape, visibility, inputs, options, returned),
          query_(inputs.query),
          key_(inputs.key),
          value_(inputs.value),
          grad_query_(gradients.query),
          grad_key_(gradients.key),
          grad_value_(gradients.value),
          grad_factor_(grad_factor),
          rows_(packer_.rows()),
          tile_rows_(packer_.tile_rows()),
          row_tiles_(packer_.tiles()),
          tile_keys_(tile_keys(shape.dim, shape.dim_v, sizeof(Acc), kShortestTile, kLongestTile,
                               shape.keys)),
          key_tiles_(ceil_div(shape.keys, tile_keys_)),
          splits_(std::min(key_tiles_,
                           std::clamp(kSumElements / std::max<int64_t>(1, rows_ * shape.dim),
                                      kFewestSplits, kMostSplits))),
          line_(round_up(shape.dim, kernels.lanes)),
          line_v_(round_up(shape.dim_v, kernels.lanes)),
          turned_(round_up(shape.dim, kernels.tile_rows)) {}

    void operator()() {
        const int64_t heads = shape_.batch * shape_.kv_heads;
        if (heads >= kHeadsPerThread * num_threads()) {
            run_heads(heads);
        } else if (heads > 0) {
            run_parts(heads);
        }
    }

private:
    using Tile = PackedRows<Acc>;

    // What belongs to one head: its packed rows, and each split's sums of dQ.
    struct Head {
        int64_t number;
        Tile* tiles;
        Acc* packed;      // packer_.tile_size() elements a tile
        Acc* sums;        // sums_size() a split
        uint8_t* summed;  // of each split's tiles, whether its sums have begun
    };

    class Heads {
    public:
        Heads(const BackwardRun& run, int64_t count)
            : run_(run),
              memory_(std::max<int64_t>(1, count * run.head_bytes())),
              tiles_(static_cast<size_t>(count * run.row_tiles_)),
              summed_(static_cast<size_t>(count * run.splits_ * run.row_tiles_)) {}
        // Room number `at`, taken by the head `number`.
        Head at(int64_t at, int64_t number) {
            Acc* const own = memory_.template as<Acc>() + at * run_.head_size();
            return {number, tiles_.data() + at * run_.row_tiles_, own,
                    own + run_.row_tiles_ * run_.packer_.tile_size(),
                    summed_.data() + at * run_.splits_ * run_.row_tiles_};
        }

    private:
        const BackwardRun& run_;
        Scratch memory_;
        std::vector<Tile> tiles_;
        std::vector<uint8_t> summed_;
    };

    int64_t sums_size() const { return row_tiles_ * tile_rows_ * turned_; }
    int64_t head_size() const { return row_tiles_ * packer_.tile_size() + splits_ * sums_size(); }
    int64_t head_bytes() const { return head_size() * static_cast<int64_t>(sizeof(Acc)); }
    double split_products() const {
        return static_cast<double>(rows_ + 1) *
               static_cast<double>(ceil_div(key_tiles_, kMostSplits) * tile_keys_) *
               static_cast<double>(2 * shape_.dim + 2 * shape_.dim_v);
    }

    // Many heads: a thread takes one as a whole, and finds its rows in its own cache again.
    void run_heads(int64_t heads) const {
        const double products = split_products() * static_cast<double>(splits_);
        const auto grain = static_cast<int64_t>(kSerialProducts / (products + 1)) + 1;
        parallel_for(heads, grain, [&](int64_t begin, int64_t end) {
            Heads room(*this, 1);
            for (int64_t number = begin; number < end; ++number) {
                const Head head = room.at(0, number);
                for (int64_t tile = 0; tile < row_tiles_; ++tile) pack(head, tile);
                for (int64_t split = 0; split < splits_; ++split) run_split(head, split);
                for (int64_t tile = 0; tile < row_tiles_; ++tile) finish_tile(head, tile);
            }
        });
    }

    // Few heads: the threads share their tiles and splits, of enough heads at a time to keep all
    // threads busy.
    void run_parts(int64_t heads) const {
        const int64_t wanted =
            std::max(kPackedBytes / std::max<int64_t>(1, head_bytes()),
                     ceil_div(int64_t{4} * num_threads(), std::max<int64_t>(1, splits_)));
        const int64_t step = std::clamp<int64_t>(wanted, 1, heads);
        Heads rooms(*this, step);
        const auto grain = static_cast<int64_t>(kSerialProducts / (split_products() + 1)) + 1;
        const int64_t row_grain =
            std::max<int64_t>(1, kSerialElements / (tile_rows_ * (line_ + line_v_) + 1));
        for (int64_t first = 0; first < heads; first += step) {
            const int64_t count = std::min(step, heads - first);
            // Calls task(head, part) for each of `parts` parts of each head.
            const auto share = [&](int64_t parts, int64_t least, auto task) {
                parallel_for(count * parts, least, [&](int64_t begin, int64_t end) {
                    for (int64_t at = begin; at < end; ++at)
                        task(rooms.at(at / parts, first + at / parts), at % parts);
                });
            };
            share(row_tiles_, row_grain, [&](const Head& head, int64_t tile) { pack(head, tile); });
            share(splits_, grain, [&](const Head& head, int64_t split) { run_split(head, split); });
            share(row_tiles_, row_grain,
                  [&](const Head& head, int64_t tile) { finish_tile(head, tile); });
        }
    }

    void pack(const Head& head, int64_t tile) const {
        packer_.pack(head.number, tile, head.packed + tile * packer_.tile_size(), head.tiles[tile]);
    }

    // Memory of a thread, cut into arrays.
    struct Workspace {
        Acc* key;
        Acc* value;
        Acc* columns;
        Acc* grad_key;
        Acc* grad_value;
        Acc* bias;
        Acc* few_queries;  // where the scores are those of few rows
        Acc* few_keys;
        Acc* few_scores;
        GradStep<Acc> step;
    };

    // Key tiles split, split + splits_, ... of a head: under causal order the later ones have less
    // to do, so each split has some of either.
    void run_split(const Head& head, int64_t split) const {
        const int64_t keys = round_up(tile_keys_, kernels_.tile_rows);
        const int64_t columns = round_up(shape_.dim, kernels_.tile_rows);
        const int64_t bias = visibility_.has_mask() ? keys * tile_rows_ : 0;
        const bool few = has_few_rows();
        const int64_t few_queries = few ? rows_ * few_rows_.width(shape_.dim) : 0;
        const int64_t few_keys = few ? kStepKeys * shape_.dim : 0;
        const int64_t few_scores = few ? keys * tile_rows_ : 0;
        const Scratch memory((keys * (shape_.dim + shape_.dim_v + columns + line_ + line_v_) +
                              bias + few_queries + few_keys + few_scores +
                              2 * keys * (kernels_.lanes + std::max(tile_rows_, kernels_.lanes))) *
                             static_cast<int64_t>(sizeof(Acc)));
        Acc* next = memory.as<Acc>();
        const auto take = [&next](int64_t size) { return std::exchange(next, next + size); };
        Workspace own{};
        own.key = take(keys * shape_.dim);
        own.value = take(keys * shape_.dim_v);
        own.columns = take(keys * columns);
        own.grad_key = take(keys * line_);
        own.grad_value = take(keys * line_v_);
        own.bias = take(bias);
        std::fill_n(own.bias, bias, Acc{0});
        own.few_queries = take(few_queries);
        own.few_keys = take(few_keys);
        own.few_scores = take(few_scores);
        std::fill_n(own.few_scores, few_scores, Acc{0});
        if (few) pack_few_queries(head, own.few_queries);
        own.step = {.dim = shape_.dim,
                    .dim_v = shape_.dim_v,
                    .begin = 0,
                    .end = 0,
                    .all_visible = false,
                    .bias = nullptr,
                    .scores = nullptr,
                    .softcap = static_cast<Acc>(options_.softcap),
                    .weights = take(keys * kernels_.lanes),
                    .grads = take(keys * kernels_.lanes),
                    .packed_weights = take(keys * tile_rows_),
                    .packed_grads = take(keys * tile_rows_)};
        std::fill_n(head.summed + split * row_tiles_, row_tiles_, uint8_t{0});
        for (int64_t number = split; number < key_tiles_; number += splits_)
            run_key_tile(head, split, number * tile_keys_, own);
    }

    void run_key_tile(const Head& head, int64_t split, int64_t start, Workspace& own) const {
        const int64_t b = head.number / shape_.kv_heads;
        const int64_t h = head.number % shape_.kv_heads;
        // Nothing is read behind the valid keys.
        const int64_t keys =
            std::max<int64_t>(0, std::min(tile_keys_, visibility_.length(b) - start));
        GradTile<Acc> tile{.key = own.key,
                           .value = own.value,
                           .columns = own.columns,
                           .grad_key = own.grad_key,
                           .grad_value = own.grad_value,
                           .start = start,
                           .keys = keys,
                           .finite = true};
        std::fill_n(own.grad_key, tile_keys_ * line_, Acc{0});
        std::fill_n(own.grad_value, tile_keys_ * line_v_, Acc{0});
        if (keys > 0 && row_tiles_ > 0) {
            const void* const first_key = key_.address(b, h, start, int64_t{0});
            tile.finite = kernels_.pack_keys(first_key, key_.strides[2], key_.strides[3], keys,
                                             shape_.dim, own.key);
            kernels_.pack_columns(first_key, key_.strides[2], key_.strides[3], keys, shape_.dim,
                                  own.columns);
            kernels_.pack_keys(value_.address(b, h, start, int64_t{0}), value_.strides[2],
                               value_.strides[3], keys, shape_.dim_v, own.value);
            for (int64_t number = 0; number < row_tiles_; ++number)
                add(head, split, number, tile, own);
        }
        const int64_t written = std::min(tile_keys_, shape_.keys - start);
        for (int64_t j = 0; j < written; ++j) {
            kernels_.write(own.grad_key + j * line_, shape_.dim,
                           grad_key_.address(b, h, start + j, int64_t{0}), grad_key_.strides[3]);
            kernels_.write(own.grad_value + j * line_v_, shape_.dim_v,
                           grad_value_.address(b, h, start + j, int64_t{0}),
                           grad_value_.strides[3]);
        }
    }

    // A forward call with as few rows added its scores up in another order, and lse is made of
    // those: p = e^(s - L) would be off by their difference.
    bool has_few_rows() const { return rows_ <= kFewRows; }
    void pack_few_queries(const Head& head, Acc* lines) const {
        for (int64_t row = 0; row < rows_; ++row) {
            few_rows_.pack_query(query_.address(head.number / shape_.kv_heads,
                                                shape_.head_of(head.number % shape_.kv_heads, row),
                                                shape_.query_of(row), int64_t{0}),
                                 query_.strides[3], shape_.dim,
                                 lines + row * few_rows_.width(shape_.dim));
        }
    }
    void score_few_rows(const Head& head, int64_t first_key, Workspace& own) const {
        const int64_t lanes = kernels_.lanes;
        const int64_t keys = own.step.end - own.step.begin;
        std::array<Acc, kFewRows * kStepKeys> scores;
        for (int64_t start = 0; start < keys; start += kStepKeys) {
            const int64_t count = std::min(kStepKeys, keys - start);
            const Lines lines =
                contiguous_lines(key_, head.number / shape_.kv_heads, head.number % shape_.kv_heads,
                                 first_key + start, count, shape_.dim, own.few_keys);
            few_rows_.score(own.few_queries, rows_, shape_.dim, lines.data, lines.stride, count, {},
                            scores.data());
            for (int64_t row = 0; row < rows_; ++row) {
                Acc* const target =
                    own.few_scores + row / lanes * lanes * keys + start * lanes + row % lanes;
                for (int64_t j = 0; j < count; ++j)
                    target[j * lanes] = scores[static_cast<size_t>(row * kStepKeys + j)];
            }
        }
        own.step.scores = own.few_scores;
    }

    void add(const Head& head, int64_t split, int64_t number, const GradTile<Acc>& tile,
             Workspace& own) const {
        const Tile& of_rows = head.tiles[number];
        GradStep<Acc>& step = own.step;
        const int64_t first = std::max<int64_t>(0, of_rows.some.first - tile.start);
        step.begin = first / kernels_.tile_rows * kernels_.tile_rows;
        step.end = std::min(tile.keys, of_rows.some.last - tile.start);
        if (first >= step.end) return;
        step.all_visible = of_rows.all.first <= tile.start + step.begin &&
                           of_rows.all.last >= tile.start + step.end;
        if (visibility_.has_mask()) {
            const int64_t lanes = kernels_.lanes;
            bool shows = false;
            for (int64_t row = 0; row < of_rows.count; ++row) {
                const int64_t at = number * tile_rows_ + row;
                shows |= visibility_.fill_bias(
                    head.number / shape_.kv_heads,
                    shape_.head_of(head.number % shape_.kv_heads, at), shape_.query_of(at),
                    tile.start + step.begin, tile.start + step.end,
                    own.bias + row / lanes * lanes * (step.end - step.begin) + row % lanes, lanes);
            }
            if (!shows) return;
            step.bias = own.bias;
        }
        if (has_few_rows()) score_few_rows(head, tile.start + step.begin, own);
        RowTile<Acc> rows = of_rows.arrays;
        rows.turned = head.sums + split * sums_size() + number * tile_rows_ * turned_;
        uint8_t& summed = head.summed[split * row_tiles_ + number];
        if (summed == 0) std::fill_n(rows.turned, tile_rows_ * turned_, Acc{0});
        summed = 1;
        kernels_.add(rows, tile, step);
    }

    // The splits' sums of a row tile in their order; dQ = lambda times that, dlambda = <q, that>.
    void finish_tile(const Head& head, int64_t number) const {
        const int64_t lanes = kernels_.lanes;
        const int64_t b = head.number / shape_.kv_heads;
        const int64_t size = tile_rows_ * turned_;
        const Tile& tile = head.tiles[number];
        Acc* turned = nullptr;
        for (int64_t split = 0; split < splits_; ++split) {
            if (head.summed[split * row_tiles_ + number] == 0) continue;
            Acc* const more = head.sums + split * sums_size() + number * size;
            if (turned == nullptr) {
                turned = more;
            } else {
                for (int64_t k = 0; k < size; ++k) turned[k] += more[k];
            }
        }
        std::vector<Acc> nothing;  // where no row of the tile sees a key
        if (turned == nullptr) {
            nothing.resize(static_cast<size_t>(size));
            turned = nothing.data();
        }
        std::array<void*, kPanels * kMostLanes> grad_rows;
        for (int64_t row = 0; row < tile.count; ++row) {
            const int64_t at = number * tile_rows_ + row;
            const int64_t h = shape_.head_of(head.number % shape_.kv_heads, at);
            const int64_t i = shape_.query_of(at);
            grad_rows[static_cast<size_t>(row)] = grad_query_.address(b, h, i, int64_t{0});
            if (grad_factor_ == nullptr) continue;
            const Acc* const own = turned + row / lanes * lanes * turned_ + row % lanes;
            const bool empty = tile.arrays.last[row] == 0;
            grad_factor_[(b * shape_.heads + h) * shape_.queries + i] =
                empty ? 0
                      : kernels_.dot_sums(query_.address(b, h, i, int64_t{0}), query_.strides[3],
                                          own, lanes, shape_.dim);
        }
        for (int64_t row = 0; row < tile.count; row += lanes) {
            kernels_.write_rows(turned + row * turned_, tile.arrays.factor + row, shape_.dim,
                                grad_rows.data() + row, std::min(lanes, tile.count - row),
                                grad_query_.strides[3]);
        }
    }

    const Backward<Acc>& kernels_;
    const FewRowsKernels<Acc>& few_rows_;
    const Shape& shape_;
    const Visibility& visibility_;
    const Options& options_;
    RowPacker<Acc> packer_;
    View<4> query_;
    View<4> key_;
    View<4> value_;
    View<4> grad_query_;
    View<4> grad_key_;
    View<4> grad_value_;
    double* grad_factor_;
    int64_t rows_;
    int64_t tile_rows_;
    int64_t row_tiles_;
    int64_t tile_keys_;
    int64_t key_tiles_;
    int64_t splits_;
    int64_t line_;    // elements of a row of dK, padding included
    int64_t line_v_;  // and of dV
    int64_t turned_;  // elements of a row's sum of dR k, padding included
};

}  // namespace

void attention_backward(const Inputs& inputs, const Options& options, const Returned& returned,
                        const Gradients& gradients) {
    const Shape shape = shape_of(inputs);
    const Visibility visibility(shape, inputs.query.rank == 4, options);
    std::vector<double> grad_factor;
    if (gradients.scale != nullptr)
        grad_factor.resize(static_cast<size_t>(shape.batch * shape.heads * shape.queries));
    dispatch<float, double, Float16, BFloat16>(inputs.query.dtype, [&]<class T>() {
        const auto& kernels = active_attention_backward_kernels().of<T>();
        BackwardRun<AccOf<T>>(kernels, active_attention_few_rows_kernels().of<T>(), shape,
                              visibility, inputs, options, returned, gradients,
                              gradients.scale != nullptr ? grad_factor.data() : nullptr)();
    });
    if (gradients.scale != nullptr)
        write_scale_gradient(shape, visibility, options.scale, grad_factor, *gradients.scale);
}

}  // namespace slipstick::cpu::attention
