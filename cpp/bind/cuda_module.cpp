// _cuda: built where a CUDA compiler was found; imports without a driver, and then counts no
// devices.
#include <cuda_runtime_api.h>
#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>

namespace py = pybind11;

namespace {

int device_count() {
    int count = 0;
    // Without a driver or a device this fails; the answer is then none.
    return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

std::string device_name(int device) {
    if (device < 0 || device >= device_count()) {
        throw std::invalid_argument(
            "device_name: `device` must be less than the number of CUDA devices, " +
            std::to_string(device_count()) + ", got " + std::to_string(device));
    }
    cudaDeviceProp properties{};
    const cudaError_t status = cudaGetDeviceProperties(&properties, device);
    if (status != cudaSuccess)
        throw std::runtime_error(std::string("device_name: ") + cudaGetErrorString(status));
    return properties.name;
}

}  // namespace

PYBIND11_MODULE(_cuda, module, py::mod_gil_not_used()) {
    module.attr("runtime_version") = CUDART_VERSION;
    module.def("device_count", &device_count);
    module.def("device_name", &device_name, py::arg("device"));
}
