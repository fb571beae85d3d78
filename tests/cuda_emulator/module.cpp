// _cuda_emulator: what tests do with the emulated devices beside calling slipstick. It lies in the
// library that _cuda is, with which it shares them.
#include <pybind11/functional.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bind/dlpack.hpp"
#include "emulator.hpp"
#include "trials.hpp"

namespace py = pybind11;
namespace dlpack = slipstick::bind::dlpack;

namespace cuda_emulator {
namespace {

cudaStream_t stream_of(intptr_t stream) { return reinterpret_cast<cudaStream_t>(stream); }

// What a capsule holds: the description, and the array that owns the memory.
struct Exported {
    dlpack::ManagedTensorVersioned managed;
    std::vector<int64_t> shape;
    std::vector<int64_t> strides;
    py::object owner;
};

void drop(dlpack::ManagedTensorVersioned* managed) {
    const py::gil_scoped_acquire gil;
    delete static_cast<Exported*>(managed->context);
}

dlpack::DataType type_of(const py::array& array) {
    const auto bits = static_cast<uint8_t>(8 * array.itemsize());
    switch (array.dtype().kind()) {
        case 'b':
            return {dlpack::kBool, bits, 1};
        case 'i':
            return {dlpack::kInt, bits, 1};
        case 'u':
            return {dlpack::kUInt, bits, 1};
        case 'f':
            return {dlpack::kFloat, bits, 1};
        case 'c':
            return {dlpack::kComplex, bits, 1};
        default:
            return {dlpack::kBfloat, bits, 1};
    }
}

py::object to_capsule(const py::array& view, int device, py::object owner) {
    auto* const exported = new Exported{};
    for (py::ssize_t axis = 0; axis < view.ndim(); ++axis) {
        exported->shape.push_back(view.shape(axis));
        exported->strides.push_back(view.strides(axis) / view.itemsize());
    }
    exported->owner = std::move(owner);
    exported->managed = {{1, 1},
                         exported,
                         &drop,
                         view.writeable() ? 0 : dlpack::kReadOnly,
                         {const_cast<void*>(view.data()),
                          {dlpack::kCuda, device},
                          static_cast<int32_t>(view.ndim()),
                          type_of(view),
                          exported->shape.data(),
                          exported->strides.data(),
                          0}};
    return py::reinterpret_steal<py::object>(
        PyCapsule_New(&exported->managed, "dltensor_versioned", [](PyObject* capsule) {
            if (!PyCapsule_IsValid(capsule, "dltensor_versioned")) return;  // taken over
            drop(static_cast<dlpack::ManagedTensorVersioned*>(
                PyCapsule_GetPointer(capsule, "dltensor_versioned")));
        }));
}

// An allocation as NumPy's bytes, which must not be looked at but by copy(); None for no memory.
py::object allocate_bytes(int device, size_t bytes, bool reserve) {
    void* const memory = allocate(device, bytes, reserve);
    if (memory == nullptr) return py::none();
    const py::capsule owner(memory, [](void* pointer) { release(pointer); });
    return py::array_t<uint8_t>(static_cast<py::ssize_t>(bytes), static_cast<uint8_t*>(memory),
                                owner);
}

py::dict description(const Launch& launch) {
    const auto triple = [](dim3 size) { return py::make_tuple(size.x, size.y, size.z); };
    py::dict result;
    result["function"] = launch.function;
    result["kernel"] = text(launch);
    result["grid"] = triple(launch.grid);
    result["block"] = triple(launch.block);
    result["shared_bytes"] = launch.shared_bytes;
    result["device"] = launch.device;
    result["stream"] = reinterpret_cast<intptr_t>(launch.stream);
    return result;
}

}  // namespace
}  // namespace cuda_emulator

PYBIND11_MODULE(_cuda_emulator, module, py::mod_gil_not_used()) {
    using namespace cuda_emulator;
    module.attr("device_count") = kDevices;
#if defined(__SANITIZE_ADDRESS__)
    module.attr("has_address_sanitizer") = true;
#else
    module.attr("has_address_sanitizer") = false;
#endif
    module.def("allocate", &allocate_bytes, py::arg("device"), py::arg("bytes"),
               py::arg("reserve"));
    module.def("used_bytes", &used_bytes, py::arg("device"));
    module.def("to_capsule", &to_capsule, py::arg("view"), py::arg("device"), py::arg("owner"));
    // to[...] = from, where `device` is the device of one of them.
    module.def(
        "copy",
        [](int device, const py::array& to, const py::array& from) {
            const Exposed exposed(device);
            to.attr("__setitem__")(py::ellipsis(), from);
        },
        py::arg("device"), py::arg("to"), py::arg("source"));

    module.def("current_device", [] {
        int device = 0;
        cudaGetDevice(&device);
        return device;
    });
    module.def("set_current_device", [](int device) { cudaSetDevice(device); });
    module.def("create_stream", [] {
        cudaStream_t stream = nullptr;
        cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
        return reinterpret_cast<intptr_t>(stream);
    });
    module.def("destroy_stream", [](intptr_t stream) { cudaStreamDestroy(stream_of(stream)); });

    module.def("set_seed", &set_seed, py::arg("seed"));
    module.def("set_dry", &set_dry, py::arg("dry"));
    module.def("fail_allocations", &fail_allocations, py::arg("count"));
    module.def("take_launches", [] {
        py::list result;
        for (const Launch& launch : take_launches()) result.append(description(launch));
        return result;
    });
    module.def("begin_capture", [](intptr_t stream) { begin_capture(stream_of(stream)); });
    module.def("end_capture", &end_capture);
    module.def("replay", &replay, py::call_guard<py::gil_scoped_release>());

    using Triple = std::array<unsigned, 3>;
    module.def(
        "run_trial",
        [](const std::string& name, int device, intptr_t stream, intptr_t from, intptr_t to,
           int count, Triple grid, Triple block, size_t shared_bytes) {
            run_trial(name, device, stream, from, to, count, dim3(grid[0], grid[1], grid[2]),
                      dim3(block[0], block[1], block[2]), shared_bytes);
        },
        py::arg("name"), py::arg("device"), py::arg("stream"), py::arg("source"), py::arg("to"),
        py::arg("count"), py::arg("grid"), py::arg("block"), py::arg("shared_bytes"));
}
