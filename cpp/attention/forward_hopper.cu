// Forward on the tensor cores of compute capability 9.0, in the manner of FlashAttention-3 (Shah,
// Bikshandi, Zhang, Thakkar, Ramani and Dao 2024): one thread has the copy engine bring tiles of
// keys and values, two or three warpgroups compute 64 rows each.
//
// What a warpgroup does for a tile of 128 keys, in cycles of a multiprocessor whose tensor cores
// do 2048 multiply-adds and whose special functions 16 in one:
//   products     2 x 64 x 128 x dim / 2048   = 1024 at dim 128, 512 at 64
//   exponentials 64 x 128 / 16               =  512
//   instructions: a score costs its thread a maximum, a difference, a product, an exponential, a
//     sum and half a conversion, with statistics a clamp and a multiply-add more: about 430 a warp
//     and tile, or 560, four at a time.
// Its scores for tile j and its sums for tile j - 1 run on the tensor cores while it computes the
// exponentials of tile j; the warpgroups take turns at starting products, so that one's
// exponentials lie under the others' products. At dim 64 both take the same time: a third
// warpgroup fills the gaps.
#include "attention/device_kernels.cuh"
#include "attention/hopper_rows.cuh"
#include "attention/prepare.cuh"
#include "core/hopper.cuh"
#include "core/launch.cuh"
#include "core/ptx.cuh"

namespace slipstick::cuda::attention {
namespace {

constexpr int kWarpgroupRows = 64;
constexpr int kKeys = 128;  // of a tile
constexpr int kStages = 2;
constexpr int kRowBytes = 128;  // of a box
constexpr int kFirstTurn = 1;   // barriers: one a warpgroup that computes, and again as many
constexpr int kTileBytes = kKeys * kRowBytes;

// What depends on the columns of a row in shared memory, 64 or 128.
template <int dim>
struct Shape {
    static constexpr int kConsumers = dim == 64 ? 3 : 2;
    static constexpr int kRows = kConsumers * kWarpgroupRows;
    static constexpr int kThreads = (kConsumers + 1) * kWarpgroup;
    static constexpr int kPanels = dim / kBoxColumns;
    // 65536 registers: 128 x (24 + 2 x 240) and 128 x (32 + 3 x 160).
    static constexpr int kProducerRegisters = dim == 64 ? 32 : 24;
    static constexpr int kConsumerRegisters = dim == 64 ? 160 : 240;

    // A block's shared memory, from a multiple of 1024 on.
    struct Storage {
        unsigned char query[kPanels][kRows * kRowBytes];
        unsigned char key[kStages][kPanels][kTileBytes];
        unsigned char value[kStages][kPanels][kTileBytes];
        HopperRow rows[kRows];
        Work work;
        Barrier query_full;
        Barrier key_full[kStages];
        Barrier key_empty[kStages];
        Barrier value_full[kStages];
        Barrier value_empty[kStages];
    };
    static constexpr size_t kSharedBytes = sizeof(Storage) + 1024;

    __device__ static Storage& storage() {
        auto* const bytes = dynamic_shared<unsigned char>();
        return *reinterpret_cast<Storage*>(bytes + (1024 - shared_address(bytes) % 1024) % 1024);
    }
};

struct Maps {
    TensorMap query;
    TensorMap key;
    TensorMap value;
};

// The tiles of keys that rows of a block see, the last one first: under causal order it is the one
// that some rows see in part, and it has the keys that weigh most where near ones do.
struct Tiles {
    int last;
    int count;

