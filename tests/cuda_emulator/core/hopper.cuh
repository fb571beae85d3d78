// Stands in for cpp/core/hopper.cuh. What runs while threads go on is done as late as it can be, or
// at once, by chance: boxes arrive when they are started or when they are waited for, and products
// read shared memory when they are waited for. Until then their sums are NaNs.
#pragma once

#include <cstring>
#include <type_traits>

#include "core/cuda.cuh"
#include "core/dtype.hpp"
#include "core/hopper_layout.cuh"
#include "hopper.hpp"

#define SLIPSTICK_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

namespace slipstick::cuda {

inline constexpr int kWarpgroup = cuda_emulator::kWarpgroup;

inline uint32_t shared_address(const void* pointer) {
    return cuda_emulator::shared_address(pointer);
}

struct Barrier {
    uint64_t state;
};

inline void init_barrier(Barrier* barrier, uint32_t arrivals) {
    cuda_emulator::init_barrier(barrier, arrivals);
}
inline void publish_barriers() {}
inline void arrive(Barrier* barrier) { cuda_emulator::arrive(barrier, 0); }
inline void arrive_and_expect(Barrier* barrier, uint32_t bytes) {
    cuda_emulator::arrive(barrier, bytes);
}
inline void wait(Barrier* barrier, uint32_t parity, SLIPSTICK_SITE) {
    cuda_emulator::wait(barrier, parity, file, line);
}

inline void sync_threads(int number, int threads, SLIPSTICK_SITE) {
    cuda_emulator::arrive_threads(number, threads, true, file, line);
}
inline void arrive_threads(int number, int threads, SLIPSTICK_SITE) {
    cuda_emulator::arrive_threads(number, threads, false, file, line);
}

using TensorMap = cuda_emulator::TensorMap;

inline TensorMap make_tensor_map(const TensorShape& shape, const char* function) {
    if (!fits_tensor_map(shape) || shape.box_rows < 1 || shape.box_rows > 256 ||
        item_size(shape.dtype) != cuda_emulator::kElementBytes)
        throw Error(std::string(function) + ": the driver refuses a tensor map with error 1");
    TensorMap map{};
    map.data = static_cast<const unsigned char*>(shape.data);
    std::memcpy(map.lengths, shape.lengths, sizeof(map.lengths));
    std::memcpy(map.steps, shape.steps, sizeof(map.steps));
    map.box_rows = shape.box_rows;
    return map;
}

inline void prefetch_map(const TensorMap&) {}
inline void copy_box(void* target, const TensorMap& map, Barrier* barrier, int column, int row,
                     int third, int fourth) {
    cuda_emulator::start_box({map, target, barrier, {column, row, third, fourth}});
}

template <int count>
void release_registers(SLIPSTICK_SITE) {
    cuda_emulator::set_registers(count, false, file, line);
}
template <int count>
void take_registers(SLIPSTICK_SITE) {
    cuda_emulator::set_registers(count, true, file, line);
}

template <class Registers>
void hold(Registers&) {}
template <class... Registers>
void begin_products(Registers&... registers) {
    (cuda_emulator::begin_products(&registers, sizeof(registers)), ...);
}
inline void commit_products() { cuda_emulator::commit_products(); }
template <int pending, class... Registers>
void wait_for_products(Registers&... registers) {
    cuda_emulator::wait_for_products(pending);
    (cuda_emulator::check_ended(&registers), ...);
}

template <class T>
float widen(uint16_t bits) {
    return to_float(T{bits});
}

template <class T>
void multiply_matrices(float (&d)[16][4], Matrix a, Matrix b, bool add, SLIPSTICK_SITE) {
    cuda_emulator::start_product({&d[0][0], 16, add, false, {}, a, b, &widen<T>}, nullptr, file,
                                 line);
}
template <class T, int blocks>
void multiply_add_matrix(float (&d)[blocks][4], const uint32_t (&a)[4], Matrix b, SLIPSTICK_SITE) {
    static_assert(blocks == 16 || blocks == 8);
    cuda_emulator::start_product({&d[0][0], blocks, true, true, {}, 0, b, &widen<T>}, a, file,
                                 line);
}

}  // namespace slipstick::cuda

#undef SLIPSTICK_SITE
