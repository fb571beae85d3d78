// What the functions' results look like, on any device: every result_of_* checks the operands'
// dtypes and shapes and the method, and allocates and computes nothing.
#pragma once

#include <array>

#include "core/checks.hpp"
#include "core/result.hpp"
#include "core/tensor.hpp"
#include "mitchell/method.hpp"

namespace slipstick::mitchell {

ResultSpec result_of_multiply(const ConstTensor& a, const ConstTensor& b, const Method& method);

// multiply(a, a), under its own name in errors.
ResultSpec result_of_square(const ConstTensor& a, const Method& method);

// Quotients take Mitchell's own method.
ResultSpec result_of_divide(const ConstTensor& a, const ConstTensor& b);
ResultSpec result_of_reciprocal(const ConstTensor& a);

ResultSpec result_of_sqrt(const ConstTensor& a);
ResultSpec result_of_log2(const ConstTensor& a);
ResultSpec result_of_exp2(const ConstTensor& a);

ResultSpec result_of_power(const ConstTensor& a, const ConstTensor& p);
// A number is an exponent as it stands, whatever the dtype of `a`.
ResultSpec result_of_power(const ConstTensor& a, double p);

// What a device's sums of products take.
struct Sums {
    bool (*takes)(Dtype dtype);
    const char* dtypes;        // as an error lists them
    const char* float_dtypes;  // those among them that have gradients
    // Throws, in the name of `function`, std::invalid_argument where a sum of `depth` products of
    // integers could overflow.
    void (*check)(const char* function, Named left, Named right, const Method& method,
                  int64_t depth);
};

// (..., m, k) @ (..., k, n) with NumPy's rules for one-dimensional operands and leading axes.
// Refuses in the name of `function`.
ResultSpec result_of_matmul(const ConstTensor& a, const ConstTensor& b, const Method& method,
                            const char* function, const Sums& sums);

// How the sums of a convolution are formed; the bits are the same. A test asks for each in turn.
enum class ConvForm { kAuto, kMatrices, kLines };

struct ConvOptions {  // pairs: along the rows, along the columns
    std::array<int64_t, 2> stride;
    std::array<int64_t, 2> padding;
    bool same_padding;  // as much as gives the result the input's size
    std::array<int64_t, 2> dilation;
    int64_t groups;
    ConvForm form = ConvForm::kAuto;
    Path path = Path::kAuto;
};

// x (n, c, h, w) or (c, h, w), weight (o, c / groups, kh, kw).
ResultSpec result_of_conv2d(const ConstTensor& x, const ConstTensor& weight,
                            const ConvOptions& options, const Method& method, const Sums& sums);

enum class Gradient { kMimic, kExact, kStraightThrough };

// The derivative of a product with respect to one operand, as a function of both:
//   kCarry      sgn(b) 2^(E_b + carries of x + y + offset)
//   kLeading    sgn(b) 2^E_b
//   kRemainder  b less what remains of it without its `terms` leading ones
// A zero or subnormal b gives 0, a zero or subnormal a has x = 0, and an infinite or NaN a or b
// gives NaN.
struct Derivative {
    enum class Kind { kCarry, kLeading, kRemainder } kind = Kind::kCarry;
    double offset = 0;
    int64_t terms = 0;
};

// Checks the operands; the gradients have their shapes and dtype.
void check_matmul_backward(const ConstTensor& grad, const ConstTensor& a, const ConstTensor& b,
                           const Method& method, const Sums& sums);

}  // namespace slipstick::mitchell
