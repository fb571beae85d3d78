// Rotations of vectors that are longer than a block's shared memory: passes over the device's
// memory, each of which takes up to twelve stages of neighbours or eight of numbers far apart.
#include <algorithm>

#include "core/launch.cuh"
#include "projection/rotation.cuh"

namespace slipstick::cuda::projection {
namespace {

using slipstick::projection::kRotateTag;

constexpr int kThreads = 256;
constexpr int kNearStages = 12;
constexpr int kTile = 1 << kNearStages;
// Down the columns: 32 neighbours a line of memory, up to 256 lines.
constexpr int kFarStages = 8;
constexpr int kColumnStages = 5;
constexpr int64_t kMostBlocks = int64_t{1} << 30;

// The numbers [begin, begin + span) of each vector, by tiles.
struct TilePass {
    int64_t begin;
    int64_t span;
    int near;     // stages
    bool staged;  // else the numbers are copied, turned over where there are signs
    bool has_signs;
    uint32_t round;
};

template <class Acc>
struct Buffer {
    Acc* numbers;
    int64_t stride;  // from vector to vector
};

template <class T>
__global__ void __launch_bounds__(kThreads)
    pass_tiles(const Vectors vectors, const TilePass pass, const Rotation rotation,
               const Buffer<AccOf<T>> buffer) {
    using Acc = AccOf<T>;
    __shared__ VectorPlaces places;
    __shared__ Acc numbers[padded(kTile)];
    __shared__ uint32_t signs[kTile / 32 + 4];
    const int64_t tiles = ceil_div(pass.span, kTile);
    for (int64_t at = blockIdx.x; at < tiles * vectors.count; at += gridDim.x) {
        const int64_t vector = at / tiles;
        const int64_t begin = pass.begin + at % tiles * kTile;
        const int64_t left = pass.begin + pass.span - begin;
        const int length = left < kTile ? static_cast<int>(left) : kTile;
        locate(vectors, vector, 1, places);
        // Signs come 128 at a time, from the one that holds `begin` on.
        const auto skipped = static_cast<int>(begin % 128);
        if (pass.has_signs) {
            sign_words(signs, skipped + length, rotation.seed, pass.round,
                       static_cast<uint64_t>(begin / 128), kRotateTag);
        }
        __syncthreads();
        load<T>(vectors, places.source, 1, begin, length, [&](int, int number, Acc value) {
            numbers[padded(number)] =
                pass.has_signs ? turned(value, signs, skipped + number) : value;
        });
        __syncthreads();
        if (pass.staged)
            transform(numbers, {1, 0, 0, length >> pass.near, pass.near}, rotation.scales);
        Acc* const target = buffer.numbers + vector * buffer.stride + begin;
        for (int i = static_cast<int>(threadIdx.x); i < length; i += kThreads)
            target[i] = numbers[padded(i)];
        __syncthreads();
    }
}

// Stages `first` ... `first` + `stages` - 1 of the lines of 2^log2n numbers that begin at number
// `begin` of each vector.
struct FarPass {
    int64_t vectors;
    int64_t begin;
    int lines;
    int log2n;
    int first;
    int stages;
};

template <class Acc>
__global__ void __launch_bounds__(kThreads)
    pass_columns(const FarPass pass, const Rotation rotation, const Buffer<Acc> buffer) {
    auto* const numbers = dynamic_shared<Acc>();
    const int log2tiles = pass.log2n - pass.stages - kColumnStages;
    const int64_t tiles = (int64_t{1} << log2tiles) * pass.lines;
    const int count = 1 << (pass.stages + kColumnStages);
    for (int64_t at = blockIdx.x; at < tiles * pass.vectors; at += gridDim.x) {
        const int64_t tile = at % tiles & ((int64_t{1} << log2tiles) - 1);
        const int64_t line = at % tiles >> log2tiles;
        const int64_t strips = int64_t{1} << (pass.first - kColumnStages);
        const int64_t start =
            (tile / strips << (pass.first + pass.stages)) + (tile % strips << kColumnStages);
        Acc* const data =
            buffer.numbers + at / tiles * buffer.stride + pass.begin + (line << pass.log2n) + start;
        const auto place = [&](int i) {
            return (int64_t{i >> kColumnStages} << pass.first) + (i & ((1 << kColumnStages) - 1));
        };
#pragma unroll 8
        for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads)
            numbers[padded(i)] = data[place(i)];
        __syncthreads();
        transform_from(numbers, {1, 0, 0, 1, pass.stages + kColumnStages}, kColumnStages,
                       pass.first, rotation.scales);
        for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads)
            data[place(i)] = numbers[padded(i)];
        __syncthreads();
    }
}

template <class Acc>
__global__ void __launch_bounds__(kThreads)
    mix_lines(int64_t vectors, const Rotation rotation, const Buffer<Acc> buffer) {
    const int64_t columns = int64_t{1} << rotation.log2n;
    for (int64_t at = int64_t{blockIdx.x} * kThreads + threadIdx.x; at < vectors * columns;
         at += int64_t{gridDim.x} * kThreads) {
        Acc* const column =
            buffer.numbers + (at >> rotation.log2n) * buffer.stride + (at & (columns - 1));
        mix_column<Acc>(rotation,
                        [&](int line) -> Acc& { return column[int64_t{line} << rotation.log2n]; });
    }
}

