// What every CUDA source uses of the runtime: checked calls, the call's device, its size, and
// vector loads.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <string>

#include "core/cuda.hpp"

namespace slipstick::cuda {

// `function` is the public function on whose behalf the call was made.
inline void check(cudaError_t status, const char* function) {
    if (status == cudaSuccess) return;
    cudaGetLastError();  // so that the next call does not report it again
    throw Error(std::string(function) + ": CUDA reports: " + cudaGetErrorString(status));
}

inline cudaStream_t stream_of(const Context& context) {
    return static_cast<cudaStream_t>(context.stream);
}

// While it lives, this thread may do what no graph can hold while one is captured: load a kernel
// that starts for the first time, allocate, wait for a stream of its own. Launches are captured as
// ever.
class RelaxedCapture {
public:
    RelaxedCapture() { cudaThreadExchangeStreamCaptureMode(&mode_); }
    ~RelaxedCapture() { cudaThreadExchangeStreamCaptureMode(&mode_); }
    RelaxedCapture(const RelaxedCapture&) = delete;
    RelaxedCapture& operator=(const RelaxedCapture&) = delete;

private:
    cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

// Makes a call's device the current one, and puts the caller's back.
class DeviceGuard {
public:
    DeviceGuard(const Context& context, const char* function) {
        check(cudaGetDevice(&before_), function);
        if (before_ == context.device) return;
        check(cudaSetDevice(context.device), function);
        changed_ = true;
    }
    ~DeviceGuard() {
        if (changed_) cudaSetDevice(before_);
    }
    DeviceGuard(const DeviceGuard&) = delete;
    DeviceGuard& operator=(const DeviceGuard&) = delete;

private:
    int before_ = 0;
    bool changed_ = false;
    RelaxedCapture relaxed_;
};

inline int device_attribute(const Context& context, cudaDeviceAttr attribute,
                            const char* function) {
    int value = 0;
    check(cudaDeviceGetAttribute(&value, attribute, context.device), function);
    return value;
}

// How many blocks fill the device, at so many on each multiprocessor.
inline int64_t resident_blocks(const Context& context, int per_multiprocessor,
                               const char* function) {
    return int64_t{device_attribute(context, cudaDevAttrMultiProcessorCount, function)} *
           per_multiprocessor;
}

constexpr int64_t ceil_div(int64_t value, int64_t divisor) {
    return (value + divisor - 1) / divisor;
}

// `count` elements that lie side by side, moved as one piece of memory of at most 16 bytes.
template <class T, int count>
struct alignas(sizeof(T) * count) Pack {
    static_assert(sizeof(T) * count <= 16);
    T element[count];
};

}  // namespace slipstick::cuda
