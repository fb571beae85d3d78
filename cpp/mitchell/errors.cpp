#include "mitchell/errors.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>

#include "core/error.hpp"
#include "core/threads.hpp"
#include "mitchell/multiply.hpp"

namespace slipstick::cpu::mitchell {
namespace {

using slipstick::mitchell::dispatch_method;

constexpr const char* kFunction = "error_report";
constexpr int64_t kBlock = 512;               // pairs at a time: 4 KiB of products
constexpr int64_t kGrain = int64_t{1} << 22;  // pairs a chunk: 10 ms, against 0.3 for a histogram

Dtype storage(int bits) {
    return bits <= 8 ? Dtype::kUInt8 : bits <= 16 ? Dtype::kUInt16 : Dtype::kUInt32;
}

// x and y of n-bit operands are fields of m = n - 1 bits. They are kept in those of the next wider
// type, their low bits 0, where the constants of every method fit; what depends on m is adapted.
Parameters parameters_of_bits(int bits, Method method) {
    const int m = bits - 1;
    const int extra = static_cast<int>(item_size(storage(bits))) * 8 - bits;
    Parameters result{};
    dispatch_method(method.kind, [&]<class M>() {
        if constexpr (!slipstick::mitchell::kTakesIntegers<M>) {
            refuse_type(kFunction, "`method` must take integers, got ", M::kSpelling);
        }
        constexpr bool limited = M::limit(0).parameter != nullptr;
        if constexpr (limited) {
            const auto limit = M::limit(m);
            if (method.width > limit.highest) {
                refuse_value(kFunction, "`method` must have a `", limit.parameter, "` of at most ",
                             limit.highest, " for ", bits, "-bit operands, got ", M::kSpelling, "(",
                             limit.parameter, "=", method.width, ")");
            }
        }
        if (M::kKind == Kind::kMbm && method.width > 0) method.width += extra;
        result = parameters(kFunction, storage(bits), method);
        if (method.width == 0 && M::offset(0, 0, m) != 0)  // the operands' own width
            result.fraction = static_cast<uint64_t>(std::ldexp(M::offset(0, 0, m), 64));
        // Its low bits are set from the last one of the sum.
        if (M::kRule == slipstick::mitchell::Rule::kBitSumOr) result.fraction_bits = m;
    });
    return result;
}

// The highest product of 2 n bits.
double limit_of_products(int bits, bool is_signed) {
    return std::ldexp(1.0, 2 * bits - (is_signed ? 1 : 0)) - 1;
}

// Operands as the kernels take them.
struct Columns {
    std::vector<uint64_t> keys;
    std::vector<double> scales, values, weights;

    Columns(const Parameters& parameters, Kind kind, const uint32_t* operands,
            const int64_t* counts, int64_t count)
        : keys(static_cast<size_t>(count + kErrorLanes)),
          scales(keys.size(), 1.0),
          values(operands, operands + count) {
        active_mitchell_error_kernels().prepare[static_cast<int>(kind)](parameters, operands, count,
                                                                        keys.data(), scales.data());
        if (counts != nullptr) weights.assign(counts, counts + count);
    }
};

class Rows {
public:
    Rows(const Method& method, int bits, bool is_signed, const ErrorOperands& operands)
        : operands_(operands),
          method_(method),
          parameters_(parameters_of_bits(bits, method)),
          limit_(limit_of_products(bits, is_signed)),
          kernels_(active_mitchell_error_kernels()),
          a_(parameters_, method.kind, operands.a, nullptr, operands.count_a),
          b_(parameters_, method.kind, operands.b, operands.weight_b, operands.count_b) {}

    // Calls body(first, count, products) for the pairs of row `row` with columns begin ... end.
    template <class Body>
    void for_each_block(int64_t row, int64_t begin, int64_t end, Body body) const {
        double products[kBlock];
        const auto place = static_cast<size_t>(row);
        for (int64_t first = begin; first < end; first += kBlock) {
            const int64_t count = std::min(kBlock, end - first);
            kernels_.products[static_cast<int>(method_.kind)](
                parameters_, limit_, a_.keys[place], a_.scales[place], b_.keys.data() + first,
                b_.scales.data() + first, count, products);
            body(first, count, products);
        }
    }

