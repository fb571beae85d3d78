#include "projection/csr.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "core/error.hpp"
#include "core/rounding.hpp"
#include "core/store.hpp"
#include "core/threads.hpp"
#include "projection/csr_kernels.hpp"
#include "projection/srht.hpp"

namespace slipstick::cpu::projection {
namespace {

constexpr int64_t kTableBytes = 1 << 23;    // of slots that are alive at once
constexpr int64_t kSumBytes = 1 << 24;      // of sums that wait for the next table
constexpr int64_t kBatch = 2 * kSlotGroup;  // nonzeros whose slots a thread makes at once

const CsrKernels& kernels() { return active_projection_csr_kernels(); }

// Columns of the matrix, made for a list of features. Groups are made by any thread, each once.
class Slots {
public:
    Slots(const Law& law, int64_t components, int64_t count)
        : law_(law),
          components_(components),
          form_(form_of(law)),
          slot_bytes_(form_ == Form::kHits && !is_hashed(law.kind) ? 0
                                                                   : slot_bytes(law, components)),
          table_(count * slot_bytes_) {
        if (slot_bytes_ > 0) return;
        const auto groups = static_cast<size_t>((count - 1) / kSlotGroup + 1);
        hits_.resize(groups);
        pointers_.resize(groups);
        offsets_.resize(groups * (kSlotGroup + 1));
    }

    static Form form_of(const Law& law) {
        if (law.kind == Kind::kRademacher) return Form::kBits;
        if (is_hashed(law.kind)) return Form::kHits;
        // The slots of a group have fewer than 2^32 hits.
        return has_few_entries(law) ? Form::kHits : Form::kEntries;
    }
    // On average.
    static int64_t slot_bytes(const Law& law, int64_t components) {
        switch (form_of(law)) {
            case Form::kBits:
                return (components - 1) / kSignBlock * 16 + 16;
            case Form::kEntries:
                return components * int64_t{sizeof(float)};
            default:
                break;
        }
        if (is_hashed(law.kind)) return law.nonzeros * int64_t{sizeof(Hit)};
        const double hits = law.threshold * 0x1p-31 * static_cast<double>(components);
        return (static_cast<int64_t>(hits) + 1) * int64_t{sizeof(Hit)};
    }
    // Nanoseconds that a slot takes, about.
    static double slot_cost(const Law& law, int64_t components) {
        const auto k = static_cast<double>(components);
        if (law.kind == Kind::kRademacher) return 2 + k / 64;
        if (is_hashed(law.kind)) return 3 * static_cast<double>(law.nonzeros);
        return law.kind == Kind::kGaussian ? 1.5 * k : 0.5 * k;
    }

    // Slots [kSlotGroup * group, + count).
    void make(int64_t group, const uint64_t* features, int64_t count) {
        const int64_t first = group * kSlotGroup;
        char* const slots = table_.as<char>() + first * slot_bytes_;
        if (form_ == Form::kBits) {
            kernels().make_bits(law_, features, count, components_,
                                reinterpret_cast<uint32_t*>(slots));
            return;
        }
        if (form_ == Form::kEntries) {
            kernels().make_entries(law_, features, count, components_,
                                   reinterpret_cast<float*>(slots));
            return;
        }
        if (slot_bytes_ > 0) {
            active_projection_hashed_kernels().hits(law_, features, count,
                                                    reinterpret_cast<Hit*>(slots));
            return;
        }
        std::vector<Hit>& hits = hits_[static_cast<size_t>(group)];
        uint32_t* const offsets = offsets_.data() + group * (kSlotGroup + 1);
        {
            size_t used = 0;
            for (int64_t i = 0; i < count; ++i) {
                offsets[i] = static_cast<uint32_t>(used);
                const size_t room = used + static_cast<size_t>(components_);
                if (hits.size() < room) hits.resize(2 * room);
                int64_t made =
                    kernels().make_sparse_hits(law_, features[i], components_, hits.data() + used);
                // The padding's entries belong to no component.
                while (made > 0 &&
                       static_cast<int64_t>(hits[used + static_cast<size_t>(made) - 1] >> 1) >=
                           law_.components) {
                    --made;
                }
                used += static_cast<size_t>(made);
            }
            offsets[count] = static_cast<uint32_t>(used);
        }
        pointers_[static_cast<size_t>(group)] = hits.data();
    }

