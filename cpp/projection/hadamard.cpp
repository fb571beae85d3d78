#include "projection/hadamard.hpp"

#include <algorithm>

#include "core/threads.hpp"
#include "projection/transform.hpp"

namespace slipstick::cpu::projection {
namespace {

constexpr int64_t kGrain = 1 << 15;  // numbers a thread: 20 us or more
// Numbers that wait while vectors whose neighbours are far apart are read side by side.
constexpr int64_t kTogether = 1 << 18;
constexpr int64_t kMostTogether = 32;  // vectors: 64 bytes of the shortest type

// An axis along which both views run through memory, -1 if there is none.
int adjacent_axis(const ConstTensor& x, const ConstTensor& out) {
    for (int i = 0; i < x.rank; ++i) {
        if (x.shape[i] >= 16 && x.strides[i] == 1 && out.strides[i] == 1) return i;
    }
    return -1;
}

// Vectors that are compact in both views and need no conversion.
void transform_rows(const Transform& transform, const ConstTensor& x, int axis, const Tensor& out) {
    const VectorPairs vectors(x, out, axis);
    const int64_t item = transform.item();
    const auto run = [&](int64_t begin, int64_t end) {
        vectors.for_each_run(begin, end,
                             [&](int64_t source, int64_t target, int64_t count,
                                 int64_t source_stride, int64_t target_stride) {
                                 transform.rows(x.as<char>() + source * item, source_stride,
                                                out.as<char>() + target * item, target_stride,
                                                count);
                             });
    };
    if (vectors.count() < num_threads() && transform.size() > kGrain) {
        run(0, vectors.count());  // the transform splits each vector
    } else {
        parallel_for(vectors.count(), std::max<int64_t>(1, kGrain / transform.size()), run);
    }
}

// Vectors side by side: whole runs of them go through the stages together.
void transform_columns(const Transform& transform, const ConstTensor& x, int axis, int adjacent,
                       const Tensor& out) {
    std::array<int64_t, kMaxRank> shape;
    std::copy(x.shape, x.shape + x.rank, shape.begin());
    const int64_t columns = shape[static_cast<size_t>(adjacent)];
    shape[static_cast<size_t>(adjacent)] = 1;
    const ConstTensor first{x.data, x.dtype, x.rank, shape.data(), x.strides};
    const VectorPairs matrices(first, out, axis);
    const int64_t item = transform.item();
    const auto run = [&](int64_t begin, int64_t end) {
        matrices.for_each_run(begin, end,
                              [&](int64_t source, int64_t target, int64_t count,
                                  int64_t source_stride, int64_t target_stride) {
                                  for (int64_t i = 0; i < count; ++i) {
                                      transform.columns(
                                          x.as<char>() + (source + i * source_stride) * item,
                                          x.strides[axis],
                                          out.as<char>() + (target + i * target_stride) * item,
                                          out.strides[axis], columns);
                                  }
                              });
    };
    const int64_t matrix = transform.size() * columns;
    if (matrices.count() < num_threads() && matrix > kGrain) {
        run(0, matrices.count());
    } else {
        parallel_for(matrices.count(), std::max<int64_t>(1, kGrain / matrix), run);
    }
}

// Any strides, any dtype: by way of scratch memory.
void transform_copies(const Transform& transform, const ConstTensor& x, int axis,
                      const Tensor& out) {
    const VectorPairs vectors(x, out, axis);
    const int64_t n = transform.size();
    const ReadFn read = active_projection_transform_kernels().read[x.dtype];
    const WriteFn write = active_projection_transform_kernels().write[out.dtype];
    const int64_t source_item = item_size(x.dtype);
    const int64_t target_item = item_size(out.dtype);
    const int64_t source_step = x.strides[axis];
    const int64_t target_step = out.strides[axis];
    const int64_t most = std::clamp<int64_t>(kTogether / n, 1, kMostTogether);
    const auto run = [&](int64_t begin, int64_t end) {
        const Scratch scratch(most * n * transform.item());
        const auto line = [&](int64_t i) { return scratch.as<char>() + i * n * transform.item(); };
        vectors.for_each_run(
            begin, end,
            [&](int64_t source, int64_t target, int64_t count, int64_t source_stride,
                int64_t target_stride) {
                const char* from = x.as<char>() + source * source_item;
                char* to = out.as<char>() + target * target_item;
                for (int64_t first = 0; first < count; first += most) {
                    const int64_t used = std::min(most, count - first);
                    // Pieces of vectors, so that what lies side by side is read at one time.
                    const int64_t piece = used == 1 ? n : std::min<int64_t>(n, 64);
                    for (int64_t j = 0; j < n; j += piece) {
                        for (int64_t i = 0; i < used; ++i) {
                            read(from +
                                     ((first + i) * source_stride + j * source_step) * source_item,
                                 source_step, piece, line(i) + j * transform.item());
                        }
                    }
                    transform.rows(line(0), n, line(0), n, used);
                    for (int64_t j = 0; j < n; j += piece) {
                        for (int64_t i = 0; i < used; ++i) {
                            write(
                                line(i) + j * transform.item(),
                                to + ((first + i) * target_stride + j * target_step) * target_item,
                                target_step, piece);
                        }
                    }
                }
            });
    };
    if (vectors.count() < num_threads() && n > kGrain) {
        run(0, vectors.count());
    } else {
        parallel_for(vectors.count(), std::max<int64_t>(1, kGrain / n), run);
    }
}

}  // namespace

void hadamard(const ConstTensor& x, int64_t axis, const Tensor& out) {
    if (out.size() == 0) return;
    const int which = hadamard_axis(x, axis);
    const Transform transform(x.dtype, log2_exact(x.shape[which]), Transform::Scale::kOrthonormal);
    const bool native = x.dtype == Dtype::kFloat32 || x.dtype == Dtype::kFloat64;
    if (native && (transform.size() == 1 || (x.strides[which] == 1 && out.strides[which] == 1)))
        return transform_rows(transform, x, which, out);
    const int adjacent = native ? adjacent_axis(x, out) : -1;
    if (adjacent >= 0) return transform_columns(transform, x, which, adjacent, out);
    transform_copies(transform, x, which, out);
}

}  // namespace slipstick::cpu::projection