    ErrorRow statistics(int64_t row, int64_t* histogram) const {
        if (!operands_.symmetric) return part(row, 0, operands_.count_b, 1, histogram);
        const ErrorRow diagonal = part(row, row, row + 1, 1, histogram);
        const ErrorRow rest = part(row, row + 1, operands_.count_b, 2, histogram);
        ErrorRow sum{};
        sum.relative = 2 * rest.relative + diagonal.relative;
        sum.magnitude = 2 * rest.magnitude + diagonal.magnitude;
        sum.square = 2 * rest.square + diagonal.square;
        sum.low = std::min(rest.low, diagonal.low);
        sum.high = std::max(rest.high, diagonal.high);
        sum.furthest = std::max(rest.furthest, diagonal.furthest);
        set_distance(sum, 2 * distance(rest) + distance(diagonal));
        sum.wrong = 2 * rest.wrong + diagonal.wrong;
        return sum;
    }

private:
    using Wide = unsigned __int128;

    static Wide distance(const ErrorRow& row) {
        return Wide{row.distance_high} << 64 | row.distance_low;
    }
    static void set_distance(ErrorRow& row, Wide value) {
        row.distance_low = static_cast<uint64_t>(value);
        row.distance_high = static_cast<uint64_t>(value >> 64);
    }

    ErrorRow part(int64_t row, int64_t begin, int64_t end, int64_t times,
                  int64_t* histogram) const {
        ErrorSums sums{};
        std::fill_n(sums.low, kErrorLanes, std::numeric_limits<double>::infinity());
        std::fill_n(sums.high, kErrorLanes, -std::numeric_limits<double>::infinity());
        const double a = operands_.a[row];
        const int64_t weight = times * (operands_.weight_a ? operands_.weight_a[row] : 1);
        const int64_t* weights = operands_.weight_b;
        Wide weighted_distance = 0;
        uint64_t weighted_wrong = 0;
        for_each_block(row, begin, end, [&](int64_t first, int64_t count, const double* products) {
            int32_t bins[kBlock];
            kernels_.accumulate(products, a, b_.values.data() + first,
                                weights ? b_.weights.data() + first : nullptr, count, sums, bins);
            if (weights == nullptr) {
                for (int64_t i = 0; i < count; ++i) histogram[bins[i]] += weight;
                return;
            }
            for (int64_t i = 0; i < count; ++i) {
                const auto times_b = static_cast<uint64_t>(weights[first + i]);
                const double error =
                    std::abs(products[i] - a * b_.values[static_cast<size_t>(first + i)]);
                histogram[bins[i]] += weight * weights[first + i];
                weighted_distance += Wide{static_cast<uint64_t>(error)} * times_b;
                weighted_wrong += error > 0 ? times_b : 0;
            }
        });
        ErrorRow result{};
        result.low = *std::min_element(sums.low, sums.low + kErrorLanes);
        result.high = *std::max_element(sums.high, sums.high + kErrorLanes);
        for (int lane = 0; lane < kErrorLanes; ++lane) {
            result.relative += sums.relative[lane];
            result.magnitude += sums.magnitude[lane];
            result.square += sums.square[lane];
            result.furthest = std::max(result.furthest, sums.furthest[lane]);
            if (weights == nullptr) {
                weighted_distance += static_cast<uint64_t>(sums.distance[lane]);
                weighted_wrong += static_cast<uint64_t>(sums.wrong[lane]);
            }
        }
        set_distance(result, weighted_distance);
        result.wrong = weighted_wrong;
        return result;
    }

