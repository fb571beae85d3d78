// A matrix product by the copy engine and a warpgroup, and the same with one mistake each.
#include <cstdint>

#include "core/hopper.cuh"
#include "core/launch.cuh"
#include "trials.hpp"

namespace cuda_emulator {
namespace {

namespace hopper = slipstick::cuda;  // also this namespace has some of its names
using slipstick::cuda::Barrier;
using slipstick::cuda::Context;
using slipstick::cuda::dynamic_shared;
using slipstick::cuda::launch;
using slipstick::cuda::Matrix;

enum class Mistake {
    kNone,
    kReadsBeforeArrival,
    kFreesTooEarly,
    kBringsTooEarly,
    kUsesSumsTooEarly,
    kWritesRunningSums,
    kLeavesProductsRunning,
    kDoesNotBegin,
    kExpectsOtherBytes,
    kDoesNotSwizzle,
    kMisplacesBoxes,
    kTakesTooMany,
    kArrivesTwice,
};

constexpr int kRows = 64;
constexpr int kColumns = 128;
constexpr int kSteps = 5;
constexpr int kStages = 2;
constexpr int kThreads = 2 * hopper::kWarpgroup;

struct Storage {
    unsigned char left[kStages][kRows * 128];
    unsigned char right[kStages][kColumns * 128];
    Barrier full[kStages];
    Barrier empty[kStages];
};

// to = left right^T for `left` of 64 rows and `right` of 128, each of 5 x 64 bfloat16.
template <Mistake mistake>
__global__ void product(const __grid_constant__ TensorMap left,
                        const __grid_constant__ TensorMap right, float* to) {
    auto* const bytes = dynamic_shared<unsigned char>();
    const uint32_t misplaced = mistake == Mistake::kMisplacesBoxes ? 128 : 0;
    auto& storage = *reinterpret_cast<Storage*>(
        bytes + (1024 - hopper::shared_address(bytes) % 1024) % 1024 + misplaced);
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < kStages; ++stage) {
            hopper::init_barrier(&storage.full[stage], 1);
            hopper::init_barrier(&storage.empty[stage], 4);
        }
        hopper::publish_barriers();
    }
    __syncthreads();

    if (threadIdx.x < hopper::kWarpgroup) {
        hopper::release_registers<40>();
        for (int step = 0; step < kSteps && threadIdx.x == 0; ++step) {
            const int stage = step % kStages;
            const auto parity = static_cast<uint32_t>(step / kStages % 2);
            if (mistake != Mistake::kBringsTooEarly)
                hopper::wait(&storage.empty[stage], parity ^ 1);
            const uint32_t more = mistake == Mistake::kExpectsOtherBytes ? 16 : 0;
            hopper::arrive_and_expect(&storage.full[stage], (kRows + kColumns) * 128 + more);
            hopper::copy_box(storage.left[stage], left, &storage.full[stage], 64 * step, 0, 0, 0);
            hopper::copy_box(storage.right[stage], right, &storage.full[stage], 64 * step, 0, 0, 0);
        }
        return;
    }