    void put_into(Segment& segment) const {
        segment.table = table_.as();
        segment.slot_bytes = slot_bytes_;
        segment.hits = pointers_.data();
        segment.offsets = offsets_.data();
        segment.components = components_;
    }

private:
    const Law& law_;
    int64_t components_;
    Form form_;
    int64_t slot_bytes_;
    Scratch table_;
    std::vector<std::vector<Hit>> hits_;  // by group
    std::vector<const Hit*> pointers_;
    std::vector<uint32_t> offsets_;
};

// What one thread needs for a row.
struct Workplace {
    Workplace(const Law& law, int64_t components, int64_t sum_bytes)
        : sums(components * sum_bytes),
          chains(chain_bytes(law, components)),
          slots(law, components, kBatch) {
        std::memset(chains.as(), 0, static_cast<size_t>(chain_bytes(law, components)));
    }
    static int64_t chain_bytes(const Law& law, int64_t components) {
        return Slots::form_of(law) == Form::kHits ? components * kChainBytes : 0;
    }
    Scratch sums;
    Scratch chains;
    uint64_t run = 0;
    Slots slots;  // by position
};

class Projection {
public:
    Projection(const Csr& x, const Law& law, uint64_t first_feature, const Tensor& out)
        : x_(x),
          law_(law),
          first_feature_(first_feature),
          out_(out),
          starts_(x.row_starts),
          columns_(x.columns),
          components_(round_up(law.components, kPadding)),
          is_double_(x.values.dtype == Dtype::kFloat64),
          sum_bytes_(item_size(x.values.dtype)),
          origin_(static_cast<int64_t>(first_feature % kDepthBlock)),
          accumulate_(kernels().accumulate[static_cast<int>(Slots::form_of(law))][is_double_]
                                          [columns_.wide()]) {}

    void run() {
        const int64_t nonzeros = starts_[x_.rows] - starts_[0];
        const int64_t slot_bytes = Slots::slot_bytes(law_, components_);
        // Whole blocks of features, by the global index.
        const int64_t room = std::max<int64_t>(kTableBytes / (slot_bytes * kDepthBlock), 1);
        const int64_t blocks = (origin_ + x_.features - 1) / kDepthBlock + 1;
        const int64_t tables = (blocks - 1) / room + 1;
        const int64_t supers =
            tables == 1 ? 1 : (x_.rows * components_ * sum_bytes_ - 1) / kSumBytes + 1;
        // Each column once for every table, or once for each of its nonzeros; beside that, sums
        // that wait for the next table are read and written at about 0.3 ns each.
        const double cost = Slots::slot_cost(law_, components_);
        const double by_column =
            cost * static_cast<double>(x_.features) * static_cast<double>(supers) +
            (tables == 1
                 ? 0
                 : 0.3 * static_cast<double>(tables * components_) * static_cast<double>(x_.rows));
        if (by_column >= cost * static_cast<double>(nonzeros)) {
            by_position();
        } else {
            by_tables(room, blocks, (x_.rows - 1) / supers + 1);
        }
    }

private:
    Segment segment(int64_t begin, int64_t end) const {
        Segment piece{};
        piece.values = static_cast<const char*>(x_.values.data) + begin * sum_bytes_;
        piece.columns = columns_.at(begin);
        piece.count = end - begin;
        piece.readable = starts_[x_.rows] - begin;
        piece.block_origin = origin_;
        return piece;
    }

    void add(Segment& piece, const Slots& slots, Workplace& place, void* sums) const {
        slots.put_into(piece);
        piece.chains = place.chains.as();
        piece.run = &place.run;
        accumulate_(piece, sums);
    }