    __device__ int first_key(int step) const { return (last - step) * kKeys; }
};

template <int rows>
__device__ __forceinline__ Tiles tiles_of_block(const Problem& problem, const Work& work) {
    const Sequence& sequence = work.sequence;
    const int64_t after = work.first_row + rows;
    const KeyRange seen =
        range_of_queries(problem, sequence, work.first_row,
                         (after < sequence.queries ? after : sequence.queries) - 1);
    const int first = static_cast<int>(seen.first / kKeys);
    const int end = static_cast<int>(ceil_div(seen.last, kKeys));
    return {end - 1, seen.first < seen.last ? end - first : 0};
}

// Where a step's data lie among the stages, and the parity of the phase that brings them.
struct Stage {
    int number;
    uint32_t parity;
};
__device__ __forceinline__ Stage stage_of(int step) {
    return {step % kStages, static_cast<uint32_t>(step / kStages % 2)};
}

// The producer's thread.
template <int dim>
__device__ __forceinline__ void produce(const Maps& maps, const Problem& problem, const Work& work,
                                        int64_t group, const Tiles& tiles) {
    using Shape = Shape<dim>;
    typename Shape::Storage& storage = Shape::storage();
    const Sequence& sequence = work.sequence;
    const auto head = static_cast<int>(work.kv_head);
    const auto kv_head = static_cast<int>(work.kv_head / group);
    const auto batch = static_cast<int>(sequence.batch);
    // An axis along which an operand is repeated has one place in its map.
    const auto bring = [&](unsigned char* target, int panel_bytes, const TensorMap& map,
                           const Operand& operand, Barrier* barrier, int64_t row,
                           int operand_head) {
        arrive_and_expect(barrier, static_cast<uint32_t>(Shape::kPanels * panel_bytes));
        for (int panel = 0; panel < Shape::kPanels; ++panel) {
            copy_box(target + panel * panel_bytes, map, barrier, panel * kBoxColumns,
                     static_cast<int>(row), operand.head == 0 ? 0 : operand_head,
                     operand.batch == 0 ? 0 : batch);
        }
    };
    bring(storage.query[0], Shape::kRows * kRowBytes, maps.query, problem.query,
          &storage.query_full, sequence.first_query + work.first_row, head);
    // In the order in which they are used: the values of a tile after the next one's keys.
    for (int step = 0; step <= tiles.count; ++step) {
        if (step < tiles.count) {
            const Stage stage = stage_of(step);
            wait(&storage.key_empty[stage.number], stage.parity ^ 1);
            bring(storage.key[stage.number][0], kTileBytes, maps.key, problem.key,
                  &storage.key_full[stage.number], sequence.first_key + tiles.first_key(step),
                  kv_head);
        }
        if (step > 0) {
            const Stage stage = stage_of(step - 1);
            wait(&storage.value_empty[stage.number], stage.parity ^ 1);
            bring(storage.value[stage.number][0], kTileBytes, maps.value, problem.value,
                  &storage.value_full[stage.number], sequence.first_key + tiles.first_key(step - 1),
                  kv_head);
        }
    }
}

// scores = the warpgroup's rows of Q times the keys of a stage.
template <class T, int dim>
__device__ __forceinline__ void multiply_keys(float (&scores)[kKeys / 8][4],
                                              const typename Shape<dim>::Storage& storage,
                                              int warpgroup, int stage) {
    const Matrix query =
        matrix_along_depth(storage.query[0] + warpgroup * kWarpgroupRows * kRowBytes);
    const Matrix key = matrix_along_depth(storage.key[stage][0]);
#pragma unroll
    for (int k = 0; k < dim / 16; ++k) {
        const uint32_t place = k % 4 * 32;  // of 16 columns in a row of a box
        multiply_matrices<T>(scores, advance(query, k / 4 * sizeof(storage.query[0]) + place),
                             advance(key, k / 4 * kTileBytes + place), k > 0);
    }
    commit_products();
}

// out += the weights times the values of a stage.
template <class T, int dim>
__device__ __forceinline__ void add_values(float (&out)[dim / 8][4],
                                           const uint32_t (&weights)[kKeys / 16][4],
                                           const typename Shape<dim>::Storage& storage, int stage) {
    const Matrix value = matrix_across_depth(storage.value[stage][0], kTileBytes);
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k)
        multiply_add_matrix<T>(out, weights[k], advance(value, k * 16 * kRowBytes));
    commit_products();
}

// Results of the first product lie as a left operand of the second has to.
template <class T>
__device__ __forceinline__ void pack_weights(uint32_t (&weights)[kKeys / 16][4],
                                             const float (&scores)[kKeys / 8][4]) {
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k) pack_a<T>(weights[k], scores[2 * k], scores[2 * k + 1]);
}

