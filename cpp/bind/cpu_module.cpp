// _cpu: what this file holds is the list of what the module offers.
#include "bind/attention.hpp"
#include "bind/cpu_backend.hpp"
#include "bind/errors.hpp"
#include "bind/exceptions.hpp"
#include "bind/lsh.hpp"
#include "bind/lsh_index.hpp"
#include "bind/mitchell.hpp"
#include "bind/projection.hpp"
#include "bind/projection_cpu.hpp"
#include "core/isa.hpp"
#include "core/threads.hpp"

namespace py = pybind11;

// For threadpoolctl, which finds these by name in the loaded library.
extern "C" {
__attribute__((visibility("default"))) int slipstick_get_num_threads() {
    return slipstick::cpu::num_threads();
}
__attribute__((visibility("default"))) void slipstick_set_num_threads(int count) {
    slipstick::cpu::set_num_threads(
        count < 1 ? 1
                  : (count > slipstick::cpu::kMaxThreads ? slipstick::cpu::kMaxThreads : count));
}
}

namespace {

void bind_core(py::module_& module) {
    using namespace slipstick::cpu;
    module.attr("version") = SLIPSTICK_VERSION;
    module.attr("compiler") = SLIPSTICK_COMPILER;
    py::tuple levels(kLevelCount);
    for (size_t i = 0; i < kLevelNames.size(); ++i) levels[i] = kLevelNames[i];
    module.attr("levels") = levels;
    module.attr("best_isa") = name(best_level());
    module.attr("max_threads") = kMaxThreads;
    module.def("get_isa", [] { return name(active_level()); });
    module.def("set_isa", [](const std::string& level) { set_level(level); }, py::arg("level"));
    module.def("get_num_threads", &num_threads);
    module.def("set_num_threads", &set_num_threads, py::arg("count"));
}

}  // namespace

PYBIND11_MODULE(_cpu, module, py::mod_gil_not_used()) {
    slipstick::bind::register_exceptions();
    slipstick::cpu::init_level_from_environment();
    slipstick::cpu::init_threads_from_environment();
    bind_core(module);
    slipstick::bind::bind_shape(module);
    slipstick::bind::bind_attention_family<slipstick::bind::CpuBackend>(module);
    slipstick::bind::bind_mitchell<slipstick::bind::CpuBackend>(module);
    slipstick::bind::bind_errors(module);
    slipstick::bind::bind_products<slipstick::bind::CpuBackend>(module);
    slipstick::bind::bind_block<slipstick::bind::CpuBackend>(module);
    slipstick::bind::bind_transforms<slipstick::bind::CpuBackend>(module);
    slipstick::bind::bind_sparse_products<slipstick::bind::CpuBackend>(module);
    slipstick::bind::bind_projection_on_cpu(module);
    slipstick::bind::bind_simhash<slipstick::bind::CpuBackend>(module);
    slipstick::bind::bind_hamming<slipstick::bind::CpuBackend>(module);
    slipstick::bind::bind_lsh_index(module);
}