    hopper::take_registers<mistake == Mistake::kTakesTooMany ? 264 : 256>();
    float sums[kColumns / 8][4];
    for (int step = 0; step < kSteps; ++step) {
        const int stage = step % kStages;
        const auto parity = static_cast<uint32_t>(step / kStages % 2);
        if (mistake != Mistake::kReadsBeforeArrival) hopper::wait(&storage.full[stage], parity);
        if (mistake != Mistake::kDoesNotBegin) hopper::begin_products(sums);
        const uint64_t swizzled =
            mistake == Mistake::kDoesNotSwizzle ? ~(uint64_t{3} << 62) : ~0ull;
        const Matrix a = hopper::matrix_along_depth(storage.left[stage]) & swizzled;
        const Matrix b = hopper::matrix_along_depth(storage.right[stage]);
        for (uint32_t k = 0; k < 4; ++k)
            hopper::multiply_matrices<slipstick::BFloat16>(
                sums, hopper::advance(a, 32 * k), hopper::advance(b, 32 * k), step > 0 || k > 0);
        hopper::commit_products();
        if (mistake == Mistake::kWritesRunningSums) sums[0][0] = 0;
        const bool leads = threadIdx.x % 32 == 0;
        if (mistake == Mistake::kFreesTooEarly && leads) hopper::arrive(&storage.empty[stage]);
        if (mistake == Mistake::kLeavesProductsRunning && step == kSteps - 1) return;
        if (mistake == Mistake::kUsesSumsTooEarly && step == kSteps - 1) break;
        hopper::wait_for_products<0>(sums);
        if (mistake != Mistake::kFreesTooEarly && leads) hopper::arrive(&storage.empty[stage]);
        if (mistake == Mistake::kArrivesTwice && leads) hopper::arrive(&storage.empty[stage]);
    }
    const unsigned thread = threadIdx.x % hopper::kWarpgroup;
    const unsigned row = thread / 32 * 16 + thread % 32 / 4;
    for (unsigned block = 0; block < kColumns / 8; ++block) {
        for (unsigned i = 0; i < 4; ++i)
            to[(row + i / 2 * 8) * kColumns + 8 * block + thread % 4 * 2 + i % 2] = sums[block][i];
    }
    hopper::wait_for_products<0>(sums);
}

// Warps 0 and 1 pass a number on to warps 2 and 3, who wait for it and say that they have it.
__global__ void relay(const int* from, int* to) {
    int* const shared = dynamic_shared<int>();
    const unsigned thread = threadIdx.x;
    if (thread < 64) {
        shared[thread] = from[thread];
        hopper::arrive_threads(1, 128);
        hopper::sync_threads(2, 128);
        to[thread] = shared[64 + thread];
    } else {
        hopper::sync_threads(1, 128);
        shared[thread] = 2 * shared[thread - 64];
        hopper::arrive_threads(2, 128);
    }
}

}  // namespace

void run_hopper_trial(const std::string& name, const Context& context, const void* from, void* to) {
    if (name == "relay")
        launch(context, "trial", &relay, dim3(1), dim3(128), 512, static_cast<const int*>(from),
               static_cast<int*>(to));
    constexpr int64_t kDepth = 64 * kSteps;
    const auto map = [&](const void* data, int rows) {
        return hopper::make_tensor_map({data,
                                        slipstick::Dtype::kBFloat16,
                                        {kDepth, rows, 1, 1},
                                        {2 * kDepth, 2 * kDepth * rows, 2 * kDepth * rows},
                                        rows},
                                       "trial");
    };
    const auto run = [&](const char* kernel_name, auto kernel) {
        if (name != kernel_name) return;
        const TensorMap left = map(from, kRows);
        const TensorMap right = map(static_cast<const uint16_t*>(from) + kRows * kDepth, kColumns);
        launch(context, "trial", kernel, dim3(1), dim3(kThreads), sizeof(Storage) + 2048, left,
               right, static_cast<float*>(to));
    };
    run("product", &product<Mistake::kNone>);
    run("reads_before_arrival", &product<Mistake::kReadsBeforeArrival>);
    run("frees_too_early", &product<Mistake::kFreesTooEarly>);
    run("brings_too_early", &product<Mistake::kBringsTooEarly>);
    run("uses_sums_too_early", &product<Mistake::kUsesSumsTooEarly>);
    run("writes_running_sums", &product<Mistake::kWritesRunningSums>);
    run("leaves_products_running", &product<Mistake::kLeavesProductsRunning>);
    run("does_not_begin", &product<Mistake::kDoesNotBegin>);
    run("expects_other_bytes", &product<Mistake::kExpectsOtherBytes>);
    run("does_not_swizzle", &product<Mistake::kDoesNotSwizzle>);
    run("misplaces_boxes", &product<Mistake::kMisplacesBoxes>);
    run("takes_too_many", &product<Mistake::kTakesTooMany>);
    run("arrives_twice", &product<Mistake::kArrivesTwice>);
}

}  // namespace cuda_emulator
