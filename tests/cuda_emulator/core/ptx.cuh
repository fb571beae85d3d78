// Stands in for cpp/core/ptx.cuh: the lanes of a warp meet and exchange what they hold. Copies
// arrive when they are waited for, so that who does not wait reads what was there before.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "core/dtype.hpp"
#include "emulator.hpp"

// Where the instruction stands, for messages.
#define SLIPSTICK_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

namespace slipstick::cuda {

inline constexpr int kWarp = 32;

// What each lane of the warp gave, once all have.
template <class T>
const T* exchange(const T& value, const char* file, int line) {
    return static_cast<const T*>(cuda_emulator::exchange(kWarp, &value, sizeof(T), file, line));
}

inline int lane_of_thread() { return static_cast<int>(threadIdx.x % kWarp); }

template <class T>
T shuffle_xor(T value, int mask, SLIPSTICK_SITE) {
    return exchange(value, file, line)[(lane_of_thread() ^ mask) % kWarp];
}
template <class T>
T shuffle(T value, int lane, SLIPSTICK_SITE) {
    return exchange(value, file, line)[lane % kWarp];
}
inline bool any_lane(bool predicate, SLIPSTICK_SITE) {
    const bool* const all = exchange(predicate, file, line);
    bool any = false;
    for (int lane = 0; lane < kWarp; ++lane) any |= all[lane];
    return any;
}
inline void sync_warp(SLIPSTICK_SITE) { exchange('\0', file, line); }

inline void copy_async(void* target, const void* source, bool valid = true) {
    cuda_emulator::begin_copy(target, source, valid);
}
inline void commit_copies() { cuda_emulator::commit_copies(); }
template <int pending>
void wait_for_copies() {
    cuda_emulator::wait_for_copies(pending);
}

struct MatrixRow {
    uint16_t element[8];
};

inline const MatrixRow* matrix_row(const void* row) {
    cuda_emulator::matrix_row(row);
    return static_cast<const MatrixRow*>(row);
}

inline void load_matrices(uint32_t (&fragment)[4], const void* row, SLIPSTICK_SITE) {
    const MatrixRow* const rows = exchange(*matrix_row(row), file, line);
    const int lane = lane_of_thread();
    for (int matrix = 0; matrix < 4; ++matrix)
        std::memcpy(&fragment[matrix], &rows[8 * matrix + lane / 4].element[lane % 4 * 2], 4);
}
inline void load_matrices_transposed(uint32_t (&fragment)[4], const void* row, SLIPSTICK_SITE) {
    const MatrixRow* const rows = exchange(*matrix_row(row), file, line);
    const int lane = lane_of_thread();
    for (int matrix = 0; matrix < 4; ++matrix) {
        const MatrixRow* const two = rows + 8 * matrix + lane % 4 * 2;
        fragment[matrix] = two[0].element[lane / 4] | uint32_t{two[1].element[lane / 4]} << 16;
    }
}

template <class T>
float half_of(uint32_t pair, int index) {
    return to_float(T{static_cast<uint16_t>(pair >> (16 * index))});
}

// Products are exact, and a sum of sixteen with what is there rounds about once.
template <class T>
void multiply_add(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, SLIPSTICK_SITE) {
    struct Operands {
        uint32_t a[4];
        uint32_t b[2];
    };
    const Operands* const lanes =
        exchange(Operands{{a[0], a[1], a[2], a[3]}, {b0, b1}}, file, line);
    const int group = lane_of_thread() / 4;
    const int pair = lane_of_thread() % 4;
    for (int i = 0; i < 4; ++i) {
        const int lower = i / 2;  // row group + 8
        const int column = 2 * pair + i % 2;
        double sum = d[i];
        for (int k = 0; k < 16; ++k) {
            const uint32_t left = lanes[4 * group + k % 8 / 2].a[lower + k / 8 * 2];
            const uint32_t right = lanes[4 * column + k % 8 / 2].b[k / 8];
            sum += static_cast<double>(half_of<T>(left, k % 2)) * half_of<T>(right, k % 2);
        }
        d[i] = static_cast<float>(sum);
    }
}

template <class T>
uint32_t pack(float low, float high) {
    if constexpr (std::is_same_v<T, Float16>) {
        return to_float16(low).bits | uint32_t{to_float16(high).bits} << 16;
    } else {
        return to_bfloat16(low).bits | uint32_t{to_bfloat16(high).bits} << 16;
    }
}

inline float exp2_fast(float x) {
    const float result = std::exp2(x);
    return result < 0x1p-126f ? 0.0f : result;
}

}  // namespace slipstick::cuda

#undef SLIPSTICK_SITE
