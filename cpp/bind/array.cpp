#include "bind/array.hpp"

#include <atomic>
#include <optional>
#include <string>
#include <string_view>

#include "core/error.hpp"

namespace slipstick::bind {
namespace {

std::string type_name(py::handle object) { return Py_TYPE(object.ptr())->tp_name; }

// NumPy's type numbers are part of its ABI.
std::optional<Dtype> numpy_dtype(const py::dtype& dtype) {
    const auto sized = [&](Dtype two, Dtype four, Dtype eight) -> std::optional<Dtype> {
        switch (dtype.itemsize()) {
            case 2:
                return two;
            case 4:
                return four;
            case 8:
                return eight;
            default:
                return std::nullopt;
        }
    };
    switch (dtype.num()) {
        case 0:
            return Dtype::kBool;
        case 1:
            return Dtype::kInt8;
        case 2:
            return Dtype::kUInt8;
        case 3:
        case 5:
        case 7:
        case 9:
            return sized(Dtype::kInt16, Dtype::kInt32, Dtype::kInt64);
        case 4:
        case 6:
        case 8:
        case 10:
            return sized(Dtype::kUInt16, Dtype::kUInt32, Dtype::kUInt64);
        case 11:
        case 12:
        case 23:
            return sized(Dtype::kFloat16, Dtype::kFloat32, Dtype::kFloat64);
        default:
            break;
    }
    // ml_dtypes registers its types at run time: known by name only, and then by the number that
    // NumPy gave it. The name costs 2 us.
    static std::atomic<int> bfloat16_number = -1;
    if (dtype.num() == bfloat16_number) return Dtype::kBFloat16;
    if (dtype.itemsize() == 2 && py::str(dtype).cast<std::string>() == "bfloat16") {
        bfloat16_number = dtype.num();
        return Dtype::kBFloat16;
    }
    return std::nullopt;
}

std::optional<Dtype> dlpack_dtype(dlpack::DataType type) {
    if (type.lanes != 1) return std::nullopt;
    const auto pick = [&](Dtype one, Dtype two, Dtype four, Dtype eight) -> std::optional<Dtype> {
        switch (type.bits) {
            case 8:
                return one;
            case 16:
                return two;
            case 32:
                return four;
            case 64:
                return eight;
            default:
                return std::nullopt;
        }
    };
    switch (type.code) {
        case dlpack::kInt:
            return pick(Dtype::kInt8, Dtype::kInt16, Dtype::kInt32, Dtype::kInt64);
        case dlpack::kUInt:
            return pick(Dtype::kUInt8, Dtype::kUInt16, Dtype::kUInt32, Dtype::kUInt64);
        case dlpack::kFloat:
            if (type.bits == 8) return std::nullopt;
            return pick(Dtype::kFloat16, Dtype::kFloat16, Dtype::kFloat32, Dtype::kFloat64);
        case dlpack::kBfloat:
            return type.bits == 16 ? std::optional(Dtype::kBFloat16) : std::nullopt;
        case dlpack::kBool:
            return type.bits == 8 ? std::optional(Dtype::kBool) : std::nullopt;
        default:
            return std::nullopt;
    }
}

// numpy.ndarray itself, not a subclass.
bool is_plain_array(py::handle object) {
    static const PyObject* const type =
        py::object(py::module_::import("numpy").attr("ndarray")).release().ptr();
    return reinterpret_cast<PyObject*>(Py_TYPE(object.ptr())) == type;
}

// Whether an attribute, or a method called without arguments, says yes; an object without it says
// no.
bool says(py::handle object, const char* name) {
    const auto value =
        py::reinterpret_steal<py::object>(PyObject_GetAttrString(object.ptr(), name));
    if (!value) {
        PyErr_Clear();
        return false;
    }
    if (PyBool_Check(value.ptr())) return value.ptr() == Py_True;
    const py::object answer = PyCallable_Check(value.ptr()) ? value() : value;
    return PyObject_IsTrue(answer.ptr()) == 1;
}

py::object dlpack_capsule(py::handle object, const Place& place) {
    const py::object method = object.attr("__dlpack__");
    py::dict options;
    // The exporter makes this stream wait for what it has under way. 0 would be ambiguous: the
    // default stream is 1.
    if (place.type != dlpack::kCpu) options["stream"] = place.stream == 0 ? 1 : place.stream;
    try {
        return method(py::arg("max_version") = py::make_tuple(1, 3), **options);
    } catch (py::error_already_set& error) {
        if (!error.matches(PyExc_TypeError)) throw;
        return method(**options);  // written before DLPack 1.0
    }
}

// Whether what the framework has under way comes before what is launched on the place's stream: on
// the same stream it does; else __dlpack__ is asked, which makes that stream wait.
bool is_ordered(const dlpack::ExchangeApi& api, const Place& place) {
    void* stream = nullptr;
    if (api.current_work_stream(place.type, place.device, &stream) != 0) {
        PyErr_Clear();
        return false;
    }
    return reinterpret_cast<intptr_t>(stream) == place.stream;
}

std::string text_of(dlpack::Device device) {
    if (device.type == dlpack::kCpu) return "the CPU";
    if (device.type == dlpack::kCuda) return text("CUDA device ", device.id);
    return text("DLPack device ", device.type);
}

}  // namespace

Array::Array(const char* function, const char* argument, py::handle object, const Place& place)
    : function_(function), argument_(argument), place_(place) {
    if (py::isinstance<py::array>(object)) {
        load_numpy(py::reinterpret_borrow<py::array>(object));
    } else if (!load_exchange(object) && !load_capsule(object)) {
        // NumPy's scalars are what its reductions return: taken as arrays without axes.
        const py::module_ numpy = py::module_::import("numpy");
        if (!py::isinstance(object, numpy.attr("generic"))) {
            refuse_type(function_, "`", argument_,
                        "` must be an array (NumPy, or one that offers DLPack), got ",
                        type_name(object));
        }
        owner_ = numpy.attr("asarray")(object);
        load_numpy(py::reinterpret_borrow<py::array>(owner_));
        read_only_ = true;  // a result in the copy would be lost
    }
    if (tensor_.data == nullptr && tensor_.size() > 0) {
        refuse_type(function_, "`", argument_, "` must hold its elements in memory, got a ",
                    type_name(object), " without data");
    }
    if (tensor_.data != nullptr && reinterpret_cast<uintptr_t>(tensor_.data) %
                                           static_cast<uintptr_t>(item_size(tensor_.dtype)) !=
                                       0) {
        refuse_value(
            function_, "`", argument_,
            "` must be aligned to its elements (copy it first), got a view at an odd address");
    }
}

Place place_of_option(py::handle object, const Place& place) {
    if (place.type == dlpack::kCpu || py::isinstance<py::array>(object)) return kOnCpu;
    if (!py::hasattr(object, "__dlpack_device__")) return kOnCpu;  // Array says what it is not
    const py::object answer = object.attr("__dlpack_device__")();
    const bool on_host = PyTuple_Check(answer.ptr()) && PyTuple_GET_SIZE(answer.ptr()) > 0 &&
                         py::int_(static_cast<int>(dlpack::kCpu)).equal(answer[py::int_(0)]);
    return on_host ? kOnCpu : place;
}

Tensor Array::writable() const {
    if (read_only_)
        refuse_value(function_, "`", argument_, "` must be writable, got a read-only array");
    return Tensor{tensor_};
}

void Array::check_place(dlpack::Device device) const {
    if (device.type == place_.type && (device.type == dlpack::kCpu || device.id == place_.device))
        return;
    const bool led = place_.like != nullptr && std::string_view(place_.like) != argument_;
    refuse_value(function_, "`", argument_, "` must be on ", text_of({place_.type, place_.device}),
                 led ? text(" like `", place_.like, "`") : "", ", got an array on ",
                 text_of(device));
}

void Array::check_device_of(py::handle object) const {
    if (!py::hasattr(object, "__dlpack_device__")) return;
    const py::object answer = object.attr("__dlpack_device__")();
    int32_t type = 0;
    int32_t id = 0;
    if (!PyTuple_Check(answer.ptr()) || PyArg_ParseTuple(answer.ptr(), "ii", &type, &id) == 0) {
        PyErr_Clear();
        refuse_type(function_, "`", argument_,
                    "` must return a type and a number from __dlpack_device__, got ",
                    py::repr(answer).cast<std::string>());
    }
    check_place({type, id});
}

void Array::load_numpy(py::array array) {
    check_place({dlpack::kCpu, 0});
    const py::dtype dtype = array.dtype();
    const std::optional<Dtype> known = numpy_dtype(dtype);
    if (!known || dtype.byteorder() == '>') {
        refuse_type(function_, "`", argument_,
                    "` must have a real numeric dtype in native byte order, got ",
                    py::str(dtype).cast<std::string>());
    }
    if (!is_plain_array(array) &&
        py::isinstance(array, py::module_::import("numpy.ma").attr("MaskedArray"))) {
        refuse_type(function_, "`", argument_,
                    "` must be an array without a mask of its own, got a MaskedArray");
    }
    const auto rank = static_cast<int>(array.ndim());
    const int64_t item = item_size(*known);
    for (int axis = 0; axis < rank; ++axis) {
        const int64_t bytes = array.strides()[axis];
        if (bytes % item != 0 && array.shape()[axis] > 1) {
            refuse_value(function_, "`", argument_,
                         "` must have strides that are multiples of its ", item,
                         "-byte elements (copy it first), got a stride of ", bytes, " bytes");
        }
        strides_[static_cast<size_t>(axis)] = bytes / item;
        shape_[static_cast<size_t>(axis)] = array.shape()[axis];
    }
    read_only_ = !array.writeable();
    tensor_ = {array.data(), *known, rank, shape_.data(), strides_.data()};
}

// The C table of DLPack 1.3: a few hundredths of the capsule's cost, and no checks, so they are
// made here.
bool Array::load_exchange(py::handle object) {
    const auto capsule = py::reinterpret_steal<py::object>(PyObject_GetAttrString(
        reinterpret_cast<PyObject*>(Py_TYPE(object.ptr())), "__dlpack_c_exchange_api__"));
    if (!capsule) {
        PyErr_Clear();
        return false;
    }
    const auto* api = static_cast<const dlpack::ExchangeApi*>(
        PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
    if (api == nullptr) throw py::error_already_set();
    if (api->version.major != 1) return false;
    if (place_.type != dlpack::kCpu && !is_ordered(*api, place_)) return false;
    if (says(object, "requires_grad") && says(py::module_::import("torch"), "is_grad_enabled")) {
        refuse_type(function_, "`", argument_,
                    "` must not require a gradient (call .detach() first), got one that does");
    }
    dlpack::DLTensor view{};
    bool dense = !says(object, "is_sparse") && !says(object, "is_neg");
    if (dense && api->tensor_from_py_object(object.ptr(), &view) != 0) {
        PyErr_Clear();  // a wrapper without memory of its own: vmap, functionalised or compressed
                        // tensors
        dense = false;
    }
    if (!dense) {
        refuse_type(function_, "`", argument_,
                    "` must be a dense array in memory, got a sparse, wrapped or lazily negated ",
                    type_name(object));
    }
    load(view);
    return true;
}

bool Array::load_capsule(py::handle object) {
    if (!py::hasattr(object, "__dlpack__")) return false;
    // Before the export: another device's array knows nothing of this stream.
    if (place_.type != dlpack::kCpu) check_device_of(object);
    try {
        owner_ = dlpack_capsule(object, place_);
    } catch (py::error_already_set& error) {
        // A deleted array, a traced one, one on a device that does not export.
        if (!error.matches(PyExc_Exception)) throw;
        check_device_of(object);
        const std::string reason = py::str(error.value()).cast<std::string>();
        refuse_value(function_, "`", argument_, "` must give its memory by __dlpack__, got a ",
                     type_name(object), " that says: ", reason.substr(0, reason.find('\n')));
    }
    if (PyCapsule_IsValid(owner_.ptr(), "dltensor_versioned")) {
        const auto* managed = static_cast<const dlpack::ManagedTensorVersioned*>(
            PyCapsule_GetPointer(owner_.ptr(), "dltensor_versioned"));
        read_only_ = (managed->flags & dlpack::kReadOnly) != 0;
        load(managed->tensor);
    } else if (PyCapsule_IsValid(owner_.ptr(), "dltensor")) {
        load(static_cast<const dlpack::ManagedTensor*>(
                 PyCapsule_GetPointer(owner_.ptr(), "dltensor"))
                 ->tensor);
    } else {
        refuse_type(function_, "`", argument_,
                    "` must return a DLPack capsule from __dlpack__, got ", type_name(owner_));
    }
    return true;
}

void Array::load(const dlpack::DLTensor& source) {
    check_place(source.device);
    const std::optional<Dtype> known = dlpack_dtype(source.dtype);
    if (!known) {
        refuse_type(function_, "`", argument_,
                    "` must have a real numeric dtype, got DLPack type code ",
                    static_cast<int>(source.dtype.code), " with ",
                    static_cast<int>(source.dtype.bits), " bits");
    }
    if (source.ndim > kMaxRank) {
        refuse_value(function_, "`", argument_, "` must have at most ", kMaxRank, " axes, got ",
                     source.ndim);
    }
    const char* data = source.data == nullptr
                           ? nullptr
                           : static_cast<const char*>(source.data) + source.byte_offset;
    tensor_ = {data, *known, source.ndim, source.shape, source.strides};
    if (source.strides == nullptr) {
        int64_t step = 1;
        for (int axis = source.ndim - 1; axis >= 0; --axis) {
            strides_[static_cast<size_t>(axis)] = step;
            step *= source.shape[axis];
        }
        tensor_.strides = strides_.data();
    }
}

}  // namespace slipstick::bind
