// CUDA's runtime on two emulated devices: one with the limits of sm_90, one with those of sm_80.
#include <cxxabi.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

#include "emulator.hpp"

namespace cuda_emulator {
namespace {

struct Device {
    int major;
    int minor;
    size_t shared_bytes_at_most;  // for a block that asks
    int multiprocessors;          // few, so that kernels' loops over the grid have work
};
constexpr Device kDeviceTable[kDevices] = {{9, 0, 227 * 1024, 3}, {8, 6, 99 * 1024, 2}};
constexpr size_t kSharedBytes = 48 * 1024;
constexpr unsigned kThreadsAtMost = 1024;

struct Graph {
    std::vector<std::pair<Launch, Thread>> launches;
};

// A launch holds the lock until it has run: one kernel at a time.
std::recursive_mutex mutex;
uint64_t next_seed = 1;
int failing_allocations = 0;
bool is_dry = false;
std::vector<Launch> launches;
std::map<cudaStream_t, int> streams;  // and their devices
uintptr_t next_stream = 0x1000;
std::map<const void*, size_t> shared_limits;
bool capturing = false;
cudaStream_t captured = nullptr;
std::vector<Graph> graphs;

thread_local int current_device = 0;
thread_local cudaError_t last_error = cudaSuccess;
thread_local cudaStreamCaptureMode capture_mode = cudaStreamCaptureModeGlobal;

cudaError_t answer(cudaError_t status) {
    if (status != cudaSuccess) last_error = status;
    return status;
}

bool is_device(int device) { return device >= 0 && device < kDevices; }

// The default streams belong to every device.
bool is_stream_of(cudaStream_t stream, int device) {
    const auto found = streams.find(stream);
    if (found != streams.end()) return found->second == device;
    return reinterpret_cast<uintptr_t>(stream) <= 2;
}

bool is_captured(cudaStream_t stream) { return capturing && stream == captured; }
bool forbids_allocation() { return capturing && capture_mode != cudaStreamCaptureModeRelaxed; }

bool fits(const Launch& launch) {
    const auto within = [](dim3 size, unsigned x, unsigned y, unsigned z) {
        return size.x >= 1 && size.y >= 1 && size.z >= 1 && size.x <= x && size.y <= y &&
               size.z <= z;
    };
    return within(launch.grid, 0x7fffffff, 65535, 65535) && within(launch.block, 1024, 1024, 64) &&
           uint64_t{launch.block.x} * launch.block.y * launch.block.z <= kThreadsAtMost;
}

void run(const Launch& launch, const Thread& thread) {
    catch_wrong_accesses();
    const Exposed exposed(launch.device);
    run_grid(launch, thread, next_seed++);
    check_surroundings(launch);
}

}  // namespace

std::string text(dim3 index) {
    return "(" + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " +
           std::to_string(index.z) + ")";
}

std::string text(const Launch& launch) {
    int status = 0;
    char* const name = abi::__cxa_demangle(launch.type, nullptr, nullptr, &status);
    std::string type = status == 0 ? name : launch.type;
    std::free(name);
    for (const char* noise : {"slipstick::", "cuda::", "mitchell::", "(anonymous namespace)::"}) {
        for (size_t at; (at = type.find(noise)) != std::string::npos;)
            type.erase(at, std::strlen(noise));
    }
    return std::string(launch.function) + "'s kernel " + type;
}

cudaError_t launch(const Launch& launch, Thread thread) {
    const std::lock_guard lock(mutex);
    if (launch.device != current_device) {
        throw Fault(text(launch) + ": launched while device " + std::to_string(current_device) +
                    " was current, not its own, " + std::to_string(launch.device));
    }
    if (!is_stream_of(launch.stream, launch.device)) return answer(cudaErrorInvalidResourceHandle);
    if (!fits(launch)) return answer(cudaErrorInvalidConfiguration);
    const auto limit = shared_limits.find(launch.kernel);
    if (launch.shared_bytes > (limit == shared_limits.end() ? kSharedBytes : limit->second))
        return answer(cudaErrorInvalidValue);
    launches.push_back(launch);
    if (is_captured(launch.stream)) {
        graphs.back().launches.emplace_back(launch, std::move(thread));
    } else if (!is_dry) {
        run(launch, thread);
    }
    return cudaSuccess;
}

void set_dry(bool dry) {
    const std::lock_guard lock(mutex);
    is_dry = dry;
}

void set_seed(uint64_t seed) {
    const std::lock_guard lock(mutex);
    next_seed = seed;
}

void fail_allocations(int count) {
    const std::lock_guard lock(mutex);
    failing_allocations = count;
}

std::vector<Launch> take_launches() {
    const std::lock_guard lock(mutex);
    return std::exchange(launches, {});
}

void begin_capture(cudaStream_t stream) {
    const std::lock_guard lock(mutex);
    if (capturing) throw Fault("one stream at a time can be captured");
    capturing = true;
    captured = stream;
    graphs.emplace_back();
}

int end_capture() {
    const std::lock_guard lock(mutex);
    capturing = false;
    return static_cast<int>(graphs.size()) - 1;
}

void replay(int graph) {
    const std::lock_guard lock(mutex);
    for (const auto& [launch, thread] : graphs.at(static_cast<size_t>(graph)).launches)
        run(launch, thread);
}

}  // namespace cuda_emulator

