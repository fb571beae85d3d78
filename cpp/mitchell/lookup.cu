#include "mitchell/lookup.cuh"

#include <algorithm>
#include <utility>

#include "mitchell/all_products.cuh"
#include "mitchell/lookup_gathered.cuh"
#include "mitchell/lookup_turned.cuh"

namespace slipstick::cuda::mitchell {
namespace {

using slipstick::mitchell::Kind;

// What a call knows of its device.
struct Device {
    int64_t multiprocessors;
    int shared_bytes;  // that a block may ask for

    Device(const Context& context, const char* function)
        : multiprocessors(resident_blocks(context, 1, function)),
          shared_bytes(
              device_attribute(context, cudaDevAttrMaxSharedMemoryPerBlockOptin, function)) {}
};

// --- Which kernel ---

struct Plan {
    int turned_threads;  // 0: gathered
    bool exchanged;      // out^T = right^T left^T
};

// Cycles of a multiprocessor for one k, by the counts of lookup_turned.cuh.
int64_t turned_cycles(int64_t rows, int64_t columns, int threads) {
    constexpr int64_t kTurning = 280;
    const int width = turned_columns(threads);
    return ceil_div(rows, kTurnedRows) * ceil_div(columns, width) * (width / 2 + kTurning);
}
int64_t gathered_cycles(int64_t rows, int64_t columns) { return ceil_div(rows * columns, 7); }

Plan make_plan(int64_t rows, int64_t columns) {
    Plan best{0, false};
    int64_t least = gathered_cycles(rows, columns);
    for (const bool exchanged : {false, true}) {
        for (const int threads : {kTurnedThreads, kTurnedThreads / 2}) {
            const int64_t cycles = exchanged ? turned_cycles(columns, rows, threads)
                                             : turned_cycles(rows, columns, threads);
            if (cycles < least) {
                least = cycles;
                best = {threads, exchanged};
            }
        }
    }
    return best;
}

LookupProblem exchanged(LookupProblem problem) {
    std::swap(problem.left, problem.right);
    for (int axis = 0; axis < problem.batches.rank; ++axis)
        std::swap(problem.batches.left[axis], problem.batches.right[axis]);
    return problem;
}

// --- The launches ---

struct Products {
    const uint16_t* table;
    uint32_t offset;
};

void clear(const Context& context, const char* function, const Device& device,
           const LookupProblem& p, int64_t outputs) {
    const int64_t blocks = std::min(ceil_div(outputs, kGatherThreads), 2 * device.multiprocessors);
    launch(context, function, clear_kernel, dim3(static_cast<unsigned>(blocks)), kGatherThreads, 0,
           p, outputs);
}

void run_turned(const Context& context, const char* function, const Device& device,
                const LookupProblem& p, int threads, const Products& products, int64_t outputs) {
    // So many chunks at least for a block: less would not pay for its copy of the table and for
    // sums that are added in memory.
    constexpr int64_t kLeastChunks = 8;
    const int columns = turned_columns(threads);
    TurnedWork work{};
    work.row_tiles = ceil_div(p.left.lines, kTurnedRows);
    work.column_tiles = ceil_div(p.right.lines, columns);
    work.chunks = ceil_div(p.depth, kChunk);
    work.units = p.batches.count * work.row_tiles * work.column_tiles * work.chunks;
    work.share =
        std::max(ceil_div(work.units, device.multiprocessors), std::min(work.chunks, kLeastChunks));
    if (work.share % work.chunks != 0) clear(context, function, device, p, outputs);
    const int bytes = TurnedLayout::table(columns);
    const bool shared = bytes + kTableBytes <= device.shared_bytes;
    launch(context, function, turned_kernel,
           dim3(static_cast<unsigned>(ceil_div(work.units, work.share))),
           dim3(static_cast<unsigned>(threads)),
           static_cast<size_t>(bytes + (shared ? kTableBytes : 0)), p, work, products.table, shared,
           products.offset);
}

void run_gathered(const Context& context, const char* function, const Device& device,
                  const LookupProblem& p, const Products& products, int64_t outputs) {
    constexpr int64_t kLeastDepth = 64;  // of a slice
    const int64_t threads = device.multiprocessors * kGatherThreads;
    GatherWork work{};
    work.outputs = outputs;
    const int64_t slices =
        std::clamp(threads / outputs, int64_t{1}, ceil_div(p.depth, kLeastDepth));
    work.slice_depth = ceil_div(ceil_div(p.depth, slices), 4) * 4;
    work.slices = ceil_div(p.depth, work.slice_depth);
    if (work.slices > 1) clear(context, function, device, p, outputs);
    const bool shared = kTableBytes <= device.shared_bytes;
    const int64_t blocks =
        std::min(ceil_div(outputs * work.slices, kGatherThreads), device.multiprocessors);
    launch(context, function, gathered_kernel, dim3(static_cast<unsigned>(blocks)), kGatherThreads,
           shared ? kTableBytes : 0, p, work, products.table, shared, products.offset);
}

}  // namespace

void multiply_by_lookup(const Context& context, const char* function, Dtype dtype, Kind kind,
                        const Parameters& parameters, const LookupProblem& problem) {
    const int64_t outputs = problem.batches.count * problem.left.lines * problem.right.lines;
    if (outputs == 0) return;
    const Device device(context, function);
    if (problem.depth == 0) return clear(context, function, device, problem, outputs);
    const Plan plan = make_plan(problem.left.lines, problem.right.lines);
    const Products products{
        all_products(context, function, dtype, kind, parameters, plan.exchanged),
        product_offset(dtype)};
    if (plan.turned_threads == 0)
        return run_gathered(context, function, device, problem, products, outputs);
    run_turned(context, function, device, plan.exchanged ? exchanged(problem) : problem,
               plan.turned_threads, products, outputs);
}

}  // namespace slipstick::cuda::mitchell
