// Packed batches: sequences of any lengths, one after another in one axis of tokens.
#include <algorithm>

#include "attention/attention.hpp"
#include "attention/forward.hpp"
#include "attention/packed.hpp"
#include "attention/visibility.hpp"

namespace slipstick::cpu::attention {
namespace {

// The longest sequence's.
Shape shape_of(const Inputs& inputs, const std::vector<Sequence>& sequences) {
    Shape shape = slipstick::attention::packed_shape_of(inputs);
    shape.queries = 0;
    shape.keys = 0;
    for (const Sequence& sequence : sequences) {
        shape.queries = std::max(shape.queries, sequence.queries);
        shape.keys = std::max(shape.keys, sequence.keys);
    }
    return shape;
}

}  // namespace

std::vector<Sequence> packed_sequences(const Inputs& inputs, const ConstTensor& bounds_q,
                                       const ConstTensor& bounds_k) {
    const slipstick::attention::Packing packing =
        slipstick::attention::packing_of(inputs, {bounds_q, bounds_k});
    const auto& [count, queries, keys] = packing;
    std::vector<Sequence> sequences;
    for (size_t s = 0; s + 1 < queries.size(); ++s) {
        sequences.push_back(
            {0, queries[s], keys[s], queries[s + 1] - queries[s], keys[s + 1] - keys[s]});
    }
    return sequences;
}

ResultSpec result_of_attention_varlen(const Inputs& inputs, const std::vector<Sequence>& sequences,
                                      const Options& options) {
    Shape shape = shape_of(inputs, sequences);
    shape.queries = inputs.query.shape[0];
    const bool one_each = std::all_of(sequences.begin(), sequences.end(),
                                      [](const Sequence& own) { return own.queries == 1; });
    return slipstick::attention::result_of_packed(
        inputs, shape, static_cast<int64_t>(sequences.size()), one_each, options);
}

void attention_varlen(const Inputs& inputs, const std::vector<Sequence>& sequences,
                      const Options& options, const Tensor& out, const Stats* stats) {
    if (out.size() == 0 && stats == nullptr) return;
    using slipstick::attention::HeadsFirst;
    const Shape shape = shape_of(inputs, sequences);
    const bool by_sequence =
        options.n_keys != nullptr && slipstick::attention::is_by_sequence(
                                         *options.n_keys, static_cast<int64_t>(sequences.size()));
    const HeadsFirst query(inputs.query);
    const HeadsFirst key(inputs.key);
    const HeadsFirst value(inputs.value);
    attend({query, key, value}, shape, Visibility(shape, sequences, by_sequence, options), options,
           HeadsFirst(out), stats);
}

}  // namespace slipstick::cpu::attention
