// Prints what views of arrays are, as tensors, and what is refused to C++ callers alone.
#include <slipstick/core/array_view.hpp>
#include <slipstick/mitchell/mitchell.hpp>

#include <array>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <initializer_list>
#include <memory>
#include <span>
#include <stdexcept>
#include <type_traits>
#include <vector>

using namespace slipstick;

namespace {

// A view of constants cannot be written to, and one without a name leads to no tensor.
using Constant = ArrayView<const float>;
using Writable = ArrayView<float>;
static_assert(std::is_convertible_v<const Constant&, ConstTensor>);
static_assert(!std::is_convertible_v<const Constant&, Tensor>);
static_assert(std::is_convertible_v<const Writable&, Tensor>);
static_assert(!std::is_convertible_v<Writable, Tensor>);

void print(const ConstTensor& tensor) {
    std::printf("%s, strides", describe(tensor).c_str());
    for (int axis = 0; axis < tensor.rank; ++axis)
        std::printf(" %d", static_cast<int>(tensor.strides[axis]));
    std::printf("\n");
}

template <class Make>
void refuse(Make make) {
    try {
        make();
        std::printf("accepted\n");
    } catch (const TypeError& error) {
        std::printf("TypeError: %s\n", error.what());
    } catch (const std::invalid_argument& error) {
        std::printf("invalid_argument: %s\n", error.what());
    }
}

ResultSpec result(Dtype dtype, std::initializer_list<int64_t> shape) {
    ResultSpec spec{dtype};
    for (const int64_t size : shape) spec.append(size);
    return spec;
}

}  // namespace

int main() {
    std::vector<float> six(6);
    const std::array<double, 6> constants{};
    const std::vector<int64_t> shape = {3, 2};
    int8_t raw[6] = {};

    const ArrayView view(six, {1, 2, 3});
    print(view);
    const ArrayView copy = view;  // with a shape of its own
    print(copy);
    const ArrayView of_constants(constants, shape);
    print(of_constants);
    const ArrayView of_part(std::span<int8_t>(raw).subspan(2), {4});
    print(of_part);
    const ArrayView one(std::span<float>(six).first(1), {});
    print(one);
    const ArrayView none(std::span<float>(), {2, 0, 3});
    print(none);
    const ArrayView of_result(six, result(Dtype::kFloat32, {2, 3}));
    const Tensor tensor = of_result;
    tensor.as<float>()[5] = 1;
    print(tensor);
    std::printf("%g %d\n", static_cast<double>(six[5]), tensor.data == six.data());

    refuse([&] { ArrayView(six, {2, 4}); });
    refuse([&] { ArrayView(six, {-2, -3}); });
    refuse([&] { ArrayView(six, {int64_t{1} << 32, int64_t{1} << 32}); });
    refuse([&] { ArrayView(six, std::vector<int64_t>(65, 1)); });
    refuse([&] { ArrayView(six, result(Dtype::kFloat32, {5})); });
    refuse([&] { ArrayView(six, result(Dtype::kFloat64, {6})); });

    namespace mitchell = cpu::mitchell;
    const auto multiply = [&](const mitchell::Method& method) {
        return mitchell::result_of_multiply(view, view, method);
    };
    const mitchell::Table table{
        .entries = std::vector<uint16_t>(63), .side = 8, .is_signed = false};
    refuse([&] { multiply({.kind = mitchell::Kind::kTable}); });
    refuse([&] { multiply({.kind = mitchell::Kind::kRealm, .width = 8}); });
    refuse([&] {
        multiply({.kind = mitchell::Kind::kTable,
                  .table = std::make_shared<const mitchell::Table>(table)});
    });
}