// --- The calls
// ------------------------------------------------------------------------------------------

using namespace cuda_emulator;

cudaError_t cudaGetDeviceCount(int* count) {
    *count = kDevices;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
    *device = current_device;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
    if (!is_device(device)) return answer(cudaErrorInvalidDevice);
    current_device = device;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
    if (!is_device(device)) return answer(cudaErrorInvalidDevice);
    *properties = {};
    std::snprintf(properties->name, sizeof(properties->name), "Emulated device %d", device);
    properties->totalGlobalMem = size_t{1} << 30;
    properties->major = kDeviceTable[device].major;
    properties->minor = kDeviceTable[device].minor;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
    if (!is_device(device)) return answer(cudaErrorInvalidDevice);
    const Device& limits = kDeviceTable[device];
    switch (attribute) {
        case cudaDevAttrMultiProcessorCount:
            *value = limits.multiprocessors;
            break;
        case cudaDevAttrComputeCapabilityMajor:
            *value = limits.major;
            break;
        case cudaDevAttrComputeCapabilityMinor:
            *value = limits.minor;
            break;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin:
            *value = static_cast<int>(limits.shared_bytes_at_most);
            break;
    }
    return cudaSuccess;
}

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
    const std::lock_guard lock(mutex);
    if (forbids_allocation()) return answer(cudaErrorStreamCaptureUnsupported);
    if (failing_allocations > 0) {
        --failing_allocations;
        return answer(cudaErrorMemoryAllocation);
    }
    *pointer = allocate(current_device, bytes);
    return *pointer == nullptr ? answer(cudaErrorMemoryAllocation) : cudaSuccess;
}

cudaError_t cudaFree(void* pointer) {
    const std::lock_guard lock(mutex);
    if (forbids_allocation()) return answer(cudaErrorStreamCaptureUnsupported);
    if (pointer == nullptr) return cudaSuccess;
    return release(pointer) ? cudaSuccess : answer(cudaErrorInvalidValue);
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
    const std::lock_guard lock(mutex);
    if (is_captured(stream)) return answer(cudaErrorStreamCaptureUnsupported);
    const bool to_device = kind != cudaMemcpyDeviceToHost;
    const bool from_device = kind != cudaMemcpyHostToDevice;
    const int target = device_of(to, bytes);
    const int source = device_of(from, bytes);
    if ((target >= 0) != to_device || (source >= 0) != from_device)
        return answer(cudaErrorInvalidValue);
    if (!is_stream_of(stream, current_device)) return answer(cudaErrorInvalidResourceHandle);
    const Exposed first(to_device ? target : source);
    const Exposed second(from_device ? source : target);
    std::memcpy(to, from, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
    const std::lock_guard lock(mutex);
    const int device = device_of(to, bytes);
    if (device < 0) return answer(cudaErrorInvalidValue);
    if (!is_stream_of(stream, device)) return answer(cudaErrorInvalidResourceHandle);
    const Launch launch{"cudaMemsetAsync", "void (*)()", nullptr, 1, 1, 0, device, stream};
    Thread set = [=] { std::memset(to, value, bytes); };
    if (is_captured(stream)) {
        graphs.back().launches.emplace_back(launch, std::move(set));
    } else if (!is_dry) {
        run(launch, set);
    }
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
    const std::lock_guard lock(mutex);
    *stream = reinterpret_cast<cudaStream_t>(next_stream += 0x10);
    streams[*stream] = current_device;
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    const std::lock_guard lock(mutex);
    return streams.erase(stream) == 1 ? cudaSuccess : answer(cudaErrorInvalidResourceHandle);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    const std::lock_guard lock(mutex);
    if (is_captured(stream)) return answer(cudaErrorStreamCaptureUnsupported);
    return cudaSuccess;
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
    std::swap(*mode, capture_mode);
    return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute, int value) {
    const std::lock_guard lock(mutex);
    const auto bytes = static_cast<size_t>(value);
    if (bytes > kDeviceTable[current_device].shared_bytes_at_most)
        return answer(cudaErrorInvalidValue);
    shared_limits[function] = bytes;
    return cudaSuccess;
}

cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }

const char* cudaGetErrorString(cudaError_t status) {
    switch (status) {
        case cudaSuccess:
            return "no error";
        case cudaErrorInvalidValue:
            return "invalid argument";
        case cudaErrorMemoryAllocation:
            return "out of memory";
        case cudaErrorInvalidConfiguration:
            return "invalid configuration argument";
        case cudaErrorInvalidDevice:
            return "invalid device ordinal";
        case cudaErrorInvalidResourceHandle:
            return "invalid resource handle";
        case cudaErrorStreamCaptureUnsupported:
            return "operation not permitted when stream is capturing";
    }
    return "unrecognized error code";
}
