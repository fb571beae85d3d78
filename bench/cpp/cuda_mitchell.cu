// Mitchell's kernels on a CUDA device, called through mitchell/cuda.hpp, and a table's products
// beside those of a texture. A product counts as two operations; half of the FFMA rate is the limit
// of approximate float products, an integer addition and a float one each.
//
//     slipstick_bench_cuda [SUBSTRING]     only cases whose name has it
#include <cstring>
#include <exception>
#include <memory>

#include "cuda_bench.cuh"
#include "cuda_texture.cuh"
#include "mitchell/cuda.hpp"

namespace {

using namespace slipstick;
using namespace bench;
using cuda::Context;
using cuda::mitchell::Method;
using slipstick::mitchell::Kind;
using slipstick::mitchell::Path;

class Suite {
public:
    explicit Suite(const char* only) : only_(only) {
        std::printf("%-44s %14.1f GB/s\n%-44s %14.1f GFLOP/s\n\n", "peak: copy of 1 GiB",
                    peaks_.bytes / 1e9, "peak: fused multiply-adds", peaks_.operations / 1e9);
    }

    void elements() {
        constexpr int64_t kCount = int64_t{1} << 26;
        constexpr Dtype kDtypes[] = {Dtype::kFloat32, Dtype::kFloat16, Dtype::kBFloat16,
                                     Dtype::kInt8, Dtype::kUInt8};
        for (const Dtype dtype : kDtypes) multiply(dtype, kCount, {}, "mitchell");
        for (const auto& [kind, width, text] :
             {std::tuple{Kind::kDrum, 6, "drum"}, std::tuple{Kind::kMitchW, 6, "mitch-w"},
              std::tuple{Kind::kLMulFormula, 0, "lmul-formula"}}) {
            slipstick::mitchell::Method method;
            method.kind = kind;
            method.width = width;
            multiply(Dtype::kFloat32, kCount, method, text);
        }
        function("divide", 2, [](const Context& context, const Tensor* x) {
            cuda::mitchell::divide(context, x[0], x[1], Method({}), x[2]);
        });
        function("sqrt", 1, [](const Context& context, const Tensor* x) {
            cuda::mitchell::sqrt(context, x[0], x[2]);
        });
        function("log2", 1, [](const Context& context, const Tensor* x) {
            cuda::mitchell::log2(context, x[0], x[2]);
        });
        function("exp2", 1, [](const Context& context, const Tensor* x) {
            cuda::mitchell::exp2(context, x[0], x[2]);
        });
    }

    void products() {
        struct Kernel {
            Dtype dtype;
            Path path;
            const char* name;
        };
        constexpr Kernel kKernels[] = {
            {Dtype::kFloat32, Path::kSums, "sums"},
            {Dtype::kFloat32, Path::kFlushed, "flushed"},
            {Dtype::kFloat32, Path::kGeneral, "general"},
            {Dtype::kBFloat16, Path::kSums, "sums"},
            {Dtype::kBFloat16, Path::kGeneral, "general"},
            {Dtype::kFloat16, Path::kSums, "sums"},
            {Dtype::kUInt8, Path::kSums, "sums"},
            {Dtype::kInt8, Path::kSums, "sums"},
        };
        for (const Kernel& kernel : kKernels) matmul(kernel.dtype, 4096, kernel.path, kernel.name);
        for (const int64_t size : {8192, 4096, 1024, 256}) {
            matmul(Dtype::kFloat32, size, Path::kAuto, "auto");
        }
    }

    // True where both give the same sums.
    bool table() {
        constexpr int64_t kSize = 4096;
        const std::string name = "matmul uint8 4096^3, Table", beside = name + " by a texture";
        if (!chosen(name)) return true;
        auto table = std::make_shared<slipstick::mitchell::Table>();
        table->side = 256;
        table->is_signed = false;
        for (uint32_t i = 0; i < 65536; ++i) {
            table->entries.push_back(static_cast<uint16_t>((i * 0x9E3779B9u) >> 16));
        }
        slipstick::mitchell::Method description;
        description.kind = Kind::kTable;
        description.table = table;
        const Method method(description);
        const DeviceTensor a(Dtype::kUInt8, {kSize, kSize}), b(Dtype::kUInt8, {kSize, kSize});
        const DeviceTensor out(Dtype::kUInt32, {kSize, kSize}),
            other(Dtype::kUInt32, {kSize, kSize});
        const double products = static_cast<double>(kSize) * kSize * kSize;
        const double own = clock_.seconds([&](const Context& context) {
            cuda::mitchell::matmul(context, a, b, method, 1.0, out);
        });
        report(name, own, products, "MAC", peaks_.operations / 2);
        const Texture texture(method.tables->on(clock_.context(), kProgram));
        const dim3 grid(kSize / kTextureTile, kSize / kTextureTile);
        const double fetched = clock_.seconds([&](const Context& context) {
            texture_matmul<<<grid, dim3(kTextureTile, kTextureTile), 0, cuda::stream_of(context)>>>(
                texture.get(), a.as<uint8_t>(), b.as<uint8_t>(), other.as<uint32_t>(), kSize);
            check(cudaGetLastError(), kProgram);
        });
        report(beside, fetched, products, "MAC", peaks_.operations / 2);
        std::printf("%-44s %11.2f x\n", "the texture's time over Table's", fetched / own);
        return same(out, other);
    }

private:
    bool chosen(const std::string& name) const { return name.find(only_) != std::string::npos; }