// Out of the buffer; T is the result's type.
template <class T, class Acc>
__global__ void __launch_bounds__(kThreads)
    write_result(const Vectors vectors, int64_t size, const Buffer<Acc> buffer) {
    __shared__ VectorPlaces places;
    const int64_t tiles = ceil_div(size, kTile);
    for (int64_t at = blockIdx.x; at < tiles * vectors.count; at += gridDim.x) {
        const int64_t vector = at / tiles;
        const int64_t begin = at % tiles * kTile;
        const int length = size - begin < kTile ? static_cast<int>(size - begin) : kTile;
        locate(vectors, vector, 1, places);
        __syncthreads();
        const Acc* const source = buffer.numbers + vector * buffer.stride + begin;
        store<T>(vectors, places.target, 1, begin, length,
                 [&](int, int number) { return source[number]; });
        __syncthreads();
    }
}

unsigned blocks_of(int64_t blocks) {
    return static_cast<unsigned>(std::clamp<int64_t>(blocks, 1, kMostBlocks));
}

// The rounds of one call.
template <class T>
class LongRotation {
public:
    using Acc = AccOf<T>;

    LongRotation(const Context& context, const char* function, const Vectors& vectors,
                 const Rotation& rotation)
        : context_(context), function_(function), vectors_(vectors), rotation_(rotation) {
        in_place_ = std::is_same_v<ResultOf<T>, Acc> && vectors.out_step == 1 && vectors.rank <= 1;
        if (in_place_) {
            buffer_ = {static_cast<Acc*>(vectors.out), vectors.count == 1 ? 0 : vectors.target[0]};
        } else {
            buffer_ = {context.memory->allocate_array<Acc>(vectors.count * rotation.size),
                       rotation.size};
        }
    }

    void run() {
        if (rotation_.inverse) {
            pass(0, rotation_.size, false, false, 0);
            in_buffer_ = true;
        }
        for (int64_t done = 0; done < rotation_.rounds; ++done) {
            const int64_t round = rotation_.inverse ? rotation_.rounds - 1 - done : done;
            if (!rotation_.inverse) orthogonal(rotation_.has_signs, round);
            if (rotation_.inverse) {
                orthogonal(false, 0);
                if (rotation_.has_signs) pass(0, rotation_.size, false, true, round);
            }
        }
        if (in_place_) return;
        const int64_t tiles = ceil_div(rotation_.size, kTile) * vectors_.count;
        launch(context_, function_, write_result<ResultOf<T>, Acc>, blocks_of(tiles), kThreads, 0,
               vectors_, rotation_.size, buffer_);
    }

private:
    // The first pass reads x, the others the buffer.
    void pass(int64_t begin, int64_t span, bool staged, bool has_signs, int64_t round) {
        const TilePass tiles{begin,  span,      std::min(rotation_.log2n, kNearStages),
                             staged, has_signs, static_cast<uint32_t>(round)};
        const unsigned blocks = blocks_of(ceil_div(span, kTile) * vectors_.count);
        if (!in_buffer_) {
            launch(context_, function_, pass_tiles<T>, blocks, kThreads, 0, vectors_, tiles,
                   rotation_, buffer_);
            return;
        }
        Vectors source{};
        source.count = vectors_.count;
        source.rank = 1;
        source.shape[0] = vectors_.count;
        source.source[0] = buffer_.stride;
        source.x = buffer_.numbers;
        source.x_dtype = DtypeOf<Acc>::value;
        source.x_step = 1;
        launch(context_, function_, pass_tiles<Acc>, blocks, kThreads, 0, source, tiles, rotation_,
               buffer_);
    }

    void far(int64_t begin, int lines) {
        for (int first = kNearStages; first < rotation_.log2n; first += kFarStages) {
            const int stages = std::min(kFarStages, rotation_.log2n - first);
            const FarPass pass{vectors_.count, begin, lines, rotation_.log2n, first, stages};
            const int64_t blocks = vectors_.count * lines
                                   << (rotation_.log2n - stages - kColumnStages);
            const auto bytes =
                static_cast<size_t>(padded(1 << (stages + kColumnStages))) * sizeof(Acc);
            launch(context_, function_, pass_columns<Acc>, blocks_of(blocks), kThreads, bytes, pass,
                   rotation_, buffer_);
        }
    }

    void orthogonal(bool has_signs, int64_t round) {
        const int64_t length = int64_t{1} << rotation_.log2n;
        if (rotation_.overlap == 0) {
            pass(0, rotation_.size, true, has_signs, round);
            in_buffer_ = true;
            far(0, rotation_.mixed);
            if (rotation_.mixed == 1) return;
            const int64_t blocks = ceil_div(vectors_.count * length, kThreads);
            launch(context_, function_, mix_lines<Acc>, blocks_of(blocks), kThreads, 0,
                   vectors_.count, rotation_, buffer_);
            return;
        }
        const int64_t first = rotation_.inverse ? rotation_.overlap : 0;
        pass(first, length, true, has_signs, round);
        // What the first of the two does not reach.
        if (!rotation_.inverse) pass(length, rotation_.overlap, false, has_signs, round);
        in_buffer_ = true;
        far(first, 1);
        const int64_t second = rotation_.overlap - first;
        pass(second, length, true, false, 0);
        far(second, 1);
    }

    const Context& context_;
    const char* function_;
    const Vectors& vectors_;
    const Rotation& rotation_;
    bool in_place_;
    bool in_buffer_ = false;
    Buffer<Acc> buffer_{};
};

}  // namespace

void rotate_long_vectors(const Context& context, const char* function, const Vectors& vectors,
                         const Rotation& rotation) {
    dispatch_numbers(vectors.x_dtype, [&]<class T>() {
        LongRotation<T>(context, function, vectors, rotation).run();
    });
}

}  // namespace slipstick::cuda::projection
