// Attention, approximate products and a random projection from C++, and what a refused call says.
// docs/cpp.md goes through it.
#include <slipstick/attention/attention.hpp>
#include <slipstick/core/array_view.hpp>
#include <slipstick/core/error.hpp>
#include <slipstick/core/isa.hpp>
#include <slipstick/core/threads.hpp>
#include <slipstick/mitchell/mitchell.hpp>
#include <slipstick/projection/projection.hpp>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <vector>

using slipstick::ArrayView;
using slipstick::ResultSpec;
namespace cpu = slipstick::cpu;

namespace {

// Eighths from -1 to 1.
std::vector<float> eighths(int count) {
    std::vector<float> numbers;
    for (int i = 0; i < count; ++i) numbers.push_back(static_cast<float>(i * 5 % 17 - 8) / 8);
    return numbers;
}

template <class T>
void print(const char* name, const std::vector<T>& numbers) {
    std::printf("%s:", name);
    for (const T number : numbers) std::printf(" %.9g", static_cast<double>(number));
    std::printf("\n");
}

void attend() {
    namespace attention = cpu::attention;
    const std::vector<float> tokens = eighths(2 * 3 * 4);
    const ArrayView x(tokens, {1, 2, 3, 4});  // batch, heads, length, dim
    // The factor on the scores of a row that sees n keys: ln n / (ln 512 sqrt(4)) + 0.
    const std::vector<double> slope_and_intercept = {1 / (std::log(512.0) * std::sqrt(4.0)), 0};
    const ArrayView parameters(slope_and_intercept, {1, 2});

    const attention::Inputs inputs{.query = x, .key = x, .value = x};
    const attention::Options options{.scale = {attention::Law::kAffineLog, parameters},
                                     .causal = true};
    const ResultSpec result = attention::result_of_attention(inputs, options);
    std::vector<float> numbers(result.size());
    const ArrayView out(numbers, result);
    attention::attention(inputs, options, out, nullptr);
    print("attention", numbers);
}

void multiply() {
    namespace mitchell = cpu::mitchell;
    const std::vector<uint8_t> left = {3, 5, 100, 200};
    const std::vector<uint8_t> right = {3, 5, 7, 3};
    const ArrayView a(left, {4});
    const ArrayView b(right, {4});

    mitchell::Method method;  // Mitchell's own
    const ResultSpec result = mitchell::result_of_multiply(a, b, method);
    std::vector<uint16_t> numbers(result.size());
    const ArrayView out(numbers, result);
    mitchell::multiply(a, b, method, out);
    print("mitchell", numbers);

    mitchell::find_kind("drum", method.kind);
    method.width = 3;
    mitchell::multiply(a, b, method, out);
    print("drum", numbers);
}

void project() {
    namespace projection = cpu::projection;
    const std::vector<float> features = eighths(2 * 1000);
    const ArrayView x(features, {2, 1000});
    const projection::Law law{
        .kind = projection::Kind::kRademacher, .seed = 7, .scale = 1 / std::sqrt(4.0)};

    const ResultSpec result = projection::result_of_project(x, 4, 0);
    std::vector<float> numbers(result.size());
    const ArrayView out(numbers, result);
    projection::project(x, law, 0, out);
    print("projection", numbers);
}

void be_refused() {
    const std::vector<float> numbers(6);
    const std::vector<double> others(6);
    const ArrayView a(numbers, {2, 3});
    const ArrayView b(others, {3, 2});
    try {
        cpu::mitchell::result_of_matmul(a, a, {});
    } catch (const std::invalid_argument& error) {
        std::printf("%s\n", error.what());
    }
    try {
        cpu::mitchell::result_of_matmul(a, b, {});
    } catch (const slipstick::TypeError& error) {
        std::printf("%s\n", error.what());
    }
}

}  // namespace

int main() {
    try {
        cpu::init_level_from_environment();
        cpu::init_threads_from_environment();
        std::printf("level: %s\n", cpu::name(cpu::active_level()));
        std::printf("threads: %d\n", cpu::num_threads());
        attend();
        multiply();
        project();
        be_refused();
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
