#include "projection/probes.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <numeric>
#include <queue>
#include <vector>

#include "core/threads.hpp"
#include "projection/distance_kernels.hpp"

namespace slipstick::cpu::projection {
namespace {

// --- Which buckets ---

// Enumerates choices by a heap. The hashes are taken in the order of their first penalty. The
// children of a choice whose last changed hash (in that order) is `last`: its next alternative; its
// change handed to the hash after it, if it is the first alternative; and that hash changed too.
// Every choice has one parent, whose sum is not larger: sums run along the order of the hashes, so
// that this holds for the rounded ones too.
class ProbeSequence {
public:
    ProbeSequence(int64_t hashes, int64_t alternatives, int64_t probes)
        : hashes_(hashes),
          alternatives_(alternatives),
          probes_(probes),
          order_(static_cast<size_t>(hashes)) {}

    void run(const double* penalties, uint8_t* ranks) {
        std::iota(order_.begin(), order_.end(), int64_t{0});
        std::fill_n(ranks, hashes_, uint8_t{0});
        if (probes_ == 1) return;
        const auto first_penalty = [&](int64_t hash) {
            return penalties[hash * alternatives_ + 1];
        };
        std::stable_sort(order_.begin(), order_.end(),
                         [&](int64_t a, int64_t b) { return first_penalty(a) < first_penalty(b); });
        heap_.clear();
        count_ = 0;
        push({first_penalty(order_[0]), 0.0, 0, 0, 1, 0});
        for (int64_t probe = 1; probe < probes_; ++probe) {
            const Choice best = pop();
            uint8_t* const chosen = ranks + probe * hashes_;
            std::copy_n(ranks + best.parent * hashes_, hashes_, chosen);
            // The parent's last hash goes back to 0 where its change was handed on.
            if (best.is_shift) chosen[order_[static_cast<size_t>(best.last - 1)]] = 0;
            chosen[order_[static_cast<size_t>(best.last)]] = static_cast<uint8_t>(best.rank);
            const int64_t hash = order_[static_cast<size_t>(best.last)];
            if (best.rank + 1 < alternatives_) {
                push({best.before + penalties[hash * alternatives_ + best.rank + 1], best.before,
                      probe, best.last, best.rank + 1, 0});
            }
            if (best.last + 1 < hashes_) {
                const double next = first_penalty(order_[static_cast<size_t>(best.last + 1)]);
                if (best.rank == 1)
                    push({best.before + next, best.before, probe, best.last + 1, 1, 0, true});
                push({best.sum + next, best.sum, probe, best.last + 1, 1, 0});
            }
        }
    }

private:
    struct Choice {
        double sum;
        double before;   // the sum without the last changed hash
        int64_t parent;  // the probe it differs from
        int64_t last;    // position of the last changed hash in order_
        int64_t rank;    // the alternative taken there
        int64_t number;  // of insertion: what is first among equals
        bool is_shift = false;
    };
    static bool is_after(const Choice& a, const Choice& b) {
        return a.sum != b.sum ? a.sum > b.sum : a.number > b.number;
    }
    void push(Choice choice) {
        choice.number = count_++;
        heap_.push_back(choice);
        std::push_heap(heap_.begin(), heap_.end(), is_after);
    }
    Choice pop() {
        std::pop_heap(heap_.begin(), heap_.end(), is_after);
        const Choice best = heap_.back();
        heap_.pop_back();
        return best;
    }

    int64_t hashes_;
    int64_t alternatives_;
    int64_t probes_;
    std::vector<int64_t> order_;
    std::vector<Choice> heap_;
    int64_t count_ = 0;
};

// --- What lies there ---

struct Neighbour {
    double distance;
    uint32_t number;
    bool operator<(const Neighbour& other) const {
        return distance != other.distance ? distance < other.distance : number < other.number;
    }
};

}  // namespace

void probe_ranks(const ConstTensor& penalties, const Tensor& ranks) {
    const int64_t hashes = penalties.shape[1], alternatives = penalties.shape[2];
    const int64_t probes = ranks.shape[1];
    parallel_for(penalties.shape[0], 64, [&](int64_t begin, int64_t end) {
        ProbeSequence sequence(hashes, alternatives, probes);
        for (int64_t row = begin; row < end; ++row) {
            sequence.run(penalties.as<double>() + row * hashes * alternatives,
                         ranks.as<uint8_t>() + row * probes * hashes);
        }
    });
}

bool rank_candidates(const ConstTensor& vectors, const ConstTensor& queries, const Buckets& buckets,
                     Metric metric, int64_t k, double* distances, int64_t* indices) {
    const int64_t n = vectors.shape[0], length = vectors.shape[1];
    const int64_t lookups = buckets.tables * buckets.probes;
    std::atomic<bool> is_sound{true};
    parallel_for(queries.shape[0], 1, [&](int64_t first, int64_t last) {
        std::vector<uint32_t> candidates;
        std::vector<Neighbour> near;
        const DistanceKernels& kernels = active_distance_kernels();
        for (int64_t query = first; query < last; ++query) {
            candidates.clear();
            for (int64_t lookup = 0; lookup < lookups; ++lookup) {
                const uint32_t* rows = buckets.rows + lookup / buckets.probes * n;
                for (int64_t i = buckets.begin[query * lookups + lookup];
                     i < buckets.end[query * lookups + lookup]; ++i)
                    candidates.push_back(rows[i]);
            }
            std::sort(candidates.begin(), candidates.end());
            candidates.erase(std::unique(candidates.begin(), candidates.end()), candidates.end());
            if (!candidates.empty() && candidates.back() >= n) {
                is_sound = false;
                return;
            }
            const float* const x = queries.as<float>() + query * length;
            double own[2];
            kernels.products(x, x, length, own);
            near.clear();
            for (size_t i = 0; i < candidates.size(); ++i) {
                // Candidates lie anywhere: the lines of one that is four ahead are asked for now.
                const uint32_t ahead = candidates[std::min(i + 4, candidates.size() - 1)];
                const float* const later = vectors.as<float>() + int64_t{ahead} * length;
                for (int64_t line = 0; line < std::min<int64_t>(length, 256); line += 16)
                    __builtin_prefetch(later + line);
                const uint32_t number = candidates[i];
                const float* const y = vectors.as<float>() + int64_t{number} * length;
                double distance;
                if (metric == Metric::kEuclidean) {
                    distance = std::sqrt(kernels.squares(x, y, length));
                } else {
                    double sums[2];
                    kernels.products(x, y, length, sums);
                    const double norms = std::sqrt(own[1]) * std::sqrt(sums[1]);
                    // A vector of zeros has no direction: as far as an orthogonal one.
                    const double cosine = norms > 0 ? sums[0] / norms : 0.0;
                    distance = 1 - std::clamp(cosine, -1.0, 1.0);
                }
                near.push_back({distance, number});
            }
            const auto kept = std::min<int64_t>(k, static_cast<int64_t>(near.size()));
            std::partial_sort(near.begin(), near.begin() + kept, near.end());
            for (int64_t i = 0; i < k; ++i) {
                const auto at = static_cast<size_t>(i);
                distances[query * k + i] =
                    i < kept ? near[at].distance : std::numeric_limits<double>::infinity();
                indices[query * k + i] = i < kept ? int64_t{near[at].number} : -1;
            }
        }
    });
    return is_sound;
}

}  // namespace slipstick::cpu::projection
