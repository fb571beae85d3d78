#include "projection/hamming.hpp"

#include <algorithm>
#include <bit>

#include "core/broadcast.hpp"
#include "core/rounding.hpp"
#include "core/threads.hpp"
#include "projection/hamming_kernels.hpp"

namespace slipstick::cpu::projection {
namespace {

// A code as (distance, index), in one number whose order is theirs.
constexpr uint64_t kIndexMask = (uint64_t{1} << kCodeIndexBits) - 1;
uint64_t key_of(int32_t distance, int64_t index) {
    return static_cast<uint64_t>(distance) << kCodeIndexBits | static_cast<uint64_t>(index);
}
int32_t distance_of(uint64_t key) { return static_cast<int32_t>(key >> kCodeIndexBits); }
int64_t index_of(uint64_t key) { return static_cast<int64_t>(key & kIndexMask); }

// The rows of a tensor of codes as elements of one without the last axis.
ConstTensor rows_of(const ConstTensor& codes) {
    return {codes.data, codes.dtype, codes.rank - 1, codes.shape, codes.strides};
}

// Rows of codes whose bytes lie side by side: as they are, or a copy.
class Packed {
public:
    // Room for the copy of up to `rows` rows; none is needed where the bytes already do.
    Packed(int64_t byte_stride, int64_t bytes, int64_t rows)
        : byte_stride_(byte_stride),
          bytes_(bytes),
          copy_(byte_stride == 1 || bytes == 1 ? 0 : rows * bytes) {}

    // Afterwards row i is at data() + i * stride().
    void load(const uint8_t* rows, int64_t stride, int64_t count) {
        data_ = rows;
        stride_ = stride;
        if (byte_stride_ == 1 || bytes_ == 1) return;
        auto* target = copy_.as<uint8_t>();
        data_ = target;
        stride_ = stride == 0 ? 0 : bytes_;
        for (int64_t i = 0; i < (stride == 0 ? 1 : count); ++i) {
            for (int64_t byte = 0; byte < bytes_; ++byte)
                target[i * bytes_ + byte] = rows[i * stride + byte * byte_stride_];
        }
    }
    const uint8_t* data() const { return data_; }
    int64_t stride() const { return stride_; }

private:
    int64_t byte_stride_;
    int64_t bytes_;
    Scratch copy_;
    const uint8_t* data_ = nullptr;
    int64_t stride_ = 0;
};

// --- The nearest of a stream of codes ---

// Collects candidates of increasing index, and keeps the k nearest of them: when twice as many have
// come together, the further half goes, and from then on `limit` is the largest distance that may
// still be among the k.
class Nearest {
public:
    static int64_t capacity(int64_t k, int64_t n_codes) {
        return std::min(std::max<int64_t>(2 * k, 32), std::max(n_codes, k));
    }
    Nearest() = default;
    Nearest(uint64_t* keys, int64_t k, int64_t capacity)
        : keys_(keys), k_(k), capacity_(capacity) {}

    int32_t limit() const { return limit_; }
    void add(int32_t distance, int64_t index) {
        if (distance > limit_) return;
        keys_[size_++] = key_of(distance, index);
        if (size_ == capacity_ && size_ > k_) shrink();
    }
    // The keys in order, at most k.
    int64_t finish() {
        if (size_ > k_) shrink();
        std::sort(keys_, keys_ + size_);
        return size_;
    }
    const uint64_t* keys() const { return keys_; }

private:
    void shrink() {
        std::nth_element(keys_, keys_ + k_ - 1, keys_ + size_);
        size_ = k_;
        limit_ = distance_of(keys_[k_ - 1]) - 1;  // of equals the earlier stay
    }

