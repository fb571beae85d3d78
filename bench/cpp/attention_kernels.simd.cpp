// The inner kernels of attention's forward pass, at one level: the products that make scores, the
// weights e^(s - m), and the products with the values. A step of keys against one panel, all in the
// first two caches, one thread.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "attention/products.hpp"
#include "attention/scores.hpp"
#include "attention_kernels.hpp"
#include "core/rounding.hpp"
#include "core/simd.hpp"
#if defined(__AVX512BF16__)
#include "attention/bfloat16.hpp"
#endif

namespace slipstick::cpu::SLIPSTICK_LEVEL {
namespace {

constexpr int kLanesOfPanel = kTileColumns<float>;

// Floating-point operations a second of one core that does nothing but the multiply-adds of a Mac,
// each `operations` a lane.
template <class Mac, int operations>
double peak() {
    static const double value = [] {
        constexpr int chains = 12;
        constexpr int rounds = 100'000;
        double best = 0;
        for (int attempt = 0; attempt < 20; ++attempt) {
            typename Mac::Left left{};
            Vec<typename Mac::Right> right{};
            benchmark::DoNotOptimize(left);
            benchmark::DoNotOptimize(right);
            const auto start = std::chrono::steady_clock::now();
            Vec<float> sums[chains] = {};
            for (int round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
                for (int i = 0; i < chains; ++i) sums[i] = Mac{}(sums[i], left, right);
            }
            Vec<float> total = {};
#pragma GCC unroll 12
            for (int i = 0; i < chains; ++i) total += sums[i];
            benchmark::DoNotOptimize(total);
            const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
            best = std::max(best,
                            operations * chains * double{rounds} * kLanes<float> / seconds.count());
        }
        return best;
    }();
    return value;
}
double float_peak() { return peak<FastMac<float>, 2>(); }

// A panel of queries and a tile of keys of `dim` columns, and the memory that they point to.
class Fixture {
public:
    Fixture(int64_t keys, int64_t dim)
        : query_(dim * kLanesOfPanel, 0.1f),
          key_(round_up(keys, kTileRows) * dim, 0.1f),
          value_(keys * round_up(dim, kTileRows), 0.1f),
          scores_(round_up(keys, kTileRows) * kLanesOfPanel, 0.5f),
          rows_(4 * kLanesOfPanel, 1.0f),
          out_(round_up(dim, kTileRows) * kLanesOfPanel),
          first_(kLanesOfPanel, 0),
          last_(kLanesOfPanel, keys),
          panel_{.query = query_.data(),
                 .factor = rows_.data(),
                 .maximum = rows_.data() + kLanesOfPanel,
                 .sum = rows_.data() + 2 * kLanesOfPanel,
                 .moment = rows_.data() + 3 * kLanesOfPanel,
                 .out = out_.data(),
                 .first = first_.data(),
                 .last = last_.data()},
          tile_{
              .key = key_.data(), .value = value_.data(), .start = 0, .keys = keys, .finite = true},
          step_{.dim = dim,
                .dim_v = dim,
                .begin = 0,
                .end = keys,
                .all_visible = true,
                .bias = nullptr,
                .softcap = 0,
                .scores = scores_.data()} {}

    const Panel<float>& panel() const { return panel_; }
    const KeyTile<float>& tile() const { return tile_; }
    const Step<float>& step() const { return step_; }

private:
    std::vector<float> query_;
    std::vector<float> key_;
    std::vector<float> value_;
    std::vector<float> scores_;
    std::vector<float> rows_;
    std::vector<float> out_;
    std::vector<int64_t> first_;
    std::vector<int64_t> last_;
    Panel<float> panel_;
    KeyTile<float> tile_;
    Step<float> step_;
};

// Runs `kernel` and returns how often, and how many seconds it took.
template <class Kernel>
std::pair<double, double> run(benchmark::State& state, Kernel kernel) {
    const auto start = std::chrono::steady_clock::now();
    for (auto _ : state) {
        kernel();
        benchmark::ClobberMemory();
    }
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    return {static_cast<double>(state.iterations()), seconds.count()};
}

// Counts the operations of a product of `keys` keys and `dim` columns.
template <class Kernel>
void run_product(benchmark::State& state, double limit, Kernel kernel) {
    const int64_t products = state.range(0) * state.range(1) * kLanesOfPanel;
    const auto [times, seconds] = run(state, kernel);
    const double rate = 2 * static_cast<double>(products) * times / seconds;
    state.counters["GFLOP/s"] = rate / 1e9;
    state.counters["% of peak"] = 100 * rate / limit;
}

void score_tile(benchmark::State& state) {
    const Fixture fixture(state.range(0), state.range(1));
    run_product(state, float_peak(),
                [&] { multiply_keys(fixture.panel(), fixture.tile(), fixture.step()); });
}

void value_tile(benchmark::State& state) {
    const Fixture fixture(state.range(0), state.range(1));
    run_product(state, float_peak(),
                [&] { multiply_values(fixture.panel(), fixture.tile(), fixture.step()); });
}

#if defined(__AVX512BF16__)
double pair_peak() { return peak<PairMac, 4>(); }

void score_tile_of_pairs(benchmark::State& state) {
    const Fixture fixture(state.range(0), state.range(1));
    run_product(state, pair_peak(),
                [&] { multiply_key_pairs(fixture.panel(), fixture.tile(), fixture.step()); });
}

void value_tile_of_pairs(benchmark::State& state) {
    const Fixture fixture(state.range(0), state.range(1));
    run_product(state, pair_peak(),
                [&] { multiply_value_pairs(fixture.panel(), fixture.tile(), fixture.step()); });
}
#endif

// Scores a second, and how many multiply-adds the core could have done in the time of one.
template <bool has_moment>
void weights(benchmark::State& state) {
    const Fixture fixture(state.range(0), 1);
    const auto factor = Lanes<float>::load(fixture.panel().factor);
    const auto [times, seconds] =
        run(state, [&] { weigh<float, has_moment>(fixture.panel(), fixture.step(), factor); });
    const double rate = static_cast<double>(state.range(0) * kLanesOfPanel) * times / seconds;
    state.counters["Gscores/s"] = rate / 1e9;
    state.counters["multiply-adds"] = float_peak() / 2 / rate;
}

}  // namespace

void register_attention_kernels(const char* level) {
    const auto name = [level](const char* kernel) { return std::string(kernel) + "/" + level; };
    const auto add_product = [&](const char* kernel, void (*function)(benchmark::State&)) {
        benchmark::RegisterBenchmark(name(kernel).c_str(), function)
            ->Args({240, 64})
            ->Args({120, 128});
    };
    add_product("score_tile", &score_tile);
    add_product("value_tile", &value_tile);
#if defined(__AVX512BF16__)
    add_product("score_tile_of_pairs", &score_tile_of_pairs);
    add_product("value_tile_of_pairs", &value_tile_of_pairs);
#endif
    benchmark::RegisterBenchmark(name("weights").c_str(), &weights<false>)->Arg(240);
    benchmark::RegisterBenchmark(name("weights_and_entropy").c_str(), &weights<true>)->Arg(240);
}

}  // namespace slipstick::cpu::SLIPSTICK_LEVEL
