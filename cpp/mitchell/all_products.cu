#include "mitchell/all_products.cuh"

#include "core/launch.cuh"
#include "mitchell/multiply.hpp"

namespace slipstick::cuda::mitchell {
namespace {

using slipstick::mitchell::Domain;
using slipstick::mitchell::Kind;
using slipstick::mitchell::Wider;

// One launch for whatever method: 65,536 products take a few microseconds however they are made.
template <class T>
__global__ void products_kernel(Kind kind, Parameters parameters, bool exchanged, uint16_t* table) {
    const unsigned line = blockIdx.x;
    const unsigned place = threadIdx.x;
    const auto a = static_cast<T>(exchanged ? place : line);
    const auto b = static_cast<T>(exchanged ? line : place);
    Wider<T> product = 0;
    slipstick::mitchell::dispatch_method(kind, [&]<class M>() {
        if constexpr (slipstick::mitchell::kTakesIntegers<M> || M::kDomain == Domain::kTable)
            product = slipstick::mitchell::multiply_integers<M>(a, b, parameters);
    });
    table[256 * line + place] =
        static_cast<uint16_t>(static_cast<uint32_t>(product) + product_offset(DtypeOf<T>::value));
}

}  // namespace

const uint16_t* all_products(const Context& context, const char* function, Dtype dtype, Kind kind,
                             const Parameters& parameters, bool exchanged) {
    auto* const table = context.memory->allocate_array<uint16_t>(256 * 256);
    launch(context, function,
           dtype == Dtype::kInt8 ? products_kernel<int8_t> : products_kernel<uint8_t>, dim3(256),
           dim3(256), 0, kind, parameters, exchanged, table);
    return table;
}

}  // namespace slipstick::cuda::mitchell
