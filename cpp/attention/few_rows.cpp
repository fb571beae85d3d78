// The loop around the kernels of few_rows.hpp: keys are cut into parts that depend on their number
// alone, the threads take parts of all heads, and what the parts give is merged in their order.
#include "attention/few_rows.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "attention/rows.hpp"
#include "attention/visibility.hpp"
#include "core/threads.hpp"

namespace slipstick::cpu::attention {
namespace {

// Keys of a part: at 128 columns of float32 a megabyte of keys and values, 50 us of reading.
constexpr int64_t kPartKeys = 1024;
constexpr double kSerialProducts = 1 << 18;

template <class T>
class FewRows {
    using Acc = AccOf<T>;

public:
    FewRows(const Shape& shape, const Visibility& visibility, const Inputs& inputs,
            const Options& options, const Tensor& out, const Stats* stats)
        : kernels_(active_attention_few_rows_kernels().of<T>()),
          shape_(shape),
          visibility_(visibility),
          query_(inputs.query),
          key_(inputs.key),
          value_(inputs.value),
          out_(out),
          numbers_(options, visibility, stats),
          softcap_(static_cast<Acc>(options.softcap)),
          query_width_(kernels_.width(shape.dim)),
          out_width_(kernels_.width(shape.dim_v)) {
        int64_t states = 0;
        for (size_t b = 0; b < visibility.sequences().size(); ++b) {
            const Sequence& own = visibility.sequences()[b];
            const int64_t rows = shape.group() * own.queries;
            if (rows == 0 || rows > kFewRows) continue;
            const int64_t parts = std::max<int64_t>(1, (own.keys + kPartKeys - 1) / kPartKeys);
            for (int64_t h = 0; h < shape.kv_heads; ++h) {
                for (int64_t part = 0; part < parts; ++part)
                    tasks_.push_back({static_cast<int64_t>(units_.size()), part});
                units_.push_back({static_cast<int64_t>(b), h, rows, parts, states});
                states += rows * parts;
            }
            longest_ = std::max(longest_, std::min(own.keys, kPartKeys) * rows);
        }
        states_.resize(static_cast<size_t>(states));
    }

    void operator()() {
        if (units_.empty()) return;
        const Scratch outs(static_cast<int64_t>(states_.size()) * out_width_ *
                           static_cast<int64_t>(sizeof(Acc)));
        outs_ = outs.as<Acc>();
        const double products =
            static_cast<double>(longest_) * static_cast<double>(shape_.dim + shape_.dim_v);
        const auto grain = static_cast<int64_t>(kSerialProducts / (products + 1)) + 1;
        parallel_for(static_cast<int64_t>(tasks_.size()), grain, [&](int64_t begin, int64_t end) {
            for (int64_t at = begin; at < end; ++at) {
                const Task& task = tasks_[static_cast<size_t>(at)];
                run_part(units_[static_cast<size_t>(task.unit)], task.part);
            }
        });
        parallel_for(static_cast<int64_t>(units_.size()), grain, [&](int64_t begin, int64_t end) {
            for (int64_t at = begin; at < end; ++at) {
                const Unit& unit = units_[static_cast<size_t>(at)];
                for (int64_t row = 0; row < unit.rows; ++row) finish_row(unit, row);
            }
        });
    }

private:
    struct Unit {  // a key head of a sequence, with the rows that read it
        int64_t sequence;
        int64_t kv_head;
        int64_t rows;
        int64_t parts;
        int64_t first_state;
    };
    struct Task {
        int64_t unit;
        int64_t part;
    };

    void* row_address(const View<4>& view, const Unit& unit, int64_t row) const {
        const Sequence& own = visibility_.sequence(unit.sequence);
        return view.address(own.batch, shape_.head_of(unit.kv_head, row),
                            own.first_query + shape_.query_of(row), int64_t{0});
    }
    RowState<Acc>& state(const Unit& unit, int64_t part, int64_t row) {
        return states_[static_cast<size_t>(unit.first_state + part * unit.rows + row)];
    }
    Acc* out_sums(const Unit& unit, int64_t part, int64_t row) const {
        return outs_ + (unit.first_state + part * unit.rows + row) * out_width_;
    }

