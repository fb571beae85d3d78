// Numbers that lie side by side, row by row, as a tensor: for callers whose arrays are vectors and
// spans. Unlike a tensor a view holds its shape; the numbers stay the caller's.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <ranges>
#include <span>
#include <type_traits>
#include <vector>

#include "core/error.hpp"
#include "core/result.hpp"
#include "core/tensor.hpp"

namespace slipstick {

// T is a type of DtypeOf; a view of const T can be read only.
template <class T>
class ArrayView {
public:
    using View = std::conditional_t<std::is_const_v<T>, ConstTensor, Tensor>;
    static constexpr Dtype kDtype = DtypeOf<std::remove_const_t<T>>::value;

    // Throws std::invalid_argument where the shape stands for another number of elements.
    ArrayView(std::span<T> elements, std::span<const int64_t> shape)
        : data_(elements.data()), shape_(shape.begin(), shape.end()), strides_(shape.size()) {
        if (shape.size() > size_t{kMaxRank}) {
            refuse_value("ArrayView", "`shape` must have at most ", kMaxRank, " axes, got ",
                         shape.size());
        }
        int64_t count = 1;
        bool fits = true;
        for (size_t axis = shape_.size(); axis-- > 0;) {
            strides_[axis] = count;
            fits &= shape_[axis] >= 0 && !__builtin_mul_overflow(count, shape_[axis], &count);
        }
        if (!fits || static_cast<uint64_t>(count) != elements.size()) {
            refuse_value("ArrayView", "`elements` must be as many as `shape` ",
                         shape_text(tensor()), " stands for, got ", elements.size());
        }
    }
    ArrayView(std::span<T> elements, std::initializer_list<int64_t> shape)
        : ArrayView(elements, std::span(shape.begin(), shape.size())) {}

    // The place for a result. Throws TypeError where that has another dtype.
    ArrayView(std::span<T> elements, const ResultSpec& result)
        : ArrayView(elements, std::span(result.shape).first(static_cast<size_t>(result.rank))) {
        if (result.dtype != kDtype) {
            refuse_type("ArrayView", "`elements` must be ", name(result.dtype),
                        " like the result, got ", name(kDtype));
        }
    }

    // What the functions take. It points to this view's shape, so the view must have a name.
    operator View() const& { return tensor(); }
    operator View() const&& = delete;

private:
    View tensor() const {
        const ConstTensor view{data_, kDtype, static_cast<int>(shape_.size()), shape_.data(),
                               strides_.data()};
        return View{view};
    }

    T* data_;
    std::vector<int64_t> shape_;
    std::vector<int64_t> strides_;
};

// ArrayView view(numbers, {2, 3}) for whatever is contiguous.
template <class Range, class Shape>
ArrayView(Range&&, Shape&&)
    -> ArrayView<std::remove_reference_t<std::ranges::range_reference_t<Range>>>;
template <class Range>
ArrayView(Range&&, std::initializer_list<int64_t>)
    -> ArrayView<std::remove_reference_t<std::ranges::range_reference_t<Range>>>;

}  // namespace slipstick
