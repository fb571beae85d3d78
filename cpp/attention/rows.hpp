// What a row of scores needs beyond its operands: lambda, and where its statistics go.
#pragma once

#include <optional>

#include "attention/attention.hpp"
#include "attention/numbers.hpp"
#include "attention/scale.hpp"
#include "attention/view.hpp"
#include "attention/visibility.hpp"

namespace slipstick::cpu::attention {

template <class Acc>
class Rows {
public:
    Rows(const Options& options, const Visibility& visibility, const Stats* stats)
        : scale_(options.scale), visibility_(visibility) {
        if (scale_.law == Law::kGiven) given_.emplace(scale_.values);
        if (stats != nullptr) {
            lse_.emplace(stats->lse);
            entropy_.emplace(stats->entropy);
            max_logit_.emplace(stats->max_logit);
        }
    }

    bool has_stats() const { return lse_.has_value(); }

    // Below, b is the number of the sequence, and i counts from its first query.

    // lambda, rounded once to the type of the scores.
    Acc factor(int64_t b, int64_t h, int64_t i) const {
        if (given_) {
            const Sequence& own = visibility_.sequence(b);
            return static_cast<Acc>(slipstick::attention::float_at(
                given_->data, given_->dtype, given_->offset(own.batch, h, own.first_query + i)));
        }
        return static_cast<Acc>(attention::factor(scale_, h, visibility_.count(b, h, i)));
    }

    // Of m, l and a; `empty` where the row sees no key.
    void write_stats(int64_t b, int64_t h, int64_t i, bool empty, Acc maximum, Acc sum,
                     Acc moment) const {
        const auto stats = slipstick::attention::row_stats(empty, maximum, sum, moment);
        const Sequence& own = visibility_.sequence(b);
        const int64_t token = own.first_query + i;
        *lse_->template at<Acc>(own.batch, h, token) = stats.lse;
        *entropy_->template at<Acc>(own.batch, h, token) = stats.entropy;
        *max_logit_->template at<Acc>(own.batch, h, token) = stats.max_logit;
    }

private:
    const Scale& scale_;
    const Visibility& visibility_;
    std::optional<View<3>> given_;
    std::optional<View<3>> lse_;
    std::optional<View<3>> entropy_;
    std::optional<View<3>> max_logit_;
};

}  // namespace slipstick::cpu::attention
