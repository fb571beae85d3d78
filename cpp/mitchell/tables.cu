// Methods on a device: their parameters, and the tables that some of them read.
#include "core/cuda.cuh"
#include "core/error.hpp"
#include "mitchell/cuda.hpp"

namespace slipstick::cuda::mitchell {
namespace {

// A stream of its own, which no other waits for.
class Stream {
public:
    explicit Stream(const char* function) {
        check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), function);
    }
    ~Stream() { cudaStreamDestroy(stream_); }
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;

    cudaStream_t get() const { return stream_; }

private:
    cudaStream_t stream_ = nullptr;
};

}  // namespace

DeviceTables::DeviceTables(std::shared_ptr<const slipstick::mitchell::Table> table)
    : table_(std::move(table)) {}

DeviceTables::~DeviceTables() {
    const RelaxedCapture relaxed;
    for (const Copy& copy : copies_) cudaFree(copy.entries);
}

const uint16_t* DeviceTables::on(const Context& context, const char* function) {
    const std::lock_guard lock(mutex_);
    for (const Copy& copy : copies_) {
        if (copy.device == context.device) return copy.entries;
    }
    const size_t bytes = table_->entries.size() * sizeof(uint16_t);
    const Stream stream(function);
    uint16_t* entries = nullptr;
    const cudaError_t allocated = cudaMalloc(&entries, bytes);
    if (allocated == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        throw Error(text(function, ": CUDA device ", context.device, " must have memory for ",
                         bytes, " bytes more, got: out of memory"));
    }
    check(allocated, function);
    copies_.push_back({context.device, entries});
    cudaError_t status = cudaMemcpyAsync(entries, table_->entries.data(), bytes,
                                         cudaMemcpyHostToDevice, stream.get());
    if (status == cudaSuccess) status = cudaStreamSynchronize(stream.get());
    if (status != cudaSuccess) {
        copies_.pop_back();
        cudaFree(entries);
        check(status, function);
    }
    return entries;
}

Method::Method(slipstick::mitchell::Method method) : description(std::move(method)) {
    if (description.table != nullptr) tables = std::make_shared<DeviceTables>(description.table);
}

Parameters device_parameters(const Context& context, const char* function, Dtype dtype,
                             const Method& method) {
    Parameters result = slipstick::mitchell::parameters(function, dtype, method.description);
    if (method.tables != nullptr) result.table = method.tables->on(context, function);
    return result;
}

}  // namespace slipstick::cuda::mitchell
