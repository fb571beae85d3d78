// The parts of the DLPack ABI (version 1.3) that reading an array needs.
// Source: the DLPack standard, https://dmlc.github.io/dlpack/latest/.
#pragma once

#include <cstdint>

namespace slipstick::bind::dlpack {

enum DeviceType : int32_t { kCpu = 1, kCuda = 2 };
enum TypeCode : uint8_t { kInt = 0, kUInt = 1, kFloat = 2, kBfloat = 4, kComplex = 5, kBool = 6 };

struct Device {
    int32_t type;
    int32_t id;
};

struct DataType {
    uint8_t code;
    uint8_t bits;
    uint16_t lanes;
};

struct DLTensor {
    void* data;
    Device device;
    int32_t ndim;
    DataType dtype;
    int64_t* shape;
    int64_t* strides;  // in elements; null for a compact row-major tensor in versions before 1.2
    uint64_t byte_offset;
};

struct Version {
    uint32_t major;
    uint32_t minor;
};

// In a capsule named "dltensor".
struct ManagedTensor {
    DLTensor tensor;
    void* context;
    void (*deleter)(ManagedTensor*);
};

// In a capsule named "dltensor_versioned".
struct ManagedTensorVersioned {
    Version version;
    void* context;
    void (*deleter)(ManagedTensorVersioned*);
    uint64_t flags;
    DLTensor tensor;
};
inline constexpr uint64_t kReadOnly = 1;

// The table of C functions in the capsule type(x).__dlpack_c_exchange_api__, named
// "dlpack_exchange_api".
struct ExchangeApi {
    Version version;
    ExchangeApi* previous;
    void* managed_tensor_allocator;
    void* managed_tensor_from_py_object;
    void* managed_tensor_to_py_object;
    // Fills in a view that lives as long as the object; no checks, no synchronisation. 0 on
    // success.
    int (*tensor_from_py_object)(void* object, DLTensor* out);
    // The framework's current stream on a device. 0 on success.
    int (*current_work_stream)(DeviceType type, int32_t device, void** out);
};

}  // namespace slipstick::bind::dlpack
