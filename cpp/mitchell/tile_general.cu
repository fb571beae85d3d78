// Sums of floating-point products that are formed by a method's own rules, whatever the operands
// are.
#include "mitchell/methods.hpp"
#include "mitchell/sum_products.cuh"

namespace slipstick::cuda::mitchell {

void launch_general(const Context& context, const char* function, slipstick::mitchell::Kind kind,
                    const TileProblem& problem) {
    using slipstick::mitchell::Rule;
    slipstick::mitchell::dispatch_method(kind, [&]<class M>() {
        // Methods of real products are exact products of changed operands; the rounding of L-Mul
        // alone can lift one beyond the format.
        constexpr bool needed =
            M::kRule != Rule::kRealProduct || M::kKind == slipstick::mitchell::Kind::kLMulFormula;
        if constexpr (slipstick::mitchell::kTakesFloats<M> && needed)
            launch_tiles<GeneralMac<M>, SmallTile>(context, function, problem);
    });
}

}  // namespace slipstick::cuda::mitchell
