#include "projection/vectors.cuh"

#include "projection/vector_pairs.hpp"

namespace slipstick::cuda::projection {
namespace {

// Elements of 16 bytes, 0 for types that are not read so.
int64_t pack_of(Dtype dtype) { return dtype <= Dtype::kBFloat16 ? 16 / item_size(dtype) : 0; }

bool is_packed(const void* data, Dtype dtype, int64_t step, const Vectors& vectors,
               const int64_t* strides) {
    const int64_t pack = pack_of(dtype);
    if (pack == 0 || step != 1 || reinterpret_cast<uintptr_t>(data) % 16 != 0) return false;
    for (int axis = 0; axis < vectors.rank; ++axis)
        if (vectors.shape[axis] > 1 && strides[axis] % pack != 0) return false;
    return true;
}

}  // namespace

Vectors make_vectors(const ConstTensor& x, const Tensor& out, int axis) {
    const slipstick::projection::VectorPairs pairs(x, out, axis);
    Vectors vectors{};
    vectors.count = pairs.count();
    vectors.rank = static_cast<int>(pairs.rank());
    for (size_t i = 0; i < pairs.rank(); ++i) {
        vectors.shape[i] = pairs.length(i);
        vectors.source[i] = pairs.source_stride(i);
        vectors.target[i] = pairs.target_stride(i);
    }
    vectors.x = x.data;
    vectors.out = out.mutable_data();
    vectors.x_dtype = x.dtype;
    vectors.x_step = x.strides[axis];
    vectors.out_step = out.strides[axis];
    const int last = vectors.rank - 1;
    vectors.x_across = vectors.x_step != 1 && vectors.source[last] == 1;
    vectors.out_across = vectors.out_step != 1 && vectors.target[last] == 1;
    vectors.x_packed = is_packed(x.data, x.dtype, vectors.x_step, vectors, vectors.source);
    vectors.out_packed = is_packed(out.data, out.dtype, vectors.out_step, vectors, vectors.target);
    return vectors;
}

}  // namespace slipstick::cuda::projection