    uint64_t* keys_ = nullptr;
    int64_t k_ = 0;
    int64_t capacity_ = 0;
    int64_t size_ = 0;
    int32_t limit_ = INT32_MAX;
};

// --- Scanning ---

// table[n]: how many bits nibble n is away from `low`, and 16 times that from `high`.
void fill_table(int low, int high, uint8_t* table) {
    for (unsigned n = 0; n < 16; ++n) {
        const int first = std::popcount(n ^ static_cast<unsigned>(low));
        const int second = std::popcount(n ^ static_cast<unsigned>(high));
        table[n] = static_cast<uint8_t>(first + 16 * second);
    }
}

struct Problem {
    const uint8_t* queries;  // (n_queries, bytes), contiguous
    int64_t n_queries;
    const ConstTensor& codes;
    int64_t bytes;
    int64_t k;

    int64_t n_codes() const { return codes.shape[0]; }
    int64_t nibbles() const { return round_up(2 * bytes, kNibbleGroup); }
};

// Offers the codes [begin, end) to the collectors of queries [first, first + count), word by word.
void scan_words(const Problem& problem, int64_t first, int64_t count, int64_t begin, int64_t end,
                Nearest* nearest) {
    const HammingKernels& kernels = active_projection_hamming_kernels();
    Packed packed(problem.codes.strides[1], problem.bytes, kScanCodes);
    for (int64_t code = begin; code < end; code += kScanCodes) {
        const int64_t codes = std::min(kScanCodes, end - code);
        packed.load(problem.codes.as<uint8_t>() + code * problem.codes.strides[0],
                    problem.codes.strides[0], codes);
        for (int64_t query = 0; query < count; ++query) {
            int32_t distances[kScanCodes];
            kernels.distances(problem.queries + (first + query) * problem.bytes, 0, packed.data(),
                              packed.stride(), problem.bytes, codes, distances, 1);
            for (int64_t i = 0; i < codes; ++i) nearest[query].add(distances[i], code + i);
        }
    }
}

// The same by tables of nibbles, two queries at once.
void scan_nibbles(const Problem& problem, int64_t first, int64_t count, int64_t begin, int64_t end,
                  Nearest* nearest) {
    const HammingKernels& kernels = active_projection_hamming_kernels();
    const int64_t bytes = problem.bytes, positions = problem.nibbles();
    const int64_t groups = positions / kNibbleGroup, pairs = ceil_div(count, 2);
    const Scratch tables(pairs * positions * 16);
    for (int64_t pair = 0; pair < pairs; ++pair) {
        // The last query of an odd number is its own partner.
        const uint8_t* low = problem.queries + (first + 2 * pair) * bytes;
        const uint8_t* high = 2 * pair + 1 < count ? low + bytes : low;
        uint8_t* table = tables.as<uint8_t>() + pair * positions * 16;
        for (int64_t p = 0; p < positions; ++p, table += 16) {
            if (p < 2 * bytes) {
                const int shift = p % 2 == 0 ? 0 : 4;
                fill_table(low[p / 2] >> shift & 15, high[p / 2] >> shift & 15, table);
            } else {
                fill_table(0, 0, table);
            }
        }
    }
    const Scratch nibbles(positions * kScanCodes);
    std::fill_n(nibbles.as<uint8_t>(), positions * kScanCodes, uint8_t{0});
    const bool is_wide = bytes > kByteCodeBytes;
    Packed packed(problem.codes.strides[1], bytes, kScanCodes);
    for (int64_t code = begin; code < end; code += kScanCodes) {
        const int64_t codes = std::min(kScanCodes, end - code);
        packed.load(problem.codes.as<uint8_t>() + code * problem.codes.strides[0],
                    problem.codes.strides[0], codes);
        kernels.transpose(packed.data(), packed.stride(), bytes, codes, nibbles.as<uint8_t>());
        for (int64_t pair = 0; pair < pairs; ++pair) {
            const int64_t queries = std::min<int64_t>(2, count - 2 * pair);
            Nearest* const collectors = nearest + 2 * pair;
            const int32_t limits[2] = {collectors[0].limit(), collectors[queries - 1].limit()};
            const uint8_t* table = tables.as<uint8_t>() + pair * positions * 16;
            uint8_t narrow[2 * kScanCodes];
            uint16_t wide[2 * kScanCodes];
            Hits hits;
            if (!(is_wide
                      ? kernels.scan_wide(nibbles.as<uint8_t>(), groups, table, limits, wide, hits)
                      : kernels.scan(nibbles.as<uint8_t>(), groups, table, limits, narrow, hits)))
                continue;
            for (int64_t query = 0; query < queries; ++query) {
                for (int64_t word = 0; word < kScanCodes / 64; ++word) {
                    uint64_t rest = hits.bits[query][word];
                    for (; rest != 0; rest &= rest - 1) {
                        const int64_t i = word * 64 + std::countr_zero(rest);
                        if (i >= codes) break;
                        int32_t distance =
                            is_wide ? wide[query * kScanCodes + i] : narrow[query * kScanCodes + i];
                        if (distance == 0 && bytes == kByteCodeBytes) {  // or 256
                            kernels.distances(problem.queries + (first + 2 * pair + query) * bytes,
                                              0, packed.data() + i * packed.stride(), 0, bytes, 1,
                                              &distance, 1);
                        }
                        collectors[query].add(distance, code + i);
                    }
                }
            }
        }
    }
}

// Turning the codes round costs as much as comparing them word by word with two queries.
constexpr int64_t kFewQueries = 3;
constexpr int64_t kQueriesTogether = 32;  // fewer are not split: each task turns its codes round
constexpr int64_t kQueriesAtOnce = 512;   // tables of 256 KiB at 256 bits
constexpr int64_t kCollectorBytes = 64 << 20;  // of one task
constexpr int64_t kPairsPerTask = 1 << 16;     // 20 to 100 us
constexpr int64_t kTasksPerThread = 4;

}  // namespace

void hamming_distance(const ConstTensor& a, const ConstTensor& b, const Tensor& out) {
    const int64_t bytes = a.shape[a.rank - 1];
    const int64_t a_byte = a.strides[a.rank - 1], b_byte = b.strides[b.rank - 1];
    const ConstTensor a_rows = rows_of(a), b_rows = rows_of(b);
    constexpr int64_t batch = 256;
    for_each_strip(out, {&a_rows, &b_rows}, std::max<int64_t>(batch, (1 << 20) / bytes),
                   [&](const Strip& strip) {
                       Packed a_packed(a_byte, bytes, batch), b_packed(b_byte, bytes, batch);
                       for (int64_t first = 0; first < strip.count; first += batch) {
                           const int64_t count = std::min(batch, strip.count - first);
                           const auto row = [&](size_t operand) {
                               return static_cast<const uint8_t*>(strip.data[operand]) +
                                      first * strip.stride[operand];
                           };
                           a_packed.load(row(1), strip.stride[1], count);
                           b_packed.load(row(2), strip.stride[2], count);
                           active_projection_hamming_kernels().distances(
                               a_packed.data(), a_packed.stride(), b_packed.data(),
                               b_packed.stride(), bytes, count,
                               static_cast<int32_t*>(strip.target()) + first * strip.stride[0],
                               strip.stride[0]);
                       }
                   });
}

void hamming_topk(const ConstTensor& queries, const ConstTensor& codes, int64_t k,
                  int32_t* distances, int64_t* indices) {
    const int64_t bytes = codes.shape[1], n_codes = codes.shape[0];
    const int64_t n_queries = queries.size() / bytes;
    if (n_queries == 0) return;

    const Scratch query_bytes(n_queries * bytes);
    {
        int64_t strides[kMaxRank];
        int64_t step = 1;
        for (int axis = queries.rank - 1; axis >= 0; --axis) {
            strides[axis] = step;
            step *= queries.shape[axis];
        }
        const Tensor copy{{query_bytes.as(), Dtype::kUInt8, queries.rank, queries.shape, strides}};
        for_each_strip(copy, {&queries}, 1 << 20, [](const Strip& strip) {
            for (int64_t i = 0; i < strip.count; ++i) {
                static_cast<uint8_t*>(strip.target())[i * strip.stride[0]] =
                    static_cast<const uint8_t*>(strip.data[1])[i * strip.stride[1]];
            }
        });
    }
    const Problem problem{query_bytes.as<uint8_t>(), n_queries, codes, bytes, k};

    // Tasks: blocks of queries; ranges of codes too, where the queries are few.
    const int64_t tasks = num_threads() == 1 ? 1 : kTasksPerThread * num_threads();
    const int64_t fitting = kCollectorBytes / 8 / Nearest::capacity(k, n_codes);
    const int64_t share = std::max(round_up(ceil_div(n_queries, num_threads()), 2),
                                   std::min(n_queries, kQueriesTogether));
    const int64_t block =
        std::clamp<int64_t>(share, 1, std::max<int64_t>(1, std::min(kQueriesAtOnce, fitting)));
    const int64_t blocks = ceil_div(n_queries, block);
    // A range collects k candidates of its own: worth it for many more codes than that.
    const int64_t shortest =
        std::max({16 * k, ceil_div(kPairsPerTask, std::min(block, n_queries)), 4 * kScanCodes});
    const int64_t ranges =
        std::clamp<int64_t>(ceil_div(tasks, blocks), 1, std::max<int64_t>(1, n_codes / shortest));
    const int64_t length = round_up(ceil_div(n_codes, ranges), kScanCodes);

    const Scratch found(n_queries * ranges * k * 8);
    const Scratch counts(n_queries * ranges * 8);
    parallel_for(blocks * ranges, 1, [&](int64_t begin, int64_t end) {
        for (int64_t task = begin; task < end; ++task) {
            const int64_t range = task / blocks, first = task % blocks * block;
            const int64_t count = std::min(block, n_queries - first);
            const int64_t code = std::min(range * length, n_codes);
            const int64_t last = std::min(code + length, n_codes);
            const int64_t capacity = Nearest::capacity(k, last - code);
            const Scratch keys(count * capacity * 8);
            const Scratch collectors(count * static_cast<int64_t>(sizeof(Nearest)));
            auto* nearest = collectors.as<Nearest>();
            for (int64_t query = 0; query < count; ++query)
                new (nearest + query) Nearest(keys.as<uint64_t>() + query * capacity, k, capacity);
            if (count < kFewQueries || bytes > kWideCodeBytes) {
                scan_words(problem, first, count, code, last, nearest);
            } else {
                scan_nibbles(problem, first, count, code, last, nearest);
            }
            for (int64_t query = 0; query < count; ++query) {
                const int64_t place = (first + query) * ranges + range;
                const int64_t size = nearest[query].finish();
                counts.as<int64_t>()[place] = size;
                std::copy_n(nearest[query].keys(), size, found.as<uint64_t>() + place * k);
            }
        }
    });
    parallel_for(n_queries, std::max<int64_t>(1, 20'000 / (k * ranges)),
                 [&](int64_t begin, int64_t end) {
                     for (int64_t query = begin; query < end; ++query) {
                         uint64_t* keys = found.as<uint64_t>() + query * ranges * k;
                         int64_t size = counts.as<int64_t>()[query * ranges];
                         for (int64_t range = 1; range < ranges; ++range) {
                             const int64_t more = counts.as<int64_t>()[query * ranges + range];
                             std::copy_n(keys + range * k, more, keys + size);
                             size += more;
                         }
                         if (ranges > 1) std::partial_sort(keys, keys + k, keys + size);
                         for (int64_t i = 0; i < k; ++i) {
                             distances[query * k + i] = distance_of(keys[i]);
                             indices[query * k + i] = index_of(keys[i]);
                         }
                     }
                 });
}

}  // namespace slipstick::cpu::projection
