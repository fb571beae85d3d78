// Mitchell's kernels, elementwise and in matrix products.
#include "mitchell/mitchell.hpp"

#include <benchmark/benchmark.h>

#include "bench.hpp"

namespace {

using namespace slipstick;
using bench::Buffer;

void multiply(benchmark::State& state, Dtype dtype) {
    const int64_t n = state.range(0);
    const Buffer a(dtype, {n}), b(dtype, {n}), out(cpu::mitchell::result_of_multiply(a, b));
    for (auto _ : state) cpu::mitchell::multiply(a, b, {0.0}, out);
    state.SetBytesProcessed(state.iterations() * n * (2 * item_size(dtype) + item_size(out.dtype)));
}

void matmul(benchmark::State& state, Dtype dtype) {
    const int64_t n = state.range(0);
    const Buffer a(dtype, {n, n}), b(dtype, {n, n});
    const Buffer out(cpu::mitchell::result_of_matmul(a, b, {0.0}));
    for (auto _ : state) cpu::mitchell::matmul(a, b, {0.0}, 1.0, out);
    bench::count_products(state, n * n * n);
}

}  // namespace

BENCHMARK_CAPTURE(multiply, float32, Dtype::kFloat32)->Arg(1 << 12)->Arg(1 << 24)->UseRealTime();
BENCHMARK_CAPTURE(multiply, bfloat16, Dtype::kBFloat16)->Arg(1 << 12)->Arg(1 << 24)->UseRealTime();
BENCHMARK_CAPTURE(multiply, int8, Dtype::kInt8)->Arg(1 << 12)->Arg(1 << 24)->UseRealTime();
BENCHMARK_CAPTURE(matmul, float32, Dtype::kFloat32)->Arg(128)->Arg(1024)->UseRealTime();
BENCHMARK_CAPTURE(matmul, bfloat16, Dtype::kBFloat16)->Arg(1024)->UseRealTime();
BENCHMARK_CAPTURE(matmul, uint8, Dtype::kUInt8)->Arg(256)->UseRealTime();
