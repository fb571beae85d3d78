// What the microbenchmarks on a CUDA device share: arrays there, scratch memory, a clock of events
// in a flushed cache, and the peaks of the card that figures are shares of.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "core/cuda.cuh"
#include "core/result.hpp"

namespace bench {

using slipstick::Dtype;
using slipstick::cuda::check;

inline constexpr const char* kProgram = "slipstick_bench_cuda";

// Memory of the device, until the object goes.
class DeviceMemory {
public:
    explicit DeviceMemory(int64_t bytes) : bytes_(bytes) {
        check(cudaMalloc(&data_, static_cast<size_t>(bytes)), kProgram);
    }
    ~DeviceMemory() { cudaFree(data_); }
    DeviceMemory(const DeviceMemory&) = delete;
    DeviceMemory& operator=(const DeviceMemory&) = delete;

    void* data() const { return data_; }
    int64_t bytes() const { return bytes_; }

private:
    void* data_ = nullptr;
    int64_t bytes_;
};

// Numbers with the bits of `one` and random ones where `random` has them.
template <class Bits>
__global__ void fill(Bits* numbers, int64_t count, Bits one, Bits random) {
    const int64_t step = int64_t{gridDim.x} * blockDim.x;
    for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) {
        uint64_t hash = (static_cast<uint64_t>(i) + 1) * 0x9E3779B97F4A7C15u;
        hash ^= hash >> 29;
        numbers[i] = static_cast<Bits>(one | (static_cast<Bits>(hash) & random));
    }
}

// A compact row-major tensor on the device: floats from 1 to 2, integers of any pattern.
class DeviceTensor : public slipstick::Tensor {
public:
    DeviceTensor(Dtype type, std::vector<int64_t> sizes)
        : slipstick::Tensor{},
          sizes_(std::move(sizes)),
          steps_(sizes_.size()),
          memory_(make_steps() * slipstick::item_size(type)) {
        dtype = type;
        rank = static_cast<int>(sizes_.size());
        shape = sizes_.data();
        strides = steps_.data();
        data = memory_.data();
        switch (type) {
            case Dtype::kFloat32:
                fill_with<uint32_t>(0x3f800000, 0x7fffff);
                break;
            case Dtype::kFloat16:
                fill_with<uint16_t>(0x3c00, 0x3ff);
                break;
            case Dtype::kBFloat16:
                fill_with<uint16_t>(0x3f80, 0x7f);
                break;
            default:
                fill<uint8_t>
                    <<<1024, 256>>>(static_cast<uint8_t*>(memory_.data()), memory_.bytes(), 0, 255);
        }
        check(cudaGetLastError(), kProgram);
        check(cudaDeviceSynchronize(), kProgram);  // the clock's stream waits for no other
    }
    explicit DeviceTensor(const slipstick::ResultSpec& spec)
        : DeviceTensor(spec.dtype, {spec.shape.begin(), spec.shape.begin() + spec.rank}) {}

    int64_t bytes() const { return memory_.bytes(); }

private:
    int64_t make_steps() {
        int64_t step = 1;
        for (size_t axis = sizes_.size(); axis-- > 0; step *= sizes_[axis]) steps_[axis] = step;
        return step;
    }
    template <class Bits>
    void fill_with(Bits one, Bits random) {
        fill<Bits><<<1024, 256>>>(static_cast<Bits*>(memory_.data()), size(), one, random);
    }

    std::vector<int64_t> sizes_;
    std::vector<int64_t> steps_;
    DeviceMemory memory_;
};

// Scratch memory of one call at a time, handed out from one piece.
class Scratch : public slipstick::cuda::Memory {
public:
    void* allocate(int64_t bytes) override {
        constexpr int64_t kAlignment = 256;
        const int64_t begin = used_;
        used_ += slipstick::cuda::ceil_div(bytes, kAlignment) * kAlignment;
        if (used_ > memory_.bytes()) {
            throw slipstick::cuda::Error(std::string(kProgram) + ": scratch memory must hold " +
                                         std::to_string(used_) + " bytes");
        }
        return static_cast<char*>(memory_.data()) + begin;
    }
    void reset() { used_ = 0; }

private:
    DeviceMemory memory_{int64_t{4} << 30};
    int64_t used_ = 0;
};

