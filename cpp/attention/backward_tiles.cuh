// Where a block of the backward kernels stands: which tiles come to shared memory, and what is
// known of their rows.
#pragma once

#include <algorithm>

#include "attention/backward_shape.cuh"
#include "core/launch.cuh"

namespace slipstick::cuda::attention {

// A block owns a tile of keys, and rows stream past, or the other way round.
template <class T, class Shape, bool owns_keys, bool full>
class BackwardTiles {
protected:
    static constexpr bool kOwnsKeys = owns_keys;
    static constexpr int kWidth = Shape::kWidth;
    static constexpr int kOwned = Shape::kOwned;
    static constexpr int kStreamed = Shape::kStreamed;
    static constexpr int kRows = kOwnsKeys ? kStreamed : kOwned;  // of a set of numbers
    static constexpr bool kHoldsOptions = kOwnsKeys || Shape::kHoldsOptions;

    __device__ __forceinline__ explicit BackwardTiles(const BackwardArguments& arguments)
        : arguments_(arguments), problem_(arguments.problem) {
        group_ = static_cast<unsigned>(problem_.group);
        rows_ = static_cast<int>(problem_.group * problem_.queries);
        const auto lines = static_cast<unsigned>(kOwnsKeys ? problem_.keys : rows_);
        const unsigned tiles = (lines + kOwned - 1) / kOwned;
        const auto heads = static_cast<unsigned>(problem_.kv_heads);
        kv_head_ = static_cast<int>(blockIdx.x / tiles % heads);
        number_ = static_cast<int>(blockIdx.x / tiles / heads);
        length_ = static_cast<int>(sequence_of(problem_, number_).length);
        // Under causal order the first keys and the last rows have most to do: they come first.
        const unsigned tile = blockIdx.x % tiles;
        owned_ = static_cast<int>((kOwnsKeys ? tile : tiles - 1 - tile) * kOwned);

        T* const tiles_at = dynamic_shared<T>();
        own_[0] = tiles_at;
        own_[1] = own_[0] + kOwned * kWidth;
        streamed_at_ = own_[1] + kOwned * kWidth;
        const int sets = kOwnsKeys ? arguments.stages : 1;
        numbers_ =
            reinterpret_cast<RowNumbers*>(streamed_at_ + 2 * arguments.stages * kStreamed * kWidth);
        options_ = reinterpret_cast<RowOptions*>(numbers_ + sets * kRows);
    }

    __device__ __forceinline__ static int thread() { return static_cast<int>(threadIdx.x); }

    // A tile that streams past: rows of a head of the group, from a query on, or keys.
    struct Place {
        int head;
        int start;
    };
    struct Fetched {
        float factor;
        float lse;
        float constant;
        float grad_entropy;
    };

    __device__ __forceinline__ T* streamed(int buffer, int which) const {
        return streamed_at_ + (2 * buffer + which) * kStreamed * kWidth;
    }

    // Where row `row` of the key head lies in query, dO, dQ.
    template <class Data>
    __device__ __forceinline__ auto row_in(const Steps<Data>& tensor, int row) const {
        const auto number = static_cast<unsigned>(row);
        return tensor.template at<T>(number_, kv_head_ * problem_.group + number % group_,
                                     number / group_);
    }

    // Rows first, first + 1, ... of a head's tensor, up to `end`, as far as the tile goes.
    template <int kLines>
    __device__ __forceinline__ void load_head(T* tile, const TileSource& source,
                                              const Operand& operand, int head, int first,
                                              int end) {
        load_rows<kLines, kWidth, Shape::kThreads>(tile, source,
                                                   operand.template at<T>(number_, head, first),
                                                   operand.row, 0, end - first);
    }
    // Of all heads of the group.
    __device__ __forceinline__ void load_group(T* tile, const TileSource& source,
                                               const Operand& operand) {
        load_tile<kOwned, kWidth, Shape::kThreads>(tile, source, [&](int r) {
            return r < rows_ - owned_ ? row_in(operand, owned_ + r) : nullptr;
        });
    }