    void finish(int64_t row, const void* sums) const {
        char* const target =
            static_cast<char*>(out_.mutable_data()) + row * out_.strides[0] * sum_bytes_;
        if (out_.strides[1] == 1) {
            kernels().scale[is_double_](sums, law_.components, law_.scale, target);
        } else {
            const Matrix matrix{target, out_.dtype, 1, law_.components, 0, out_.strides[1]};
            store_scaled(sums, components_, 1, law_.components, law_.scale, matrix, 0, 0);
        }
    }

    // Rows for a chunk, so that it takes some 100 us.
    int64_t row_grain() const {
        const int64_t nonzeros = starts_[x_.rows] - starts_[0] + x_.rows;
        const double row_work = static_cast<double>(nonzeros) / static_cast<double>(x_.rows) *
                                (static_cast<double>(components_) / 16 + 4);
        return std::max<int64_t>(1, static_cast<int64_t>(2e5 / row_work));
    }

    void by_tables(int64_t room, int64_t blocks, int64_t super_rows) {
        Slots slots(law_, components_, std::min(room, blocks) * kDepthBlock);
        const bool one_table = blocks <= room;
        const int64_t row_bytes = components_ * sum_bytes_;
        const Scratch waiting(one_table ? 0 : super_rows * row_bytes);
        const Scratch cursors(one_table ? 0 : super_rows * int64_t{sizeof(int64_t)});
        const auto make = [&](int64_t b0, int64_t b1) {
            const double block_work = Slots::slot_cost(law_, components_) * kDepthBlock;
            const auto grain = std::max<int64_t>(1, static_cast<int64_t>(1e5 / block_work));
            parallel_for(b1 - b0, grain, [&](int64_t begin, int64_t end) {
                for (int64_t b = begin; b < end; ++b) {
                    // The first block may begin before feature 0: those slots are not looked at.
                    uint64_t features[kSlotGroup];
                    for (int64_t i = 0; i < kSlotGroup; ++i) {
                        features[i] = first_feature_ - static_cast<uint64_t>(origin_) +
                                      static_cast<uint64_t>((b0 + b) * kDepthBlock + i);
                    }
                    slots.make(b, features, kSlotGroup);
                }
            });
        };
        for (int64_t r0 = 0; r0 < x_.rows; r0 += super_rows) {
            const int64_t rows = std::min(super_rows, x_.rows - r0);
            for (int64_t b0 = 0; b0 < blocks; b0 += room) {
                const int64_t b1 = std::min(b0 + room, blocks);
                make(b0, b1);
                const int64_t first_slot = b0 * kDepthBlock - origin_;  // its column
                const int64_t last_column = b1 * kDepthBlock - origin_;
                parallel_for(rows, row_grain(), [&](int64_t begin, int64_t end) {
                    Workplace place(law_, components_, sum_bytes_);
                    for (int64_t r = begin; r < end; ++r) {
                        const int64_t row = r0 + r;
                        int64_t first = starts_[row];
                        int64_t last = starts_[row + 1];
                        void* sums = place.sums.as();
                        if (!one_table) {
                            int64_t& cursor = cursors.as<int64_t>()[r];
                            if (b0 > 0) first = cursor;
                            last = columns_.lower_bound(first, last, last_column);
                            cursor = last;
                            sums = waiting.as<char>() + r * row_bytes;
                        }
                        if (b0 == 0) std::memset(sums, 0, static_cast<size_t>(row_bytes));
                        Segment piece = segment(first, last);
                        piece.first_slot = first_slot;
                        if (last > first) add(piece, slots, place, sums);
                        if (b1 == blocks) finish(row, sums);
                    }
                });
            }
        }
    }

    int64_t block_of(int64_t nonzero) const { return (columns_[nonzero] + origin_) / kDepthBlock; }

