// What a CUDA call needs to know, without CUDA's headers: where it runs, in which order, and where
// its scratch memory comes from.
#pragma once

#include <cstdint>
#include <stdexcept>

namespace slipstick::cuda {

// A fault that CUDA reports. Becomes RuntimeError in Python.
class Error : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

// Scratch memory on a call's device, handed out in the order of its stream by whoever made the
// arrays: kernels that are launched on the stream afterwards may use it.
class Memory {
public:
    virtual ~Memory() = default;
    // Uninitialised, aligned to 256 bytes, and there until this object goes. Throws Error, with the
    // number of bytes, where the device has none.
    virtual void* allocate(int64_t bytes) = 0;

    template <class T>
    T* allocate_array(int64_t count) {
        return static_cast<T*>(allocate(count * int64_t{sizeof(T)}));
    }
};

struct Context {
    int device;
    void* stream;  // a cudaStream_t; every launch of the call goes there
    Memory* memory;
};

}  // namespace slipstick::cuda