    __device__ __forceinline__ void load_owned() {
        const BackwardArguments& a = arguments_;
        if constexpr (kOwnsKeys) {
            load_head<kOwned>(own_[0], a.key, problem_.key, kv_head_, owned_, length_);
            load_head<kOwned>(own_[1], a.value, problem_.value, kv_head_, owned_, length_);
        } else {
            load_group(own_[0], a.query, problem_.query);
            load_group(own_[1], a.grad_out, a.grad_out_rows);
        }
        // A group of its own: where nothing streams past, the last wait would not count it, and
        // copies would arrive on top of the results.
        commit_copies();
    }
    __device__ __forceinline__ void load_streamed(int buffer, const Place& place) {
        const BackwardArguments& a = arguments_;
        T* const one = streamed(buffer, 0);
        T* const two = streamed(buffer, 1);
        if constexpr (kOwnsKeys) {
            const int head = kv_head_ * static_cast<int>(group_) + place.head;
            load_head<kStreamed>(one, a.query, problem_.query, head, place.start, end_);
            load_head<kStreamed>(two, a.grad_out, a.grad_out_rows, head, place.start, end_);
        } else {
            load_head<kStreamed>(one, a.key, problem_.key, kv_head_, place.start, end_);
            load_head<kStreamed>(two, a.value, problem_.value, kv_head_, place.start, end_);
        }
        commit_copies();
    }

    // The numbers of a row, which is this thread's, read long before they are stored.
    __device__ __forceinline__ Fetched fetch(int row, bool there) const {
        Fetched fetched{};
        if (!there) return fetched;
        const int64_t at = row_number(row);
        fetched.factor = arguments_.rows.factor[at];
        fetched.lse = arguments_.rows.lse[at];
        fetched.constant = arguments_.rows.constant[at];
        if (full && arguments_.rows.grad_entropy != nullptr)
            fetched.grad_entropy = arguments_.rows.grad_entropy[at];
        return fetched;
    }
    __device__ __forceinline__ int64_t row_number(int row) const {
        return (number_ * problem_.kv_heads + kv_head_) * rows_ + row;
    }
    // A row that is not there sees nothing, and has zeros for operands.
    __device__ __forceinline__ void store_numbers(int buffer, int row, bool there,
                                                  const Fetched& fetched) {
        if (thread() >= kRows) return;
        const int place = buffer * kRows + thread();
        numbers_[place] = {fetched.factor, fetched.lse, fetched.constant,
                           fetched.factor * arguments_.key_unit};
        if constexpr (kHoldsOptions) options_[place] = options_of_row(row, there, fetched);
    }
    __device__ __forceinline__ RowOptions options_of_row(int row, bool there,
                                                         const Fetched& fetched) const {
        RowOptions options{0, 0, 0, fetched.grad_entropy};
        if (there) {
            const KeyRange seen = range_of_row(row, fetched.lse);
            options.first = static_cast<int>(seen.first);
            options.last = static_cast<int>(seen.last);
            if (full) options.mask = mask_row(row);
        }
        return options;
    }
    // Of a place in the numbers; found anew where there is no room for them.
    __device__ __forceinline__ RowOptions options_at(int place) const {
        if constexpr (kHoldsOptions) {
            return options_[place];
        } else {
            const bool there = place < rows_ - owned_;
            Fetched fetched{};
            fetched.lse = numbers_[place].lse;
            if (full && there && arguments_.rows.grad_entropy != nullptr)
                fetched.grad_entropy = arguments_.rows.grad_entropy[row_number(owned_ + place)];
            return options_of_row(owned_ + place, there, fetched);
        }
    }
    __device__ __forceinline__ Fetched fetch_streamed(const Place& place) const {
        return fetch(streamed_row_number(place), is_streamed_row(place));
    }
    __device__ __forceinline__ void store_streamed_numbers(int buffer, const Place& place,
                                                           const Fetched& fetched) {
        store_numbers(buffer, streamed_row_number(place), is_streamed_row(place), fetched);
    }
    __device__ __forceinline__ int streamed_row_number(const Place& place) const {
        return (place.start + thread()) * static_cast<int>(group_) + place.head;
    }
    __device__ __forceinline__ bool is_streamed_row(const Place& place) const {
        return thread() < kRows && thread() < end_ - place.start;
    }

