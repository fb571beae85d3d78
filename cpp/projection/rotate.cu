// hadamard and rotate: a Hadamard transform is a rotation of one round without signs.
#include "core/launch.cuh"
#include "projection/cuda.hpp"
#include "projection/rotation.cuh"

namespace slipstick::cuda::projection {
namespace {

bool computed_in_float(Dtype dtype) {
    return dtype == Dtype::kFloat32 || dtype == Dtype::kFloat16 || dtype == Dtype::kBFloat16;
}

Rotation make_rotation(Dtype dtype, int64_t size) {
    const slipstick::projection::RotationShape shape(size);
    Rotation rotation{};
    rotation.size = size;
    rotation.log2n = shape.log2n;
    rotation.mixed = shape.mixed;
    rotation.overlap = shape.overlap;
    rotation.rounds = 1;
    rotation.scales = orthonormal_scales(shape.log2n, shape.mixed, computed_in_float(dtype));
    return rotation;
}

}  // namespace

void hadamard(const Context& context, const ConstTensor& x, int64_t axis, const Tensor& out) {
    if (out.size() == 0) return;
    const DeviceGuard guard(context, "hadamard");
    const int which = slipstick::projection::hadamard_axis(x, axis);
    const Vectors vectors = make_vectors(x, out, which);
    rotate_vectors(context, "hadamard", vectors, make_rotation(x.dtype, x.shape[which]));
}

void rotate(const Context& context, const ConstTensor& x, uint64_t seed, int64_t rounds,
            bool inverse, const Tensor& out) {
    if (out.size() == 0) return;
    const DeviceGuard guard(context, "rotate");
    const int axis = x.rank - 1;
    Rotation rotation = make_rotation(x.dtype, x.shape[axis]);
    rotation.has_signs = true;
    rotation.inverse = inverse;
    rotation.rounds = rounds;
    rotation.seed = seed;
    const int order = rotation.mixed;
    for (int i = 0; order > 1 && i < order; ++i) {
        for (int k = 0; k < order; ++k) {
            const double entry = inverse ? slipstick::projection::mixing_entry(order, k, i)
                                         : slipstick::projection::mixing_entry(order, i, k);
            rotation.mixing[i] |= static_cast<uint32_t>(entry < 0) << k;
        }
    }
    rotate_vectors(context, "rotate", make_vectors(x, out, axis), rotation);
}

}  // namespace slipstick::cuda::projection