// Times calls on a stream of its own. The flush before each of them writes 1 GiB, more than any L2
// holds, in a third of a millisecond and more: the host has prepared the call by then.
class Clock {
public:
    Clock() {
        check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), kProgram);
        check(cudaEventCreate(&start_), kProgram);
        check(cudaEventCreate(&stop_), kProgram);
    }
    ~Clock() {
        cudaEventDestroy(stop_);
        cudaEventDestroy(start_);
        cudaStreamDestroy(stream_);
    }
    Clock(const Clock&) = delete;
    Clock& operator=(const Clock&) = delete;

    slipstick::cuda::Context context() { return {0, stream_, &scratch_}; }

    // The median seconds of call(context).
    template <class Call>
    double seconds(const Call& call) {
        constexpr int kWarmUp = 3, kRounds = 25;
        std::vector<double> samples;
        for (int round = 0; round < kWarmUp + kRounds; ++round) {
            scratch_.reset();
            check(cudaMemsetAsync(flushed_.data(), round, static_cast<size_t>(flushed_.bytes()),
                                  stream_),
                  kProgram);
            check(cudaEventRecord(start_, stream_), kProgram);
            call(context());
            check(cudaEventRecord(stop_, stream_), kProgram);
            check(cudaEventSynchronize(stop_), kProgram);
            float milliseconds = 0;
            check(cudaEventElapsedTime(&milliseconds, start_, stop_), kProgram);
            if (round >= kWarmUp) samples.push_back(milliseconds / 1e3);
        }
        std::nth_element(samples.begin(), samples.begin() + kRounds / 2, samples.end());
        return samples[kRounds / 2];
    }

private:
    cudaStream_t stream_ = nullptr;
    cudaEvent_t start_ = nullptr, stop_ = nullptr;
    Scratch scratch_;
    DeviceMemory flushed_{int64_t{1} << 30};
};

// Chains of fused multiply-adds that wait for nothing but themselves.
inline constexpr int kChains = 16, kSteps = 1 << 14;

__global__ void ffma_chains(float* out, float factor) {
    float chain[kChains];
    for (int i = 0; i < kChains; ++i) chain[i] = static_cast<float>(threadIdx.x + i);
    for (int step = 0; step < kSteps; ++step) {
#pragma unroll
        for (int i = 0; i < kChains; ++i) chain[i] = fmaf(chain[i], factor, 1.0f);
    }
    float sum = 0;
    for (int i = 0; i < kChains; ++i) sum += chain[i];
    if (sum == 0) *out = sum;  // never: the chains grow towards 2
}

struct Peaks {
    double bytes;       // a second, read and written by a copy
    double operations;  // a second, two for each fused multiply-add
};

inline Peaks measure_peaks(Clock& clock) {
    constexpr int64_t kBytes = int64_t{1} << 30;
    const DeviceMemory source(kBytes), target(kBytes);
    const double copy = clock.seconds([&](const slipstick::cuda::Context& context) {
        check(cudaMemcpyAsync(target.data(), source.data(), kBytes, cudaMemcpyDeviceToDevice,
                              slipstick::cuda::stream_of(context)),
              kProgram);
    });
    const auto blocks =
        static_cast<unsigned>(slipstick::cuda::resident_blocks(clock.context(), 8, kProgram));
    constexpr unsigned kThreads = 256;
    const double chains = clock.seconds([&](const slipstick::cuda::Context& context) {
        ffma_chains<<<blocks, kThreads, 0, slipstick::cuda::stream_of(context)>>>(
            static_cast<float*>(target.data()), 0.5f);
        check(cudaGetLastError(), kProgram);
    });
    const double operations = 2.0 * kChains * kSteps * kThreads * blocks;
    return {2.0 * kBytes / copy, operations / chains};
}

// One row: microseconds, the rate, and its share of a peak.
inline void report(const std::string& name, double seconds, double work, const char* unit,
                   double peak) {
    std::printf("%-44s %11.1f us %10.1f G%s/s %6.1f %%\n", name.c_str(), seconds * 1e6,
                work / seconds / 1e9, unit, 100 * work / seconds / peak);
    std::fflush(stdout);
}

}  // namespace bench
