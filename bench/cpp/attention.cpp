// Attention forward; FLOPs are 4 * heads * N * N * d, half of that if causal.
#include "attention/attention.hpp"

#include <benchmark/benchmark.h>

#include "bench.hpp"

namespace {

using namespace slipstick;
using bench::Buffer;

void forward(benchmark::State& state, Dtype dtype, bool causal) {
    const int64_t heads = 8, tokens = state.range(0), dim = state.range(1);
    const Buffer query(dtype, {1, heads, tokens, dim});
    const Buffer key(dtype, {1, heads, tokens, dim});
    const Buffer value(dtype, {1, heads, tokens, dim});
    const Buffer law(Dtype::kFloat64, {1, 2});  // some slope and intercept
    const cpu::attention::Inputs inputs{query, key, value};
    const cpu::attention::Options options{.scale = {cpu::attention::Law::kAffineLog, law},
                                          .causal = causal};
    const Buffer out(cpu::attention::result_of_attention(inputs, options));
    for (auto _ : state) cpu::attention::attention(inputs, options, out, nullptr);
    bench::count_products(state, 2 * heads * tokens * tokens * dim / (causal ? 2 : 1));
}

}  // namespace

BENCHMARK_CAPTURE(forward, float32, Dtype::kFloat32, false)
    ->ArgsProduct({{128, 1024}, {64, 128}})
    ->UseRealTime();
BENCHMARK_CAPTURE(forward, float32_causal, Dtype::kFloat32, true)
    ->ArgsProduct({{128, 1024}, {64}})
    ->UseRealTime();
BENCHMARK_CAPTURE(forward, bfloat16, Dtype::kBFloat16, false)->Args({1024, 64})->UseRealTime();
