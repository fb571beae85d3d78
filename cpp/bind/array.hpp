// Anybody's array as a tensor view, without a copy: NumPy directly, every other framework by
// DLPack.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <array>

#include "bind/dlpack.hpp"
#include "core/tensor.hpp"

namespace slipstick::bind {

namespace py = pybind11;

// Where the arrays of a call have to lie.
struct Place {
    dlpack::DeviceType type;
    int device;
    intptr_t stream;   // of a GPU, on which the call's work is ordered
    const char* like;  // the argument that decided it, or null
};
inline constexpr Place kOnCpu{dlpack::kCpu, 0, 0, nullptr};

// A view of `object`; valid while this and `object` live. Throws TypeError or std::invalid_argument
// in the name of `function` and `argument` for what is no array, lies elsewhere than `place`, has a
// dtype without a kernel anywhere in the package, or cannot be read in place. What lies on a GPU is
// not looked at.
class Array {
public:
    Array(const char* function, const char* argument, py::handle object,
          const Place& place = kOnCpu);
    Array(const Array&) = delete;
    Array& operator=(const Array&) = delete;

    const ConstTensor& tensor() const { return tensor_; }
    // The view for writing; throws std::invalid_argument where the array is read-only.
    Tensor writable() const;

private:
    void load_numpy(py::array array);
    bool load_exchange(py::handle object);
    bool load_capsule(py::handle object);
    void check_place(dlpack::Device device) const;
    void check_device_of(py::handle object) const;
    void load(const dlpack::DLTensor& source);

    const char* function_;
    const char* argument_;
    Place place_;
    ConstTensor tensor_{};
    bool read_only_ = false;
    py::object owner_;  // a DLPack capsule, or an array made for a NumPy scalar
    // Filled only where the source holds its strides in another form; left uninitialised otherwise.
    std::array<int64_t, kMaxRank> shape_;
    std::array<int64_t, kMaxRank> strides_;
};

// Where an option's array lies: on the host, or else on the device of the call's other arrays.
Place place_of_option(py::handle object, const Place& place);

}  // namespace slipstick::bind
