// Attention over several disjoint sets of keys, from what it gave for each:
//   m = max L_p     w_p = e^(L_p - m) / Z     Z = sum e^(L_p - m)     L = m + ln Z
//   o = sum w_p o_p          H = sum w_p (H_p - ln w_p)          -ln w_p = ln Z + (m - L_p)
// No term of H is negative. A part without keys has L_p = -inf and is left out by selection: its
// weight never meets a number.
#include <algorithm>
#include <cmath>
#include <limits>

#include "attention/attention.hpp"
#include "attention/kernels.hpp"
#include "attention/view.hpp"
#include "core/threads.hpp"

namespace slipstick::cpu::attention {
namespace {

using slipstick::attention::View;

constexpr int64_t kGrain = 1 << 16;  // numbers a thread: about 50 us
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Of one row: its parts' shares, and the statistics of the whole.
struct Share {
    double weight;
    bool used;  // the part has keys
};

struct Total {
    double lse;
    double entropy;
    double max_logit;
};

class Merge {
public:
    Merge(const std::vector<Part>& parts, const Tensor& out, const Stats& stats)
        : out_(out), lse_(stats.lse), entropy_(stats.entropy), max_logit_(stats.max_logit) {
        for (const Part& part : parts) {
            parts_.push_back({View<4>(part.out), View<3>(part.lse), View<3>(part.entropy),
                              View<3>(part.max_logit)});
        }
    }

    template <class T>
    void run() const {
        const auto& kernels = active_attention_kernels().of<T>().softmax;
        const int64_t rows = out_.shape[0] * out_.shape[1] * out_.shape[2];
        const int64_t columns = out_.shape[3];
        const int64_t length = (columns + kernels.lanes - 1) / kernels.lanes * kernels.lanes;
        const auto numbers = static_cast<double>(parts_.size() + 1) *
                             (static_cast<double>(columns) + 32);  // the weights: some logarithms
        const int64_t grain = std::max<int64_t>(1, static_cast<int64_t>(kGrain / numbers));
        parallel_for(rows, grain, [&](int64_t begin, int64_t end) {
            using Acc = AccOf<T>;
            const Scratch scratch(2 * length * static_cast<int64_t>(sizeof(Acc)));
            Acc* const sum = scratch.as<Acc>();
            Acc* const row = sum + length;
            std::vector<Share> shares(parts_.size());
            for (int64_t at = begin; at < end; ++at) {
                const int64_t i = at % out_.shape[2];
                const int64_t h = at / out_.shape[2] % out_.shape[1];
                const int64_t b = at / out_.shape[2] / out_.shape[1];
                const Total total = weigh<Acc>(b, h, i, shares);
                *lse_.at<Acc>(b, h, i) = static_cast<Acc>(total.lse);
                *entropy_.at<Acc>(b, h, i) = static_cast<Acc>(total.entropy);
                *max_logit_.at<Acc>(b, h, i) = static_cast<Acc>(total.max_logit);
                std::fill_n(sum, length, Acc{0});
                for (size_t p = 0; p < parts_.size(); ++p) {
                    if (!shares[p].used) continue;
                    const View<4>& out = parts_[p].out;
                    kernels.read(out.address(b, h, i, int64_t{0}), out.strides[3], columns, row);
                    const auto weight = static_cast<Acc>(shares[p].weight);
                    for (int64_t c = 0; c < columns; ++c) sum[c] += weight * row[c];
                }
                kernels.write(sum, out_.address(b, h, i, int64_t{0}), out_.strides[3], columns);
            }
        });
    }

private:
    struct PartView {
        View<4> out;
        View<3> lse;
        View<3> entropy;
        View<3> max_logit;
    };

    // In float64, whatever the statistics are: some logarithms a row.
    template <class Acc>
    Total weigh(int64_t b, int64_t h, int64_t i, std::vector<Share>& shares) const {
        double largest = -kInfinity;    // of the log-sum-exps; NaN if one is
        double max_logit = -kInfinity;  // +inf before NaN, as in attention
        for (size_t p = 0; p < parts_.size(); ++p) {
            const double lse = *parts_[p].lse.at<Acc>(b, h, i);
            const double top = *parts_[p].max_logit.at<Acc>(b, h, i);
            shares[p] = {lse, lse != -kInfinity};
            if (!shares[p].used) continue;
            if (std::isnan(lse) || lse > largest) largest = lse;
            const bool higher = std::isnan(top) || top > max_logit;
            if (top == kInfinity || (higher && max_logit != kInfinity)) max_logit = top;
        }
        if (largest == -kInfinity) return {-kInfinity, 0.0, -kInfinity};
        double sum = 0;
        for (const Share& share : shares)
            if (share.used) sum += std::exp(share.weight - largest);
        const double log_sum = std::log(sum);
        double entropy = 0;
        for (size_t p = 0; p < parts_.size(); ++p) {
            if (!shares[p].used) continue;
            const double below = shares[p].weight - largest;
            const double weight = std::exp(below) / sum;
            shares[p].weight = weight;
            // 0 ln 0 = 0: the weight is 0 before `below` could be -inf.
            entropy += weight * (*parts_[p].entropy.at<Acc>(b, h, i) + (log_sum - below));
        }
        return {largest + log_sum, entropy, max_logit};
    }

    std::vector<PartView> parts_;
    View<4> out_;
    View<3> lse_;
    View<3> entropy_;
    View<3> max_logit_;
};

}  // namespace

void merge(const std::vector<Part>& parts, const Tensor& out, const Stats& stats) {
    if (stats.lse.size() == 0) return;
    dispatch<float, double, Float16, BFloat16>(
        out.dtype, [&]<class T>() { Merge(parts, out, stats).run<T>(); });
}

}  // namespace slipstick::cpu::attention
