#include "projection/transform.hpp"

#include <algorithm>
#include <cmath>

#include "core/rounding.hpp"
#include "core/threads.hpp"

namespace slipstick::cpu::projection {
namespace {

// A row that stays in the second cache: 256 KiB.
constexpr int64_t kMiddleBytes = 256 << 10;
// What goes down the columns at once, 16 KiB and at least 512 bytes of a row.
constexpr int64_t kTileBytes = 16 << 10;
constexpr int64_t kTileRowBytes = 512;
constexpr int kColumnStages = 8;  // at most, in one pass over memory
constexpr int64_t kGrainBytes = 256 << 10;

const char* at(const void* data, int64_t bytes) { return static_cast<const char*>(data) + bytes; }
char* at(void* data, int64_t bytes) { return static_cast<char*>(data) + bytes; }

}  // namespace

Transform::Transform(Dtype dtype, int log2n, Scale scale, int mixed)
    : kernels_(*active_projection_transform_kernels().transform[dtype]),
      log2n_(log2n),
      item_(computed_in_float(dtype) ? 4 : 8),
      scaled_(scale != Scale::kNone) {
    scales_.fill(1);
    for (int stage = 0; stage < log2n; stage += kScaleStages)
        scales_[static_cast<size_t>(stage / kScaleStages)] =
            std::ldexp(1.0, -std::min(kScaleStages, log2n - stage) / 2);
    const double root = std::sqrt(1.0 / (mixed * (log2n % 2 == 0 ? 1 : 2)));
    scales_[0] *= item_ == 4 ? static_cast<double>(static_cast<float>(root)) : root;
}

void Transform::rows(const void* source, int64_t source_stride, void* target, int64_t target_stride,
                     int64_t count, const uint32_t* signs) const {
    const int middle = std::countr_zero(static_cast<uint64_t>(kMiddleBytes / item_));
    if (log2n_ <= middle) {
        kernels_.rows(source, source_stride, target, target_stride, count, log2n_, scales(), signs);
        return;
    }
    const int near = std::min(middle, log2n_ - 4);
    const int64_t length = int64_t{1} << near;
    for (int64_t row = 0; row < count; ++row) {
        const char* const from = at(source, row * source_stride * item_);
        char* const to = at(target, row * target_stride * item_);
        parallel_for(size() >> near, 1, [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) {
                kernels_.rows(from + i * length * item_, length, to + i * length * item_, length, 1,
                              near, scales(), signs == nullptr ? nullptr : signs + i * length / 32);
            }
        });
        column_stages(to, length, to, length, length, near);
    }
}

void Transform::column_stages(const void* source, int64_t source_stride, void* target,
                              int64_t target_stride, int64_t columns, int first_stage) const {
    const int log2rows = log2n_ - first_stage;
    for (int done = 0; done < log2rows;) {
        const auto passes = static_cast<int>(ceil_div(log2rows - done, kColumnStages));
        const auto stages = static_cast<int>(ceil_div(log2rows - done, passes));
        const int64_t rows = int64_t{1} << stages;
        const int64_t width = std::max(kTileRowBytes, kTileBytes / rows / item_ * item_) / item_;
        const int64_t strips = ceil_div(columns, width);
        const int64_t matrices = int64_t{1} << (log2rows - stages);
        const int64_t distance = int64_t{1} << done;  // of the rows of a matrix
        const int64_t tile_bytes = rows * kernels_.padded(std::min(width, columns)) * item_;
        const int64_t grain = std::max<int64_t>(1, kGrainBytes / tile_bytes);
        parallel_for(matrices * strips, grain, [&](int64_t begin, int64_t end) {
            const Scratch scratch(tile_bytes);
            for (int64_t task = begin; task < end; ++task) {
                const int64_t matrix = task / strips;
                const int64_t column = task % strips * width;
                const int64_t row = matrix / distance * distance * rows + matrix % distance;
                kernels_.columns(at(source, (row * source_stride + column) * item_),
                                 source_stride * distance,
                                 at(target, (row * target_stride + column) * item_),
                                 target_stride * distance, std::min(width, columns - column),
                                 stages, first_stage + done, scales(), scratch.as());
            }
        });
        source = target;
        source_stride = target_stride;
        done += stages;
    }
}

}  // namespace slipstick::cpu::projection
