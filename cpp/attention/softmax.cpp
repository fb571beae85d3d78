#include <algorithm>
#include <array>

#include "attention/attention.hpp"
#include "attention/kernels.hpp"
#include "attention/numbers.hpp"
#include "attention/scale.hpp"
#include "attention/view.hpp"
#include "core/threads.hpp"

namespace slipstick::cpu::attention {
namespace {

// Rows that are read together where neighbours of a row are further apart than the rows are: 64
// bytes of the shortest type.
constexpr int64_t kRowsTogether = 32;
constexpr int64_t kGrain = 1 << 15;  // scores a thread: about 50 us

// The scores without the axis that is normalised: one element a row.
struct Rows {
    std::array<int64_t, kMaxRank> shape{};
    std::array<int64_t, kMaxRank> source{};  // strides of the scores
    std::array<int64_t, kMaxRank> target{};  // and of the result
    int rank = 0;

    Rows(const ConstTensor& scores, const ConstTensor& out, int axis) {
        for (int i = 0; i < scores.rank; ++i) {
            if (i == axis) continue;
            const auto at = static_cast<size_t>(rank++);
            shape[at] = scores.shape[i];
            source[at] = scores.strides[i];
            target[at] = out.strides[i];
        }
    }
    ConstTensor tensor() const {
        return {nullptr, Dtype::kFloat32, rank, shape.data(), source.data()};
    }
};

struct RowPlace {
    int64_t source;
    int64_t target;
    int64_t head;
    int64_t factor;  // where a given lambda lies
};

RowPlace place_of(const Rows& rows, const ConstTensor* given, int64_t index) {
    RowPlace place{};
    for (int axis = rows.rank - 1; axis >= 0; --axis) {
        const auto at = static_cast<size_t>(axis);
        const int64_t position = index % rows.shape[at];
        index /= rows.shape[at];
        place.source += position * rows.source[at];
        place.target += position * rows.target[at];
        if (axis == rows.rank - 2) place.head = position;
        if (given == nullptr) continue;
        const int own = axis - (rows.rank - given->rank);
        if (own >= 0 && given->shape[own] > 1) place.factor += position * given->strides[own];
    }
    return place;
}

template <class T>
void softmax_rows(const ConstTensor& scores, const Scale& scale, int axis, const Tensor& out) {
    using Acc = AccOf<T>;
    const Softmax<Acc>& kernels = active_attention_kernels().of<T>().softmax;
    if (out.size() == 0) return;
    const Rows rows(scores, out, axis);
    const ConstTensor* given = scale.law == Law::kGiven ? &scale.values : nullptr;
    const int64_t count = scores.shape[axis];
    const int64_t row_count = rows.tensor().size();
    const int64_t source_stride = scores.strides[axis];
    const int64_t target_stride = out.strides[axis];
    const bool together = count > 1 && (source_stride != 1 || target_stride != 1);
    const int64_t block = together ? kRowsTogether : 1;
    const int64_t length = (count + kernels.lanes - 1) / kernels.lanes * kernels.lanes;
    const int64_t grain = std::max<int64_t>(block, kGrain / (count + 1) / block * block);
    parallel_for(row_count, grain, [&](int64_t begin, int64_t end) {
        const Scratch scratch(block * length * static_cast<int64_t>(sizeof(Acc)));
        std::array<RowPlace, kRowsTogether> places;
        for (int64_t first = begin; first < end; first += block) {
            const int64_t used = std::min(block, end - first);
            for (int64_t i = 0; i < used; ++i)
                places[static_cast<size_t>(i)] = place_of(rows, given, first + i);
            const auto row = [&](int64_t i) { return scratch.as<Acc>() + i * length; };
            std::array<int64_t, kRowsTogether> visible{};
            // Pieces of rows, so that what lies side by side in memory is read at one time.
            const int64_t piece = used == 1 ? count : 64;
            for (int64_t j = 0; j < count; j += piece) {
                for (int64_t i = 0; i < used; ++i) {
                    visible[static_cast<size_t>(i)] += kernels.read(
                        scores.as<T>() + places[static_cast<size_t>(i)].source + j * source_stride,
                        source_stride, std::min(piece, count - j), row(i) + j);
                }
            }
            for (int64_t i = 0; i < used; ++i) {
                const RowPlace& place = places[static_cast<size_t>(i)];
                const int64_t n = visible[static_cast<size_t>(i)];
                const double lambda =
                    given != nullptr
                        ? slipstick::attention::float_at(given->data, given->dtype, place.factor)
                        : factor(scale, place.head, n);
                kernels.weigh(row(i), count, static_cast<Acc>(lambda), n == 0);
            }
            for (int64_t j = 0; j < count; j += piece) {
                for (int64_t i = 0; i < used; ++i) {
                    kernels.write(
                        row(i) + j,
                        out.as<T>() + places[static_cast<size_t>(i)].target + j * target_stride,
                        target_stride, std::min(piece, count - j));
                }
            }
        }
    });
}

}  // namespace

void softmax(const ConstTensor& scores, const Scale& scale, int64_t axis, const Tensor& out) {
    dispatch<float, double, Float16, BFloat16>(scores.dtype, [&]<class T>() {
        softmax_rows<T>(scores, scale, static_cast<int>(axis < 0 ? axis + scores.rank : axis), out);
    });
}

}  // namespace slipstick::cpu::attention