    // The same lines to be fetched, where they will be read from there.
    Fetch fetch_of(const View<4>& view, const Unit& unit, int64_t key, int64_t keys,
                   int64_t width) const {
        if (view.strides[3] != 1 || keys <= 0) return {};
        const Sequence& own = visibility_.sequence(unit.sequence);
        constexpr auto size = static_cast<int64_t>(sizeof(T));
        return {static_cast<const char*>(
                    view.address(own.batch, unit.kv_head, own.first_key + key, int64_t{0})),
                view.strides[2] * size, width * size, keys};
    }
    void run_part(const Unit& unit, int64_t part) {
        const Scratch queries(unit.rows * query_width_ * static_cast<int64_t>(sizeof(Acc)));
        const Scratch buffers(kStepKeys * (shape_.dim + shape_.dim_v) *
                              static_cast<int64_t>(sizeof(T)));
        Acc* const query = queries.as<Acc>();
        T* const key_buffer = buffers.as<T>();
        T* const value_buffer = key_buffer + kStepKeys * shape_.dim;
        std::array<Acc, kFewRows> factors;
        std::array<KeyRange, kFewRows> ranges;
        int64_t first = std::numeric_limits<int64_t>::max();
        int64_t last = 0;
        for (int64_t row = 0; row < unit.rows; ++row) {
            const auto slot = static_cast<size_t>(row);
            kernels_.pack_query(row_address(query_, unit, row), query_.strides[3], shape_.dim,
                                query + row * query_width_);
            factors[slot] = numbers_.factor(unit.sequence, shape_.head_of(unit.kv_head, row),
                                            shape_.query_of(row));
            ranges[slot] = visibility_.range(unit.sequence, shape_.query_of(row));
            if (ranges[slot].last > 0) first = std::min(first, ranges[slot].first);
            last = std::max(last, ranges[slot].last);
            state(unit, part, row) = {-std::numeric_limits<Acc>::infinity(), 0, 0};
            std::fill_n(out_sums(unit, part, row), out_width_, Acc{0});
        }
        first = std::max(first / kStepKeys * kStepKeys, part * kPartKeys);
        last = std::min(last, (part + 1) * kPartKeys);
        for (int64_t start = first; start < last; start += kStepKeys) {
            const int64_t keys = std::min(kStepKeys, last - start);
            const Sequence& own = visibility_.sequence(unit.sequence);
            const Lines key = contiguous_lines(key_, own.batch, unit.kv_head, own.first_key + start,
                                               keys, shape_.dim, key_buffer);
            const Lines value =
                contiguous_lines(value_, own.batch, unit.kv_head, own.first_key + start, keys,
                                 shape_.dim_v, value_buffer);
            const int64_t next = start + keys;
            run_step(unit, part, start, keys, query, factors.data(), ranges.data(), key, value,
                     fetch_of(value_, unit, start, keys, shape_.dim_v),
                     fetch_of(key_, unit, next, std::min(kStepKeys, last - next), shape_.dim));
        }
    }

