// What the emulation of core/hopper.cuh is made of: barriers that count bytes, boxes of tensors,
// products of warpgroups.
#pragma once

#include <cstdint>

#include "emulator.hpp"

namespace cuda_emulator {

inline constexpr int kWarpgroup = 128;
inline constexpr int kElementBytes = 2;
inline constexpr int kBoxColumns = 64;

// Before a block: nothing is on its way. What is when it ends is a Fault.
void forget_hopper();
bool are_boxes_on_their_way();
void forget_products();
bool are_products_running();

// As a device counts: from no multiple of 1024 on.
uint32_t shared_address(const void* pointer);
// An element.
const unsigned char* shared_at(uint32_t address);

// --- Barriers ---

void init_barrier(const void* barrier, uint32_t arrivals);
void arrive(const void* barrier, uint32_t bytes);
void wait(const void* barrier, uint32_t parity, const char* file, int line);
// At barrier `number` of some warps; a thread that only arrives does not wait.
void arrive_threads(int number, int threads, bool waits, const char* file, int line);

// --- Boxes ---

struct alignas(64) TensorMap {
    const unsigned char* data;
    int64_t lengths[4];
    int64_t steps[3];
    int64_t box_rows;
};
struct Box {
    TensorMap map;
    void* target;
    const void* barrier;
    int64_t first[4];
};
void start_box(const Box& box);

// --- Products ---

// What one thread has of d += A B. A lies in shared memory, or in the registers of the four threads
// that share its rows.
struct Product {
    float* d;
    int blocks;
    bool add;
    bool from_registers;  // A; B is then across the depth
    uint32_t a[4][4];
    uint64_t a_matrix;
    uint64_t b_matrix;
    float (*widen)(uint16_t);
};
void begin_products(const void* registers, size_t bytes);
void start_product(Product product, const uint32_t* a, const char* file, int line);
void commit_products();
void wait_for_products(size_t pending);
// Refuses sums that may be running still.
void check_ended(const void* registers);

void set_registers(int count, bool takes, const char* file, int line);

}  // namespace cuda_emulator