    __device__ __forceinline__ KeyRange range_of_row(int row, float lse) const {
        if (lse == std::numeric_limits<float>::infinity()) return {0, 0};
        return slipstick::attention::key_range(problem_.window, problem_.queries, problem_.keys,
                                               length_, static_cast<unsigned>(row) / group_);
    }
    // Where the row's mask begins.
    __device__ __forceinline__ int64_t mask_row(int row) const {
        const int64_t query = static_cast<unsigned>(row) / group_;
        const int64_t head = kv_head_ * problem_.group + static_cast<unsigned>(row) % group_;
        return number_ * problem_.mask.batch + head * problem_.mask.head +
               query * problem_.mask.row;
    }
    __device__ __forceinline__ float bias_of_key(int64_t mask_row, int key) const {
        return bias_at<float>(problem_, mask_row + key * problem_.mask.column);
    }

    // Keys that some and that all of the rows see which the block owns.
    __device__ __forceinline__ void find_ranges() {
        int some_first = std::numeric_limits<int>::max();
        int some_last = 0;
        int all_first = 0;
        int all_last = std::numeric_limits<int>::max();
        const int count = std::min(rows_ - owned_, int{kOwned});
        for (int row = static_cast<int>(threadIdx.x) % kWarp; row < count; row += kWarp) {
            const RowOptions options = options_at(row);
            if (options.last > 0) {
                some_first = std::min(some_first, options.first);
                some_last = std::max(some_last, options.last);
            }
            all_first = std::max(all_first, options.first);
            all_last = std::min(all_last, options.last);
        }
        for (int step = kWarp / 2; step > 0; step /= 2) {
            some_first = std::min(some_first, shuffle_xor(some_first, step));
            some_last = std::max(some_last, shuffle_xor(some_last, step));
            all_first = std::max(all_first, shuffle_xor(all_first, step));
            all_last = std::min(all_last, shuffle_xor(all_last, step));
        }
        begin_ = some_first;
        end_ = some_last;
        all_first_ = all_first;
        all_last_ = all_last;
    }

    // Whether a key of the tile is hidden from a row of it, as every warp finds.
    __device__ __forceinline__ bool is_hidden_in(int buffer, int start) const {
        if (full && problem_.has_mask()) return true;
        if constexpr (kOwnsKeys) {
            bool hides = false;
            const int count = std::min(end_ - start, int{kRows});
            const int keys = std::min(static_cast<int>(problem_.keys) - owned_, int{kOwned});
            for (int row = static_cast<int>(threadIdx.x) % kWarp; row < count; row += kWarp) {
                const RowOptions options = options_[buffer * kRows + row];
                hides |= options.first > owned_ || options.last - owned_ < keys;
            }
            return any_lane(hides);
        } else {
            return all_first_ > start || all_last_ - start < kStreamed;
        }
    }

    __device__ __forceinline__ bool sees(int row, int key) const {
        const KeyRange seen = range_of_row(row, arguments_.rows.lse[row_number(row)]);
        if (key < seen.first || key >= seen.last) return false;
        return !full || !problem_.has_mask() ||
               bias_of_key(mask_row(row), key) != -std::numeric_limits<float>::infinity();
    }

    const BackwardArguments& arguments_;
    const Problem& problem_;
    unsigned group_;
    int number_;  // of the sequence
    int kv_head_;
    int length_;  // the keys that are valid
    int rows_;    // of the key head
    int owned_;   // the first key or row that the block owns
    // What streams past: the keys that some row sees, or the queries that see some key.
    int begin_;
    int end_;
    // Keys that all rows see which the block owns.
    int all_first_;
    int all_last_;
    T* own_[2];  // key and value, or query and dO
    T* streamed_at_;
    RowNumbers* numbers_;
    RowOptions* options_;
};

}  // namespace slipstick::cuda::attention