// One of the warpgroups that compute. Each warp frees a stage for itself.
template <class T, int dim, bool with_stats>
__device__ __forceinline__ void consume(const Problem& problem, int64_t group, const Tiles& tiles) {
    using Shape = Shape<dim>;
    typename Shape::Storage& storage = Shape::storage();
    // By a shuffle, so that the compiler knows it to be the warp's.
    const int warpgroup = shuffle(static_cast<int>(threadIdx.x) / kWarpgroup - 1, 0);
    const int warp = static_cast<int>(threadIdx.x) / kWarp % 4;
    const bool leads = threadIdx.x % kWarp == 0;
    const int first_row = warpgroup * kWarpgroupRows + 16 * warp;  // of the warp
    HopperRows<with_stats> rows(problem, storage.work, storage.rows + first_row,
                                static_cast<int>(storage.work.first_row) + first_row);
    float out[dim / 8][4] = {};

    if (tiles.count > 0) {
        float scores[kKeys / 8][4];
        uint32_t weights[kKeys / 16][4];
        // A warpgroup starts products when the one before it has started its own.
        constexpr int kTurn = 2 * kWarpgroup;
        const int next = (warpgroup + 1) % Shape::kConsumers;
        if (next == 0 && tiles.count > 1) arrive_threads(kFirstTurn + next, kTurn);

        wait(&storage.query_full, 0);
        wait(&storage.key_full[0], 0);
        begin_products(scores);
        multiply_keys<T, dim>(scores, storage, warpgroup, 0);
        wait_for_products<0>(scores);
        if (leads) arrive(&storage.key_empty[0]);
        float alpha[2];
        rows.weigh(scores, tiles.first_key(0), alpha);
        pack_weights<T>(weights, scores);

        for (int step = 1; step < tiles.count; ++step) {
            const Stage stage = stage_of(step);
            const Stage before = stage_of(step - 1);
            wait(&storage.key_full[stage.number], stage.parity);
            sync_threads(kFirstTurn + warpgroup, kTurn);
            begin_products(scores);
            multiply_keys<T, dim>(scores, storage, warpgroup, stage.number);
            wait(&storage.value_full[before.number], before.parity);
            begin_products(out, weights);
            add_values<T, dim>(out, weights, storage, before.number);
            if (next != 0 || step + 1 < tiles.count) arrive_threads(kFirstTurn + next, kTurn);
            wait_for_products<1>(scores);
            if (leads) arrive(&storage.key_empty[stage.number]);
            // Two warpgroups beside it keep the tensor cores busy; weights in use, weights to be
            // and exponents for the entropy are more than 160 registers hold.
            if constexpr (dim == 64 && with_stats) wait_for_products<0>(out, weights);
            rows.weigh(scores, tiles.first_key(step), alpha);
            // Waiting in both branches keeps the compiler from waiting before the exponentials. The
            // largest score of a row seldom changes after the first tiles.
            hold(scores);
            if (any_lane(alpha[0] != 1.0f || alpha[1] != 1.0f)) {
                wait_for_products<0>(out, weights);
#pragma unroll
                for (int b = 0; b < dim / 8; ++b) {
#pragma unroll
                    for (int e = 0; e < 4; ++e) out[b][e] *= alpha[e / 2];
                }
            } else {
                wait_for_products<0>(out, weights);
            }
            if (leads) arrive(&storage.value_empty[before.number]);
            pack_weights<T>(weights, scores);
        }

        const Stage stage = stage_of(tiles.count - 1);
        wait(&storage.value_full[stage.number], stage.parity);
        begin_products(out, weights);
        add_values<T, dim>(out, weights, storage, stage.number);
        wait_for_products<0>(out);
    }
    // The queries are not needed any more, by no warp of the warpgroup.
    sync_threads(kFirstTurn + Shape::kConsumers + warpgroup, kWarpgroup);
    rows.template store<T>(out, storage.query, first_row, group);
}

// `problem` has as many key heads as heads; `group` of them share the operands' key head.
template <class T, int dim, bool with_stats>
__global__ void __launch_bounds__(Shape<dim>::kThreads, 1)
    attend(const __grid_constant__ Maps maps, const __grid_constant__ Problem problem,
           int64_t group) {
    using Shape = Shape<dim>;
    const Work work = work_of(problem, Shape::kRows, blockIdx.x);
    if (work.none) return;
    const Tiles tiles = tiles_of_block<Shape::kRows>(problem, work);
    if (threadIdx.x == 0) {
        typename Shape::Storage& storage = Shape::storage();
        constexpr int kWarps = 4 * Shape::kConsumers;
        storage.work = work;
        init_barrier(&storage.query_full, 1);
        for (int stage = 0; stage < kStages; ++stage) {
            init_barrier(&storage.key_full[stage], 1);
            init_barrier(&storage.value_full[stage], 1);
            init_barrier(&storage.key_empty[stage], kWarps);
            init_barrier(&storage.value_empty[stage], kWarps);
        }
        publish_barriers();
    }
    __syncthreads();
    if (threadIdx.x < kWarpgroup) {
        release_registers<Shape::kProducerRegisters>();
        if (threadIdx.x == 0 && tiles.count > 0) produce<dim>(maps, problem, work, group, tiles);
    } else {
        take_registers<Shape::kConsumerRegisters>();
        consume<T, dim, with_stats>(problem, group, tiles);
    }
}

