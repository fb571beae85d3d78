#include "mitchell/method.hpp"

#include <cmath>

#include "mitchell/operands.hpp"
#include "mitchell/product.hpp"

namespace slipstick::cpu::mitchell {
namespace {

template <class Lane>
uint64_t one_less_offset(const slipstick::mitchell::Format<Lane>& format, double bias) {
    return format.one -
           static_cast<uint64_t>(std::nearbyint(std::ldexp(bias, format.fraction_bits)));
}

}  // namespace

Parameters parameters(const char* /*function*/, Dtype dtype, const Method& method) {
    using namespace slipstick::mitchell;
    Parameters result{};
    result.width = method.width;
    switch (dtype) {
        case Dtype::kFloat32:
            result.c = one_less_offset(kFormat32<uint64_t>, method.bias);
            break;
        case Dtype::kFloat64:
            result.c = one_less_offset(kFormat64<uint64_t>, method.bias);
            break;
        case Dtype::kFloat16:
            result.c = one_less_offset(kFormat16<uint64_t>, method.bias);
            break;
        case Dtype::kBFloat16:
            result.c = one_less_offset(kFormatB16<uint64_t>, method.bias);
            break;
        default:
            result.fraction = static_cast<uint64_t>(std::ldexp(method.bias, 64));
    }
    return result;
}

}  // namespace slipstick::cpu::mitchell
