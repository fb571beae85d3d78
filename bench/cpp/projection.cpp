// Projection of many rows (products dominate) and of one (generating the matrix dominates).
#include "projection/projection.hpp"

#include <benchmark/benchmark.h>

#include "bench.hpp"

namespace {

using namespace slipstick;
using bench::Buffer;

void project(benchmark::State& state, cpu::projection::Kind kind) {
    const int64_t rows = state.range(0), features = 10'000, components = 256;
    const Buffer x(Dtype::kFloat32, {rows, features});
    const Buffer out(cpu::projection::result_of_project(x, components, 0));
    for (auto _ : state) cpu::projection::project(x, {kind, 1}, 0, out);
    bench::count_products(state, rows * features * components);
}

}  // namespace

BENCHMARK_CAPTURE(project, rademacher, cpu::projection::Kind::kRademacher)
    ->Arg(1)
    ->Arg(1000)
    ->UseRealTime();
BENCHMARK_CAPTURE(project, gaussian, cpu::projection::Kind::kGaussian)
    ->Arg(1)
    ->Arg(1000)
    ->UseRealTime();