    const ErrorOperands& operands_;
    const Method& method_;
    const Parameters parameters_;
    const double limit_;
    const ErrorKernels& kernels_;
    const Columns a_, b_;
};

int64_t rows_a_chunk(const ErrorOperands& operands) {
    return std::max<int64_t>(1, kGrain / std::max<int64_t>(1, operands.count_b));
}

// Takes over `other`, whose pairs come later.
void join(WorstPairs& worst, const WorstPairs& other, int64_t limit) {
    using Wide = unsigned __int128;
    const Wide mine = Wide{worst.distance} * other.exact;
    const Wide theirs = Wide{other.distance} * worst.exact;
    if (theirs < mine || other.count == 0) return;
    if (theirs > mine || worst.count == 0) {
        worst = other;
        return;
    }
    worst.count += other.count;
    const auto room = static_cast<size_t>(limit) - worst.a.size();
    const size_t taken = std::min(room, other.a.size());
    worst.a.insert(worst.a.end(), other.a.begin(), other.a.begin() + static_cast<int64_t>(taken));
    worst.b.insert(worst.b.end(), other.b.begin(), other.b.begin() + static_cast<int64_t>(taken));
}

}  // namespace

bool is_commutative(const Method& method) {
    if (method.table == nullptr) return true;
    const Table& table = *method.table;
    for (int64_t i = 0; i < table.side; ++i) {
        for (int64_t j = 0; j < i; ++j) {
            const auto here = static_cast<size_t>(i * table.side + j);
            const auto there = static_cast<size_t>(j * table.side + i);
            if (table.entries[here] != table.entries[there]) return false;
        }
    }
    return true;
}

void error_rows(const Method& method, int bits, bool is_signed, const ErrorOperands& operands,
                int64_t begin, int64_t end, ErrorRow* rows, int64_t* histogram) {
    const Rows source(method, bits, is_signed, operands);
    std::mutex merging;
    parallel_for(end - begin, rows_a_chunk(operands), [&](int64_t first, int64_t last) {
        std::vector<int64_t> counts(static_cast<size_t>(kErrorBins));
        for (int64_t i = first; i < last; ++i)
            rows[i] = source.statistics(begin + i, counts.data());
        const std::lock_guard lock(merging);  // integers: the order does not matter
        for (size_t bin = 0; bin < counts.size(); ++bin) histogram[bin] += counts[bin];
    });
}

WorstPairs worst_pairs(const Method& method, int bits, bool is_signed,
                       const ErrorOperands& operands, const int64_t* rows, int64_t count,
                       double largest, const uint8_t* multiplicity_a, const uint8_t* multiplicity_b,
                       int64_t limit) {
    const Rows source(method, bits, is_signed, operands);
    const int64_t grain = rows_a_chunk(operands);
    std::vector<WorstPairs> found(static_cast<size_t>((count + grain - 1) / grain));
    parallel_for(count, grain, [&](int64_t first, int64_t last) {
        WorstPairs& best = found[static_cast<size_t>(first / grain)];
        for (int64_t i = first; i < last; ++i) {
            const int64_t row = rows[i];
            const double a = operands.a[row];
            source.for_each_block(row, operands.symmetric ? row : 0, operands.count_b,
                                  [&](int64_t start, int64_t size, const double* products) {
                                      for (int64_t j = 0; j < size; ++j) {
                                          const int64_t column = start + j;
                                          const double exact = a * operands.b[column];
                                          const double error = std::abs(products[j] - exact);
                                          // Division rounds monotonically: only these can be the
                                          // exact largest.
                                          if (error / exact != largest) continue;
                                          WorstPairs pair;
                                          pair.distance = static_cast<uint64_t>(error);
                                          pair.exact = static_cast<uint64_t>(exact);
                                          pair.count = operands.symmetric && column != row ? 2 : 1;
                                          if (multiplicity_a) pair.count *= multiplicity_a[row];
                                          if (multiplicity_b) pair.count *= multiplicity_b[column];
                                          pair.a.push_back(operands.a[row]);
                                          pair.b.push_back(operands.b[column]);
                                          join(best, pair, limit);
                                      }
                                  });
        }
    });
    WorstPairs worst;
    for (const WorstPairs& part : found) join(worst, part, limit);
    return worst;
}

void products_of_bits(const Method& method, int bits, bool is_signed, const uint32_t* a,
                      const uint32_t* b, int64_t count, uint64_t* products) {
    using Work = unsigned __int128;
    const Parameters parameters = parameters_of_bits(bits, method);
    const Work limit = (Work{1} << (2 * bits - (is_signed ? 1 : 0))) - 1;
    dispatch_method(method.kind, [&]<class M>() {
        if constexpr (slipstick::mitchell::kTakesIntegers<M>) {
            parallel_for(count, int64_t{1} << 14, [&](int64_t first, int64_t last) {
                for (int64_t i = first; i < last; ++i) {
                    Work product = 0;
                    if (a[i] != 0 && b[i] != 0) {
                        if constexpr (M::kKind == Kind::kMitchell) {
                            product = slipstick::mitchell::multiply_integers(a[i], b[i],
                                                                             parameters.fraction);
                        } else {
                            product = slipstick::mitchell::multiply_magnitudes<M, Work>(a[i], b[i],
                                                                                        parameters);
                        }
                    }
                    products[i] = static_cast<uint64_t>(product < limit ? product : limit);
                }
            });
        }
    });
}

}  // namespace slipstick::cpu::mitchell
