// Mitchell's kernels. The tiles and the elementwise kernels alone, on one thread and in the first
// two caches, for every level of the machine; then the functions as they are called.
#include "mitchell/mitchell.hpp"

#include <benchmark/benchmark.h>

#include <array>
#include <string>

#include "bench.hpp"
#include "core/isa.hpp"
#include "mitchell/kernels.hpp"
#include "mitchell/operands.hpp"
#include "mitchell/plan.hpp"

namespace {

using namespace slipstick;
using bench::Buffer;
using cpu::mitchell::is_float;
using cpu::mitchell::Kind;
using cpu::mitchell::Path;

// --- Kernels of a level ---

// A block of 8 x 4 tiles of 256 products each, packed beforehand.
void tile(benchmark::State& state, cpu::Level level, Dtype dtype, Path path) {
    cpu::set_level(cpu::name(level));
    // The operands' fields: 1.0 to 2.0, or 1 to 100.
    const bool is_integer = !is_float(dtype);
    const uint64_t one = dtype == Dtype::kBFloat16 ? 0x3f80 : 0x3f800000;
    const cpu::mitchell::Magnitudes magnitudes{is_integer ? 1 : one, is_integer ? 100 : one, true};
    const cpu::mitchell::Plan plan =
        path == Path::kExact
            ? cpu::mitchell::make_exact_plan(dtype)
            : cpu::mitchell::make_plan(dtype, {}, magnitudes, magnitudes, cpu::kDepthBlock, path);
    const cpu::MatmulKernel& kernel = plan.path->kernel;
    const int64_t depth = cpu::kDepthBlock;
    const int64_t rows = 8 * kernel.tile_rows;
    const int64_t columns = 4 * kernel.tile_columns;
    const Buffer a(dtype, {rows, depth}), b(dtype, {depth, columns});
    const Buffer left(Dtype::kUInt8, {rows * depth * kernel.left_bytes});
    const Buffer right(Dtype::kUInt8, {columns * depth * kernel.right_bytes});
    const Buffer acc(Dtype::kUInt8, {rows * columns * kernel.acc_bytes});
    plan.path->pack_left(plan.left, a.data, depth, 1, rows, depth, left.mutable_data());
    plan.path->pack_right(plan.right, b.data, 1, columns, columns, depth, right.mutable_data());
    for (auto _ : state) {
        kernel.multiply(&plan.mac, rows, depth, columns, left.data, right.data, acc.mutable_data(),
                        columns, false);
        benchmark::ClobberMemory();
    }
    bench::count_products(state, rows * depth * columns);
    cpu::set_level(cpu::name(cpu::best_level()));
}

// 64 lines of 2048 columns by a table of 8-bit products.
void lookup(benchmark::State& state, cpu::Level level) {
    cpu::set_level(cpu::name(level));
    constexpr int64_t depth = 64, columns = 2048;
    const Buffer table(Dtype::kUInt16, {256, 256});
    const Buffer left(Dtype::kUInt8, {depth, cpu::mitchell::kLookupRows});
    const Buffer right(Dtype::kUInt8, {depth, columns});
    const Buffer scratch(Dtype::kUInt32, {2 * 256 * cpu::mitchell::kLookupRows});
    const Buffer acc(Dtype::kUInt32, {columns, cpu::mitchell::kLookupRows});
    const cpu::mitchell::LookupFn fn = cpu::active_mitchell_lookup_kernels().of_unsigned;
    for (auto _ : state) {
        fn(static_cast<const uint16_t*>(table.data), static_cast<const uint8_t*>(left.data),
           static_cast<const uint8_t*>(right.data), columns, depth, columns,
           static_cast<uint32_t*>(scratch.mutable_data()),
           static_cast<uint32_t*>(acc.mutable_data()));
        benchmark::ClobberMemory();
    }
    bench::count_products(state, depth * columns * cpu::mitchell::kLookupRows);
    cpu::set_level(cpu::name(cpu::best_level()));
}

// 2^12 elements, a strip.
void elements(benchmark::State& state, cpu::Level level, Dtype dtype) {
    cpu::set_level(cpu::name(level));
    constexpr int64_t n = 1 << 12;
    const Buffer a(dtype, {n}), b(dtype, {n});
    const Buffer out(cpu::mitchell::result_of_multiply(a, b, {}));
    const cpu::mitchell::ElementwiseFn multiply =
        is_float(dtype) ? cpu::active_mitchell_float_kernels().multiply[Kind::kMitchell][dtype]
                        : cpu::active_mitchell_integer_kernels().multiply[Kind::kMitchell][dtype];
    const auto parameters = cpu::mitchell::parameters("multiply", dtype, {});
    for (auto _ : state) {
        multiply({n, {out.data, a.data, b.data}, {1, 1, 1}}, parameters);
        benchmark::ClobberMemory();
    }
    state.SetBytesProcessed(state.iterations() * n * (2 * item_size(dtype) + item_size(out.dtype)));
    cpu::set_level(cpu::name(cpu::best_level()));
}

// The levels of the machine are known when the program runs.
const bool registered = [] {
    struct Kernel {
        const char* name;
        Dtype dtype;
        Path path;
    };
    constexpr std::array kTiles = {
        Kernel{"float32/exact", Dtype::kFloat32, Path::kExact},
        Kernel{"float32/sums", Dtype::kFloat32, Path::kSums},
        Kernel{"float32/flushed", Dtype::kFloat32, Path::kFlushed},
        Kernel{"float32/general", Dtype::kFloat32, Path::kGeneral},
        Kernel{"uint8/exact", Dtype::kUInt8, Path::kExact},
        Kernel{"uint8/sums", Dtype::kUInt8, Path::kSums},
        Kernel{"uint8/general", Dtype::kUInt8, Path::kGeneral},
        Kernel{"bfloat16/sums", Dtype::kBFloat16, Path::kSums},
    };
    constexpr std::array kElements = {
        Kernel{"float32", Dtype::kFloat32, {}},   Kernel{"float64", Dtype::kFloat64, {}},
        Kernel{"bfloat16", Dtype::kBFloat16, {}}, Kernel{"float16", Dtype::kFloat16, {}},
        Kernel{"int8", Dtype::kInt8, {}},         Kernel{"uint8", Dtype::kUInt8, {}},
    };
    for (int i = 0; i <= static_cast<int>(cpu::best_level()); ++i) {
        const auto level = static_cast<cpu::Level>(i);
        const std::string suffix = std::string("/") + cpu::name(level);
        for (const Kernel& k : kTiles) {
            benchmark::RegisterBenchmark((std::string("tile/") + k.name + suffix).c_str(), tile,
                                         level, k.dtype, k.path);
        }
        benchmark::RegisterBenchmark(("lookup/uint8" + suffix).c_str(), lookup, level);
        for (const Kernel& k : kElements) {
            benchmark::RegisterBenchmark((std::string("elements/") + k.name + suffix).c_str(),
                                         elements, level, k.dtype);
        }
    }
    return true;
}();

// --- Whole functions ---

void multiply(benchmark::State& state, Dtype dtype) {
    const int64_t n = state.range(0);
    const Buffer a(dtype, {n}), b(dtype, {n}), out(cpu::mitchell::result_of_multiply(a, b, {}));
    for (auto _ : state) cpu::mitchell::multiply(a, b, {}, out);
    state.SetBytesProcessed(state.iterations() * n * (2 * item_size(dtype) + item_size(out.dtype)));
}

void matmul(benchmark::State& state, Dtype dtype, Path path) {
    const int64_t n = state.range(0);
    const Buffer a(dtype, {n, n}), b(dtype, {n, n});
    const Buffer out(cpu::mitchell::result_of_matmul(a, b, {}));
    for (auto _ : state) cpu::mitchell::matmul(a, b, {}, 1.0, out, path);
    bench::count_products(state, n * n * n);
}

}  // namespace

BENCHMARK_CAPTURE(multiply, float32, Dtype::kFloat32)->Arg(1 << 12)->Arg(1 << 24)->UseRealTime();
BENCHMARK_CAPTURE(multiply, bfloat16, Dtype::kBFloat16)->Arg(1 << 12)->Arg(1 << 24)->UseRealTime();
BENCHMARK_CAPTURE(multiply, int8, Dtype::kInt8)->Arg(1 << 12)->Arg(1 << 24)->UseRealTime();
BENCHMARK_CAPTURE(matmul, float32, Dtype::kFloat32, Path::kAuto)
    ->Arg(128)
    ->Arg(1024)
    ->UseRealTime();
BENCHMARK_CAPTURE(matmul, float32_exact, Dtype::kFloat32, Path::kExact)
    ->Arg(128)
    ->Arg(1024)
    ->UseRealTime();
BENCHMARK_CAPTURE(matmul, bfloat16, Dtype::kBFloat16, Path::kAuto)->Arg(1024)->UseRealTime();
BENCHMARK_CAPTURE(matmul, uint8, Dtype::kUInt8, Path::kAuto)->Arg(256)->UseRealTime();
