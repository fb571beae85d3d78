// Attention forward, and its inner kernels at every level of this machine; FLOPs are 4 * heads * N
// * N * d, half of that if causal.
#include "attention/attention.hpp"

#include <benchmark/benchmark.h>

#include "attention_kernels.hpp"
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

const bool kKernelsRegistered = [] {
    const auto add = [](cpu::Level level, void (*register_kernels)(const char*)) {
        if (level <= cpu::best_level()) register_kernels(cpu::name(level));
    };
#define SLIPSTICK_ADD(level) add(cpu::Level::level, &cpu::level::register_attention_kernels);
    SLIPSTICK_FOR_EACH_LEVEL(SLIPSTICK_ADD)
#undef SLIPSTICK_ADD
    return true;
}();

}  // namespace

BENCHMARK_CAPTURE(forward, float32, Dtype::kFloat32, false)
    ->ArgsProduct({{128, 1024}, {64, 128}})
    ->UseRealTime();
BENCHMARK_CAPTURE(forward, float32_causal, Dtype::kFloat32, true)
    ->ArgsProduct({{128, 1024}, {64}})
    ->UseRealTime();
BENCHMARK_CAPTURE(forward, bfloat16, Dtype::kBFloat16, false)->Args({1024, 64})->UseRealTime();