    void by_position() {
        const int64_t row_bytes = components_ * sum_bytes_;
        parallel_for(x_.rows, row_grain(), [&](int64_t begin, int64_t end) {
            Workplace place(law_, components_, sum_bytes_);
            std::memset(place.sums.as(), 0, static_cast<size_t>(row_bytes));
            int64_t row = begin;
            // Batches of nonzeros: rows, or a part of one that ends with a block of features.
            int64_t p1;
            for (int64_t p0 = starts_[begin]; row < end; p0 = p1) {
                p1 = std::min(p0 + kBatch, starts_[end]);
                if (p1 < starts_[row + 1]) {
                    while (block_of(p1 - 1) == block_of(p1)) --p1;
                } else if (p1 < starts_[end]) {
                    int64_t whole = row + 1;
                    while (starts_[whole + 1] <= p1) ++whole;
                    p1 = starts_[whole];
                }
                for (int64_t p = p0; p < p1; p += kSlotGroup) {
                    uint64_t features[kSlotGroup];
                    const int64_t count = std::min(kSlotGroup, p1 - p);
                    for (int64_t i = 0; i < count; ++i)
                        features[i] = first_feature_ + static_cast<uint64_t>(columns_[p + i]);
                    place.slots.make((p - p0) / kSlotGroup, features, count);
                }
                for (int64_t p = p0; row < end && starts_[row] <= p1;) {
                    const int64_t last = std::min(starts_[row + 1], p1);
                    Segment piece = segment(p, last);
                    piece.by_position = true;
                    piece.first_slot = p - p0;
                    if (last > p) add(piece, place.slots, place, place.sums.as());
                    p = last;
                    if (starts_[row + 1] > p1) break;
                    finish(row, place.sums.as());
                    std::memset(place.sums.as(), 0, static_cast<size_t>(row_bytes));
                    ++row;
                }
            }
        });
    }

    const Csr& x_;
    const Law& law_;
    uint64_t first_feature_;
    const Tensor& out_;
    Indices starts_;
    Indices columns_;
    int64_t components_;  // padded
    bool is_double_;
    int64_t sum_bytes_;
    int64_t origin_;
    AccumulateFn accumulate_;
};

}  // namespace

bool check_csr(const char* function, const Csr& x) {
    const Indices starts(x.row_starts);
    const Indices columns(x.columns);
    for (int64_t row = 0; row <= x.rows; ++row) {
        if (starts[row] < (row == 0 ? 0 : starts[row - 1])) {
            refuse_value(function, "`x` must have row starts (indptr) that do not decrease, got ",
                         starts[row], " for row ", row);
        }
    }
    const int64_t stored = std::min(x.columns.shape[0], x.values.shape[0]);
    if (starts[x.rows] > stored) {
        refuse_value(function, "`x` must hold the ", starts[x.rows],
                     " elements that its row starts (indptr) promise, got ", stored);
    }
    std::atomic<bool> in_range = true;
    std::atomic<bool> increasing = true;
    const int64_t nonzeros = starts[x.rows] - starts[0];
    const int64_t grain = std::max<int64_t>(1, (1 << 16) * x.rows / (nonzeros + x.rows + 1));
    parallel_for(x.rows, grain, [&](int64_t begin, int64_t end) {
        bool in_range_here = true;
        bool increasing_here = true;
        kernels().check_rows[columns.wide()](x.columns.data, x.row_starts.data, begin, end,
                                             static_cast<uint64_t>(x.features), &in_range_here,
                                             &increasing_here);
        if (!in_range_here) in_range = false;
        if (!increasing_here) increasing = false;
    });
    if (!in_range) {
        for (int64_t i = starts[0];; ++i) {
            if (columns[i] < 0 || columns[i] >= x.features) {
                refuse_value(function, "`x` must have column indices from 0 to ", x.features - 1,
                             ", got ", columns[i]);
            }
        }
    }
    return increasing;
}

void project_csr(const Csr& x, const Law& law, uint64_t first_feature, const Tensor& out) {
    if (x.rows == 0) return;
    if (law.kind == Kind::kSrht) return project_srht(x, law, first_feature, out);
    Projection(x, law, first_feature, out).run();
}

}  // namespace slipstick::cpu::projection
