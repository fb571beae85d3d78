// The rows of the gradients: query and dO in the forms that the products take, with what each row
// needs beyond them.
#pragma once

#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "attention/attention.hpp"
#include "attention/backward_kernels.hpp"
#include "attention/rows.hpp"
#include "attention/tiles.hpp"
#include "attention/visibility.hpp"

namespace slipstick::cpu::attention {

template <class Acc>
struct PackedRows {  // a row tile
    RowTile<Acc> arrays;
    std::vector<int64_t> ranges;
    int64_t count;  // rows in use
    KeyRange some;  // keys that some row sees
    KeyRange all;   // keys that all rows see
};

// Below, a head is a key head of a sequence.
template <class Acc>
class RowPacker {
public:
    RowPacker(const Backward<Acc>& kernels, const Shape& shape, const Visibility& visibility,
              const Inputs& inputs, const Options& options, const Returned& returned)
        : kernels_(kernels),
          shape_(shape),
          visibility_(visibility),
          numbers_(options, visibility, nullptr),
          query_(inputs.query),
          out_(returned.out),
          grad_out_(returned.grad_out),
          lse_(returned.lse),
          entropy_(returned.entropy),
          rows_(shape.group() * shape.queries),
          tile_rows_(std::min(kPanels * kernels.lanes, round_up(rows_, kernels.lanes))),
          line_(round_up(shape.dim, kernels.lanes)),
          line_v_(round_up(shape.dim_v, kernels.lanes)) {
        if (returned.grad_lse != nullptr) grad_lse_.emplace(*returned.grad_lse);
        if (returned.grad_entropy != nullptr) grad_entropy_.emplace(*returned.grad_entropy);
    }

    int64_t rows() const { return rows_; }            // of a head
    int64_t tile_rows() const { return tile_rows_; }  // room of a tile
    int64_t tiles() const { return rows_ == 0 ? 0 : ceil_div(rows_, tile_rows_); }
    int64_t tile_size() const {
        return tile_rows_ * (shape_.dim + shape_.dim_v + line_ + line_v_ + 4);
    }

    // Fills tile `number` of a head; `memory` has room for tile_size() elements.
    void pack(int64_t head, int64_t number, Acc* memory, PackedRows<Acc>& tile) const {
        const int64_t lanes = kernels_.lanes;
        const int64_t b = head / shape_.kv_heads;
        tile.ranges.resize(static_cast<size_t>(2 * tile_rows_));
        tile.count = std::min(tile_rows_, rows_ - number * tile_rows_);
        const int64_t width = round_up(tile.count, lanes);
        std::fill_n(memory, tile_size(), Acc{0});
        std::fill(tile.ranges.begin(), tile.ranges.end(), 0);
        const auto take = [&memory](int64_t size) { return std::exchange(memory, memory + size); };
        Acc* const query = take(width * shape_.dim);
        Acc* const grad = take(width * shape_.dim_v);
        Acc* const scaled = take(width * line_);
        Acc* const grad_lines = take(width * line_v_);
        Acc* const factors = take(width);
        Acc* const lse = take(width);
        Acc* const constant = take(width);
        Acc* const grad_entropy = take(width);
        int64_t* const first = tile.ranges.data();
        int64_t* const last = first + tile_rows_;
        tile.some = {shape_.keys, 0};
        tile.all = {0, shape_.keys};
        bool finite = true;
        std::array<const void*, kPanels * kMostLanes> query_rows{};  // null where there is none
        std::array<const void*, kPanels * kMostLanes> grad_rows{};
        for (int64_t row = 0; row < tile.count; ++row) {
            const int64_t at = number * tile_rows_ + row;
            const int64_t h = shape_.head_of(head % shape_.kv_heads, at);
            const int64_t i = shape_.query_of(at);
            const Acc row_lse = *lse_.template at<Acc>(b, h, i);
            // A row without a key, in this call or in all calls that its statistics come from.
            const bool empty = visibility_.visible(b, h, i) == 0 ||
                               row_lse == -std::numeric_limits<Acc>::infinity();
            const KeyRange seen = empty ? KeyRange{0, 0} : visibility_.range(b, i);
            first[row] = seen.first;
            last[row] = seen.last;
            tile.some = {std::min(tile.some.first, seen.last > 0 ? seen.first : shape_.keys),
                         std::max(tile.some.last, seen.last)};
            tile.all = {std::max(tile.all.first, seen.first), std::min(tile.all.last, seen.last)};
            if (empty) continue;
            factors[row] = numbers_.factor(b, h, i);
            lse[row] = row_lse;
            const void* const grad_row = grad_out_.address(b, h, i, int64_t{0});
            double sum =
                kernels_.dot(grad_row, grad_out_.strides[3], out_.address(b, h, i, int64_t{0}),
                             out_.strides[3], shape_.dim_v);
            if (grad_lse_) sum -= static_cast<double>(*grad_lse_->template at<Acc>(b, h, i));
            if (grad_entropy_) {
                grad_entropy[row] = *grad_entropy_->template at<Acc>(b, h, i);
                sum += static_cast<double>(grad_entropy[row]) *
                       static_cast<double>(*entropy_.template at<Acc>(b, h, i));
            }
            constant[row] = static_cast<Acc>(sum);
            const void* const query_row = query_.address(b, h, i, int64_t{0});
            query_rows[static_cast<size_t>(row)] = query_row;
            grad_rows[static_cast<size_t>(row)] = grad_row;
            finite &= kernels_.pack_line(query_row, query_.strides[3], shape_.dim, factors[row],
                                         width, scaled + row * lanes);
            finite &= kernels_.pack_line(grad_row, grad_out_.strides[3], shape_.dim_v, Acc{1},
                                         width, grad_lines + row * lanes);
        }
        for (int64_t row = 0; row < width; row += lanes) {
            kernels_.pack_rows(query_rows.data() + row, query_.strides[3], shape_.dim,
                               query + row * shape_.dim);
            kernels_.pack_rows(grad_rows.data() + row, grad_out_.strides[3], shape_.dim_v,
                               grad + row * shape_.dim_v);
        }
        tile.arrays = {.panels = width / lanes,
                       .query = query,
                       .grad = grad,
                       .scaled = scaled,
                       .grad_lines = grad_lines,
                       .factor = factors,
                       .lse = lse,
                       .constant = constant,
                       .grad_entropy = grad_entropy_ ? grad_entropy : nullptr,
                       .first = first,
                       .last = last,
                       .turned = nullptr,
                       .finite = finite};
    }

private:
    const Backward<Acc>& kernels_;
    const Shape& shape_;
    const Visibility& visibility_;
    Rows<Acc> numbers_;
    View<4> query_;
    View<4> out_;
    View<4> grad_out_;
    View<3> lse_;
    View<3> entropy_;
    std::optional<View<3>> grad_lse_;
    std::optional<View<3>> grad_entropy_;
    int64_t rows_;
    int64_t tile_rows_;
    int64_t line_;    // elements of a line of lambda q, padding included
    int64_t line_v_;  // and of dO
};

}  // namespace slipstick::cpu::attention