// A map's view of an operand. Heads and batches that it repeats have one place there.
TensorShape shape_of(const Problem& problem, const Operand& operand, int64_t heads, int64_t rows,
                     int columns, int box_rows) {
    const int64_t batches = problem.is_packed() ? 1 : problem.sequences;
    const int64_t bytes = item_size(problem.dtype);
    TensorShape shape{operand.data, problem.dtype, {columns, rows, heads, batches}, {}, box_rows};
    const int64_t steps[] = {operand.row, operand.head, operand.batch};
    int64_t packed = columns * bytes;  // the step of an axis of one place
    for (int axis = 0; axis < 3; ++axis) {
        int64_t& length = shape.lengths[axis + 1];
        if (axis > 0 && steps[axis] == 0) length = 1;
        shape.steps[axis] = length == 1 ? packed : steps[axis] * bytes;
        packed = shape.steps[axis] * length;
    }
    return shape;
}

struct Shapes {
    TensorShape query;
    TensorShape key;
    TensorShape value;
};
Shapes shapes_of(const Problem& problem, int query_rows) {
    return {
        shape_of(problem, problem.query, problem.heads, problem.queries, problem.dim, query_rows),
        shape_of(problem, problem.key, problem.kv_heads, problem.keys, problem.dim, kKeys),
        shape_of(problem, problem.value, problem.kv_heads, problem.keys, problem.dim_v, kKeys)};
}

template <class T, int dim, bool with_stats>
void launch_attend(const Context& context, const Problem& problem) {
    using Shape = Shape<dim>;
    const Shapes shapes = shapes_of(problem, Shape::kRows);
    const char* const function = problem.function;
    const Maps maps{make_tensor_map(shapes.query, function), make_tensor_map(shapes.key, function),
                    make_tensor_map(shapes.value, function)};
    Problem per_head = problem;
    per_head.kv_heads = problem.heads;
    per_head.group = 1;
    per_head = prepare_tiles(context, per_head, Shape::kRows);
    const auto blocks = static_cast<unsigned>(tiles_of(per_head, Shape::kRows));
    launch(context, function, &attend<T, dim, with_stats>, dim3(blocks), dim3(Shape::kThreads),
           Shape::kSharedBytes, maps, per_head, problem.group);
}

template <class T, int dim>
void launch_attend(const Context& context, const Problem& problem) {
    if (problem.has_stats()) return launch_attend<T, dim, true>(context, problem);
    launch_attend<T, dim, false>(context, problem);
}

template <class T>
void launch_attend(const Context& context, const Problem& problem) {
    if (problem.dim <= 64 && problem.dim_v <= 64) return launch_attend<T, 64>(context, problem);
    launch_attend<T, 128>(context, problem);
}

bool is_hopper(const Context& context, const char* function) {
    return has_hopper_kernel(
        device_attribute(context, cudaDevAttrComputeCapabilityMajor, function),
        device_attribute(context, cudaDevAttrComputeCapabilityMinor, function));
}

}  // namespace

bool has_hopper_kernel(int major, int minor) { return major == 9 && minor == 0; }

bool hopper_serves(const Context& context, const Problem& problem) {
    constexpr int64_t kMostBlocks = (int64_t{1} << 31) - 1;
    const auto fits = [](int columns) {
        return columns >= 8 && columns <= 128 && columns % 8 == 0;
    };
    if (problem.dtype != Dtype::kFloat16 && problem.dtype != Dtype::kBFloat16) return false;
    if (problem.has_mask() || problem.softcap != 0 || problem.keys == 0) return false;
    if (!fits(problem.dim) || !fits(problem.dim_v) || !has_aligned_rows(problem.out, problem.dim_v))
        return false;
    if (problem.query.column != 1 || problem.key.column != 1 || problem.value.column != 1)
        return false;
    const Shapes shapes = shapes_of(problem, kWarpgroupRows);
    if (!fits_tensor_map(shapes.query) || !fits_tensor_map(shapes.key) ||
        !fits_tensor_map(shapes.value))
        return false;
    const int64_t blocks = (ceil_div(problem.queries, kWarpgroupRows) + 1) * problem.heads;
    if (blocks > kMostBlocks / problem.sequences) return false;
    return is_hopper(context, problem.function);
}

void forward_hopper(const Context& context, const Problem& problem) {
    if (problem.dtype == Dtype::kFloat16) {
        launch_attend<Float16>(context, problem);
    } else {
        launch_attend<BFloat16>(context, problem);
    }
}

}  // namespace slipstick::cuda::attention