    void multiply(Dtype dtype, int64_t count, const slipstick::mitchell::Method& description,
                  const char* text) {
        const std::string title =
            std::string("multiply ") + slipstick::name(dtype) + " 2^26, " + text;
        if (!chosen(title)) return;
        const Method method(description);
        const DeviceTensor a(dtype, {count}), b(dtype, {count});
        const DeviceTensor out(slipstick::mitchell::result_of_multiply(a, b, description));
        const double seconds = clock_.seconds(
            [&](const Context& context) { cuda::mitchell::multiply(context, a, b, method, out); });
        const auto bytes = static_cast<double>(a.bytes() + b.bytes() + out.bytes());
        report(title, seconds, bytes, "B", peaks_.bytes);
    }

    // call(context, {first operand, second, result}) reads `operands` arrays.
    template <class Call>
    void function(const char* text, int operands, const Call& call) {
        const std::string title = std::string(text) + " float32 2^26";
        if (!chosen(title)) return;
        const std::vector<int64_t> shape{int64_t{1} << 26};
        const DeviceTensor a(Dtype::kFloat32, shape), b(Dtype::kFloat32, shape);
        const DeviceTensor out(Dtype::kFloat32, shape);
        const Tensor tensors[] = {a, b, out};
        const double seconds =
            clock_.seconds([&](const Context& context) { call(context, tensors); });
        const auto bytes = static_cast<double>((operands + 1) * a.bytes());
        report(title, seconds, bytes, "B", peaks_.bytes);
    }

    void matmul(Dtype dtype, int64_t size, Path path, const char* text) {
        const std::string title = std::string("matmul ") + slipstick::name(dtype) + " " +
                                  std::to_string(size) + "^3, " + text;
        if (!chosen(title)) return;
        const Method method({});
        const DeviceTensor a(dtype, {size, size}), b(dtype, {size, size});
        const Dtype result = dtype == Dtype::kInt8    ? Dtype::kInt32
                             : dtype == Dtype::kUInt8 ? Dtype::kUInt32
                                                      : dtype;
        const DeviceTensor out(result, {size, size});
        const double seconds = clock_.seconds([&](const Context& context) {
            cuda::mitchell::matmul(context, a, b, method, 1.0, out, path);
        });
        const double products = static_cast<double>(size) * size * size;
        if (result == dtype) {
            report(title, seconds, 2 * products, "FLOP", peaks_.operations);
        } else {
            report(title, seconds, products, "MAC", peaks_.operations / 2);
        }
    }

    static bool same(const DeviceTensor& a, const DeviceTensor& b) {
        std::vector<char> left(static_cast<size_t>(a.bytes())), right(left.size());
        check(cudaMemcpy(left.data(), a.data, left.size(), cudaMemcpyDeviceToHost), kProgram);
        check(cudaMemcpy(right.data(), b.data, right.size(), cudaMemcpyDeviceToHost), kProgram);
        return left == right;
    }

    std::string only_;
    Clock clock_;
    Peaks peaks_ = measure_peaks(clock_);
};

int run(const char* only) {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
        std::fprintf(stderr, "%s needs a CUDA device and its driver, found none\n", kProgram);
        return 1;
    }
    cudaDeviceProp properties{};
    int driver = 0;
    check(cudaGetDeviceProperties(&properties, 0), kProgram);
    check(cudaDriverGetVersion(&driver), kProgram);
    std::printf("%s, driver for CUDA %d.%d\n", properties.name, driver / 1000, driver % 1000 / 10);
    Suite suite(only);
    suite.elements();
    suite.products();
    if (!suite.table()) {
        std::fprintf(stderr, "%s: Table and texture give different sums\n", kProgram);
        return 1;
    }
    return 0;
}

}  // namespace

int main(int count, char** words) {
    try {
        return run(count > 1 ? words[1] : "");
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
