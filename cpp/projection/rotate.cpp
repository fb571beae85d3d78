#include "projection/rotate.hpp"

#include <algorithm>
#include <vector>

#include "core/rounding.hpp"
#include "core/threads.hpp"
#include "projection/rotation_shape.hpp"
#include "projection/transform.hpp"

namespace slipstick::cpu::projection {
namespace {

constexpr int64_t kGrain = 1 << 14;  // numbers a thread: three rounds take 30 us or more

class Rotation {
public:
    Rotation(Dtype dtype, int64_t d, uint64_t seed, int64_t rounds, bool inverse)
        : shape_(d),
          transform_(dtype, shape_.log2n, Transform::Scale::kOrthonormal, shape_.mixed),
          rounds_(rounds),
          inverse_(inverse),
          words_(round_up(ceil_div(d, 128), kSignBlockRoom) * 4),
          signs_(rounds * words_ * 4) {
        const int64_t blocks = ceil_div(d, 128);
        for (int64_t round = 0; round < rounds; ++round) {
            active_projection_transform_kernels().sign_words(seed, static_cast<uint32_t>(round), 0,
                                                             blocks, kRotateTag, signs(round));
        }
        if (shape_.mixed == 1) return;
        const int order = shape_.mixed;
        mixing_.resize(static_cast<size_t>(order * order * transform_.item()));
        for (int i = 0; i < order; ++i) {
            for (int j = 0; j < order; ++j) {
                const double entry =
                    inverse ? mixing_entry(order, j, i) : mixing_entry(order, i, j);
                const auto at = static_cast<size_t>(i * order + j);
                if (transform_.item() == 4) {
                    reinterpret_cast<float*>(mixing_.data())[at] = static_cast<float>(entry);
                } else {
                    reinterpret_cast<double*>(mixing_.data())[at] = entry;
                }
            }
        }
    }

    int64_t size() const { return shape_.size; }
    int64_t item() const { return transform_.item(); }

    // One compact vector to another, which may be the same.
    void operator()(const char* source, char* target) const {
        const TransformKernels& kernels = transform_.kernels();
        if (inverse_) {
            for (int64_t round = rounds_; round-- > 0;) {
                orthogonal(source, target);
                kernels.flip(target, target, size(), signs(round));
                source = target;
            }
        } else {
            for (int64_t round = 0; round < rounds_; ++round) {
                kernels.flip(source, target, size(), signs(round));
                orthogonal(target, target);
                source = target;
            }
        }
    }

private:
    uint32_t* signs(int64_t round) const { return signs_.as<uint32_t>() + round * words_; }

    // H of a round, or its transpose: the transform of a power of two is its own.
    void orthogonal(const char* source, char* target) const {
        const int64_t n = transform_.size();
        if (shape_.overlap == 0) {
            transform_.rows(source, n, target, n, shape_.mixed);
            if (shape_.mixed > 1) transform_.kernels().mix(target, n, shape_.mixed, mixing_.data());
            return;
        }
        const int64_t first = inverse_ ? shape_.overlap : 0;
        const int64_t second = shape_.overlap - first;
        if (source != target) {
            // What the first of the two does not reach.
            const int64_t begin = inverse_ ? 0 : n;
            std::copy(source + begin * item(), source + (begin + size() - n) * item(),
                      target + begin * item());
        }
        transform_.rows(source + first * item(), n, target + first * item(), n, 1);
        transform_.rows(target + second * item(), n, target + second * item(), n, 1);
    }

    RotationShape shape_;
    Transform transform_;
    int64_t rounds_;
    bool inverse_;
    int64_t words_;  // a round
    Scratch signs_;
    std::vector<char> mixing_;
};

}  // namespace

void rotate(const ConstTensor& x, uint64_t seed, int64_t rounds, bool inverse, const Tensor& out) {
    if (out.size() == 0) return;
    const int axis = x.rank - 1;
    const Rotation rotation(x.dtype, x.shape[axis], seed, rounds, inverse);
    const VectorPairs vectors(x, out, axis);
    const int64_t d = rotation.size();
    const int64_t source_step = x.strides[axis];
    const int64_t target_step = out.strides[axis];
    const int64_t source_item = item_size(x.dtype);
    const int64_t target_item = item_size(out.dtype);
    const ReadFn read = active_projection_transform_kernels().read[x.dtype];
    const WriteFn write = active_projection_transform_kernels().write[out.dtype];
    const bool native = x.dtype == Dtype::kFloat32 || x.dtype == Dtype::kFloat64;
    const bool direct = native && (d == 1 || (source_step == 1 && target_step == 1));
    const auto run = [&](int64_t begin, int64_t end) {
        const Scratch scratch(direct ? 0 : d * rotation.item());
        vectors.for_each_run(begin, end,
                             [&](int64_t source, int64_t target, int64_t count,
                                 int64_t source_stride, int64_t target_stride) {
                                 const char* from = x.as<char>() + source * source_item;
                                 char* to = out.as<char>() + target * target_item;
                                 for (int64_t i = 0; i < count; ++i) {
                                     const char* const here =
                                         from + i * source_stride * source_item;
                                     char* const there = to + i * target_stride * target_item;
                                     if (direct) {
                                         rotation(here, there);
                                         continue;
                                     }
                                     auto* const line = scratch.as<char>();
                                     read(here, source_step, d, line);
                                     rotation(line, line);
                                     write(line, there, target_step, d);
                                 }
                             });
    };
    if (vectors.count() < num_threads() && d > kGrain) {
        run(0, vectors.count());  // the transforms split each vector
    } else {
        parallel_for(vectors.count(), std::max<int64_t>(1, kGrain / d), run);
    }
}

}  // namespace slipstick::cpu::projection