    void run_step(const Unit& unit, int64_t part, int64_t start, int64_t keys, const Acc* query,
                  const Acc* factors, const KeyRange* ranges, const Lines& key, const Lines& value,
                  const Fetch& values, const Fetch& next_keys) {
        Acc scores[kFewRows * kStepKeys];
        Acc bias[kStepKeys];
        Acc alpha[kFewRows];
        kernels_.score(query, unit.rows, shape_.dim, key.data, key.stride, keys, values, scores);
        bool all_see_all = !visibility_.has_mask();
        for (int64_t row = 0; row < unit.rows; ++row)
            all_see_all &= ranges[row].first <= start && ranges[row].last >= start + keys;
        for (int64_t row = 0; row < unit.rows; ++row) {
            RowStep<Acc> step{.factor = factors[row],
                              .softcap = softcap_,
                              .first = std::max<int64_t>(0, ranges[row].first - start),
                              .last = std::min(keys, ranges[row].last - start),
                              .bias = nullptr,
                              .has_moment = numbers_.has_stats()};
            if (step.first >= step.last) continue;
            Acc* const weights = scores + row * kStepKeys;
            if (visibility_.has_mask()) {
                if (!visibility_.fill_bias(unit.sequence, shape_.head_of(unit.kv_head, row),
                                           shape_.query_of(row), start, start + keys, bias, 1))
                    continue;
                std::fill(bias + keys, bias + kStepKeys, Acc{0});
                step.bias = bias;
            }
            alpha[row] = kernels_.weigh(step, keys, weights, state(unit, part, row));
            if (all_see_all) continue;
            // 0 times an infinite value is NaN: a row takes the values of the keys that it sees.
            Acc* const sums = out_sums(unit, part, row);
            Acc keep = alpha[row];
            for (int64_t j = step.first; j < step.last;) {
                int64_t end = step.last;
                if (step.bias != nullptr) {
                    const auto hidden = [&](int64_t at_key) {
                        return bias[at_key] == -std::numeric_limits<Acc>::infinity();
                    };
                    while (j < step.last && hidden(j)) ++j;
                    for (end = j; end < step.last && !hidden(end);) ++end;
                    if (j == end) break;
                }
                kernels_.add_values(weights + j, 1, &keep,
                                    static_cast<const T*>(value.data) + j * value.stride,
                                    value.stride, end - j, shape_.dim_v, {}, sums, out_width_);
                keep = 1;
                j = end;
            }
        }
        if (all_see_all) {
            kernels_.add_values(scores, unit.rows, alpha, value.data, value.stride, keys,
                                shape_.dim_v, next_keys, out_sums(unit, part, 0), out_width_);
        }
    }

    // The parts of a row, one after the other: (m, l, a, out) move to the larger reference.
    void finish_row(const Unit& unit, int64_t row) {
        RowState<Acc> total = state(unit, 0, row);
        Acc* const sums = out_sums(unit, 0, row);
        for (int64_t part = 1; part < unit.parts; ++part) {
            const RowState<Acc>& other = state(unit, part, row);
            if (other.sum == 0) continue;
            const Acc* more = out_sums(unit, part, row);
            const Acc maximum = std::max(total.maximum, other.maximum);
            const auto move = [&](const RowState<Acc>& from, Acc& moment) {
                if (from.sum == 0) return Acc{0};
                const Acc delta = from.maximum == maximum ? Acc{0} : from.maximum - maximum;
                const Acc factor = std::exp(delta);
                // Where the factor is 0 the distance may be infinite.
                moment = factor == 0 ? Acc{0} : factor * (from.moment + delta * from.sum);
                return factor;
            };
            Acc own_moment = 0;
            Acc other_moment = 0;
            const Acc own_factor = move(total, own_moment);
            const Acc other_factor = move(other, other_moment);
            for (int64_t c = 0; c < out_width_; ++c)
                sums[c] = own_factor * sums[c] + other_factor * more[c];
            total = {maximum, own_factor * total.sum + other_factor * other.sum,
                     own_moment + other_moment};
        }
        const int64_t h = shape_.head_of(unit.kv_head, row);
        const int64_t i = shape_.query_of(row);
        const bool empty = visibility_.visible(unit.sequence, h, i) == 0;
        if (numbers_.has_stats()) {
            numbers_.write_stats(unit.sequence, h, i, empty, total.maximum, total.sum,
                                 total.moment);
        }
        kernels_.finish(sums, empty ? Acc{1} : total.sum, shape_.dim_v,
                        row_address(out_, unit, row), out_.strides[3]);
    }

    const FewRowsKernels<Acc>& kernels_;
    const Shape& shape_;
    const Visibility& visibility_;
    View<4> query_;
    View<4> key_;
    View<4> value_;
    View<4> out_;
    Rows<Acc> numbers_;
    Acc softcap_;
    int64_t query_width_;
    int64_t out_width_;
    int64_t longest_ = 0;  // scores of a task
    std::vector<Unit> units_;
    std::vector<Task> tasks_;
    std::vector<RowState<Acc>> states_;
    Acc* outs_ = nullptr;
};

}  // namespace

void attend_few_rows(const Shape& shape, const Visibility& visibility, const Inputs& inputs,
                     const Options& options, const Tensor& out, const Stats* stats) {
    dispatch<float, double, Float16, BFloat16>(inputs.query.dtype, [&]<class T>() {
        FewRows<T>(shape, visibility, inputs, options, out, stats)();
    });
}

}  // namespace slipstick::cpu::attention
