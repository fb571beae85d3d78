// What the microbenchmarks share: arrays of random numbers, and a count of products per second.
#pragma once

#include <benchmark/benchmark.h>

#include <random>
#include <vector>

#include "core/result.hpp"

namespace bench {

// A compact row-major tensor that owns its memory, filled with numbers between 1 and 2 (integers: 1
// to 100).
class Buffer : public slipstick::Tensor {
public:
    explicit Buffer(const slipstick::ResultSpec& spec)
        : slipstick::Tensor{}, sizes_(spec.shape.begin(), spec.shape.begin() + spec.rank) {
        dtype = spec.dtype;
        rank = spec.rank;
        shape = sizes_.data();
        steps_.resize(sizes_.size());
        int64_t step = 1;
        for (size_t axis = sizes_.size(); axis-- > 0; step *= sizes_[axis]) steps_[axis] = step;
        strides = steps_.data();
        bytes_.resize(static_cast<size_t>(step * slipstick::item_size(dtype)));
        data = bytes_.data();
        fill();
    }
    Buffer(slipstick::Dtype type, std::vector<int64_t> sizes) : Buffer(make_spec(type, sizes)) {}
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;

private:
    static slipstick::ResultSpec make_spec(slipstick::Dtype type,
                                           const std::vector<int64_t>& sizes) {
        slipstick::ResultSpec spec{type};
        for (const int64_t size : sizes) spec.append(size);
        return spec;
    }

    void fill() {
        std::mt19937 generator(1);
        slipstick::dispatch<float, double, slipstick::Float16, slipstick::BFloat16, int8_t, int16_t,
                            int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t>(
            dtype, [&]<class T>() {
                for (int64_t i = 0; i < size(); ++i) {
                    const auto bits = static_cast<uint32_t>(generator());
                    const float value = slipstick::bits::as_float(0x3f800000u | (bits >> 9));
                    if constexpr (std::is_same_v<T, slipstick::Float16>) {
                        as<T>()[i] = slipstick::to_float16(value);
                    } else if constexpr (std::is_same_v<T, slipstick::BFloat16>) {
                        as<T>()[i] = slipstick::to_bfloat16(value);
                    } else if constexpr (std::is_integral_v<T>) {
                        as<T>()[i] = static_cast<T>(1 + bits % 100);
                    } else {
                        as<T>()[i] = value;
                    }
                }
            });
    }

    std::vector<int64_t> sizes_;
    std::vector<int64_t> steps_;
    std::vector<char> bytes_;
};

// Multiply-accumulates per second; a floating-point peak counts two operations for each.
inline void count_products(benchmark::State& state, int64_t products) {
    state.counters["MAC/s"] =
        benchmark::Counter(static_cast<double>(products) * static_cast<double>(state.iterations()),
                           benchmark::Counter::kIsRate);
}

}  // namespace bench
