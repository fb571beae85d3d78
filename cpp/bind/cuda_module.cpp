// _cuda: built where a CUDA compiler was found; imports without a driver, and then counts no
// devices.
#include <cuda_runtime_api.h>
#include <pybind11/stl.h>

#include <string>

#include "attention/cuda.hpp"
#include "bind/attention.hpp"
#include "bind/cuda_backend.hpp"
#include "bind/exceptions.hpp"
#include "bind/lsh.hpp"
#include "bind/mitchell.hpp"
#include "bind/projection.hpp"
#include "core/error.hpp"

namespace py = pybind11;

namespace {

int device_count() {
    int count = 0;
    // Without a driver or a device this fails; the answer is then none.
    return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

cudaDeviceProp properties_of(const char* function, int device) {
    if (device < 0 || device >= device_count()) {
        slipstick::refuse_value(function, "`device` must be less than the number of CUDA devices, ",
                                device_count(), ", got ", device);
    }
    cudaDeviceProp properties{};
    const cudaError_t status = cudaGetDeviceProperties(&properties, device);
    if (status != cudaSuccess) {
        throw slipstick::cuda::Error(std::string(function) +
                                     ": CUDA reports: " + cudaGetErrorString(status));
    }
    return properties;
}

void bind_devices(py::module_& module) {
    module.attr("runtime_version") = CUDART_VERSION;
    module.def("device_count", &device_count);
    module.def(
        "device_name",
        [](int device) { return std::string(properties_of("device_name", device).name); },
        py::arg("device"));
    // In bytes.
    module.def(
        "device_memory",
        [](int device) { return properties_of("device_memory", device).totalGlobalMem; },
        py::arg("device"));
    module.def(
        "compute_capability",
        [](int device) {
            const cudaDeviceProp properties = properties_of("compute_capability", device);
            return py::make_tuple(properties.major, properties.minor);
        },
        py::arg("device"));
    // Which of attention's kernels the device gets, a line each.
    module.def(
        "attention_kernels",
        [](int device) {
            const cudaDeviceProp properties = properties_of("attention_kernels", device);
            return slipstick::cuda::attention::kernels(properties.major, properties.minor);
        },
        py::arg("device"));
}

}  // namespace

PYBIND11_MODULE(_cuda, module, py::mod_gil_not_used()) {
    slipstick::bind::register_exceptions();
    bind_devices(module);
    slipstick::bind::bind_attention_family<slipstick::bind::CudaBackend>(module);
    slipstick::bind::bind_mitchell<slipstick::bind::CudaBackend>(module);
    slipstick::bind::bind_products<slipstick::bind::CudaBackend>(module);
    slipstick::bind::bind_simhash<slipstick::bind::CudaBackend>(module);
    slipstick::bind::bind_block<slipstick::bind::CudaBackend>(module);
    slipstick::bind::bind_hamming<slipstick::bind::CudaBackend>(module);
    slipstick::bind::bind_sparse_products<slipstick::bind::CudaBackend>(module);
    slipstick::bind::bind_transforms<slipstick::bind::CudaBackend>(module);
}
