// Few rows on tensor cores, float16 and bfloat16: 16 rows are a tile of m16n8k16, padded where
// there are fewer, since the products wait for memory in any case. At 128 columns a step of 16 keys
// is 32 products, 24 reads of fragments and some 150 other instructions of a warp for 8 KB of keys
// and values, which take a multiprocessor's share of the memory's rate 560 clocks to come.
#include "attention/few_rows.cuh"
#include "attention/mma_tile.cuh"

namespace slipstick::cuda::attention {
namespace {

constexpr float kLog2E = 1.44269504088896340736f;

template <class T_, int kDim_>
class MmaRows {
public:
    using T = T_;
    using Acc = float;
    struct Scratch {  // of a step: a number for each row and key
        float element[16][kStepKeys];
    };
    static constexpr int kDim = kDim_;
    static constexpr int kRows = 16;
    static constexpr int kWarps = 4;
    // 48, 64 and 64 KB of tiles a block, of which 40, 48 and 32 KB are on their way: every device
    // from 8.0 on has room for one block at least (99 KB). Registers allow three, two and two.
    static constexpr int kSlots = kDim == 64 ? 6 : kDim == 128 ? 4 : 2;
    static constexpr int kTile = kStepKeys * kDim;
    static constexpr int kQuery = kRows * kDim;
    using Shared = FewRowsShared<MmaRows>;

    __device__ __forceinline__ MmaRows(const Problem& problem, int rows, const Lines<T>& keys,
                                       const Lines<T>& values, Shared& shared)
        : problem_(problem), rows_(rows), keys_(keys), values_(values), shared_(shared) {}

    __device__ __forceinline__ void see(const Seen& seen) { seen_ = seen; }

    __device__ __forceinline__ void load_keys(T* tile, int key) const { load(tile, keys_, key); }
    __device__ __forceinline__ void load_values(T* tile, int key) const {
        load(tile, values_, key);
    }

    __device__ __forceinline__ void put_queries(const Work& work) {
        load_queries<kRows, kDim, kWarps, T>(problem_, work, rows_, [&](int r, int column) {
            return shared_.query + chunk_at<kDim>(r, column / kChunk) + column % kChunk;
        });
    }

    __device__ __forceinline__ void reset() {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            state_[i] = {-kInfinity<float>, 0, 0};
        }
#pragma unroll
        for (auto& block : out_)
            for (float& element : block) element = 0;
    }

    __device__ __forceinline__ void score(const T* tile, int key) {
        float scores[2][4] = {};
#pragma unroll
        for (int chunk = 0; chunk < kDim / kChunk; chunk += 2) {
            if (chunk * kChunk >= problem_.dim) break;
            uint32_t a[4];
            uint32_t b[4];
            load_a<kDim>(a, shared_.query, 0, chunk);
            load_b_transposed<kDim>(b, tile, 0, chunk);
            multiply_add<T>(scores[0], a, b[0], b[1]);
            multiply_add<T>(scores[1], a, b[2], b[3]);
        }
        const auto cap = static_cast<float>(problem_.softcap);
        const bool has_mask = problem_.has_mask();
        whole_ = key >= seen_.all_first && seen_.all_last - key >= kStepKeys && !has_mask;
        shown_ = 0;
        if (has_mask) put_biases(key);
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            float& s = scores[e / 4][e % 4];
            const RowInfo<float>& row = shared_.rows[lane() / 4 + e % 4 / 2 * 8];
            s *= row.factor;
            if (cap != 0) s = cap * std::tanh(s / cap);
            if (whole_) continue;
            const int j = e / 4 * 8 + lane() % 4 * 2 + e % 2;
            bool shown = key + j >= row.first && key + j < row.last;
            if (has_mask) {
                const float bias = scratch().element[lane() / 4 + e % 4 / 2 * 8][j];
                s += bias;
                shown &= bias != -kInfinity<float>;
            }
            if (!shown) s = -kInfinity<float>;
            shown_ |= static_cast<unsigned>(shown) << e;
        }
        weigh(scores);
    }

    __device__ __forceinline__ void add(T* tile, int) {
        // 0 times an infinite value is NaN: a row takes those of the keys that it sees.
        if (!whole_ && any_lane(has_infinite(tile))) take_infinite(tile);
        uint32_t a[4];
        pack_a<T>(a, weights_[0], weights_[1]);
#pragma unroll
        for (int chunk = 0; chunk < kDim / kChunk; chunk += 2) {
            if (chunk * kChunk >= problem_.dim_v) break;
            uint32_t b[4];
            load_b<kDim>(b, tile, 0, chunk);
            multiply_add<T>(out_[chunk], a, b[0], b[1]);
            multiply_add<T>(out_[chunk + 1], a, b[2], b[3]);
        }
    }

    __device__ __forceinline__ void put_state() {
        const int warp = static_cast<int>(threadIdx.x) / kWarp;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const int row = lane() / 4 + 8 * i;
            RowState<float> state = state_[i];
#pragma unroll
            for (int distance = 1; distance < 4; distance *= 2) {
                state.sum += shuffle_xor(state.sum, distance);
                state.moment += shuffle_xor(state.moment, distance);
            }
            if (lane() % 4 == 0) shared_.state[warp][row] = state;
#pragma unroll
            for (int block = 0; block < kDim / 8; ++block) {
                *reinterpret_cast<Pack<float, 2>*>(
                    shared_.ring[warp].out + out_at<kDim>(row, block * 8 + lane() % 4 * 2)) = {
                    out_[block][2 * i], out_[block][2 * i + 1]};
            }
        }
    }

private:
    __device__ __forceinline__ static int lane() { return static_cast<int>(threadIdx.x) % kWarp; }

    __device__ __forceinline__ void load(T* tile, const Lines<T>& lines, int key) const {
        load_lines<kDim, kDim>(lines, key, seen_, [&](int line, int column) {
            return tile + chunk_at<kDim>(line, column / kChunk);
        });
    }

    // The update of the specification's 4.3: scores become weights e^(s - m).
    __device__ __forceinline__ void weigh(const float (&scores)[2][4]) {
        float before[2];
        bool moved = false;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            before[i] = state_[i].maximum;
            float largest = -kInfinity<float>;
#pragma unroll
            for (int e = 0; e < 4; ++e) largest = larger(largest, scores[e / 2][2 * i + e % 2]);
#pragma unroll
            for (int distance = 1; distance < 4; distance *= 2)
                largest = larger(largest, shuffle_xor(largest, distance));
            state_[i].maximum = larger(before[i], largest);
            moved |= state_[i].maximum != before[i];
        }
        if (any_lane(moved)) {
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                RowState<float>& state = state_[i];
                const float delta = state.maximum == before[i] ? 0.0f : before[i] - state.maximum;
                const float alpha = exp2_fast(delta * kLog2E);
                state.moment = alpha * (state.moment + larger(kLowest<float>, delta) * state.sum);
                state.sum *= alpha;
#pragma unroll
                for (auto& block : out_) {
                    block[2 * i] *= alpha;
                    block[2 * i + 1] *= alpha;
                }
            }
        }
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            RowState<float>& state = state_[i];
            // Any finite reference gives a score of -inf the weight 0.
            const float shift = state.maximum == -kInfinity<float> ? 0.0f : state.maximum;
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const float t = scores[e / 2][2 * i + e % 2] - shift;
                const float weight = exp2_fast(t * kLog2E);
                state.sum += weight;
                state.moment = std::fma(weight, larger(kLowest<float>, t), state.moment);
                weights_[e / 2][2 * i + e % 2] = weight;
            }
        }
    }

    // What the mask adds, for rows and keys within their ranges.
    __device__ __forceinline__ void put_biases(int key) {
        sync_warp();
#pragma unroll 1
        for (int at = lane(); at < kRows * kStepKeys; at += kWarp) {
            const RowInfo<float> row = shared_.rows[at / kStepKeys];
            const int j = key + at % kStepKeys;
            float bias = 0;
            if (j >= row.first && j < row.last)
                bias = bias_of<float>(problem_, shared_.work.sequence, row.head, row.query, j);
            scratch().element[at / kStepKeys][at % kStepKeys] = bias;
        }
        sync_warp();
    }

    __device__ __forceinline__ static bool is_infinite(uint32_t half) {
        return (half & kExponent<T>) == kExponent<T>;
    }

    // Whether the lane's share of a tile holds numbers that are not finite.
    __device__ __forceinline__ static bool has_infinite(const T* tile) {
        bool found = false;
#pragma unroll 2
        for (int at = lane(); at < kTile / kChunk; at += kWarp) {
            const auto words = *reinterpret_cast<const Pack<uint32_t, 4>*>(tile + at * kChunk);
            for (const uint32_t word : words.element)
                found |= is_infinite(word) || is_infinite(word >> 16);
        }
        return found;
    }

    // Adds those numbers to the rows that see them, and makes them zeros for the products.
    __device__ __forceinline__ void take_infinite(T* tile) {
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            const int j = e / 4 * 8 + lane() % 4 * 2 + e % 2;
            scratch().element[lane() / 4 + e % 4 / 2 * 8][j] =
                (shown_ >> e & 1u) != 0 ? weights_[e / 4][e % 4] : -1.0f;
        }
        sync_warp();
#pragma unroll 1
        for (int j = 0; j < kStepKeys; ++j) {
            const float weight[2] = {scratch().element[lane() / 4][j],
                                     scratch().element[lane() / 4 + 8][j]};
#pragma unroll
            for (int chunk = 0; chunk < kDim / kChunk; ++chunk) {
                const auto word = *reinterpret_cast<const uint32_t*>(
                    tile + chunk_at<kDim>(j, chunk) + lane() % 4 * 2);
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    const uint32_t half = word >> (e % 2 * 16);
                    if (is_infinite(half) && !(weight[e / 2] < 0)) {
                        out_[chunk][e] += weight[e / 2] * to_float(T{static_cast<uint16_t>(half)});
                    }
                }
            }
        }
        sync_warp();
        clear_nonfinite<kStepKeys, kDim, kWarp>(tile, TileSource{nullptr, 1, kDim, true});
        sync_warp();
    }

    __device__ __forceinline__ Scratch& scratch() const {
        return shared_.scratch[threadIdx.x / kWarp];
    }

    const Problem& problem_;
    const int rows_;
    const Lines<T> keys_;
    const Lines<T> values_;
    Shared& shared_;
    Seen seen_;
    // Of the lane's rows lane / 4 and lane / 4 + 8, sums over the lane's own keys.
    RowState<float> state_[2];
    float out_[kDim / 8][4];
    float weights_[2][4];
    unsigned shown_;  // a bit each of them, where not all rows see all keys
    bool whole_;
};

template <class T>
void run(const Context& context, const Problem& problem) {
    const int dim = std::max(problem.dim, problem.dim_v);
    if (dim <= 64) {
        run_few_rows<MmaRows<T, 64>>(context, problem);
    } else if (dim <= 128) {
        run_few_rows<MmaRows<T, 128>>(context, problem);
    } else {
        run_few_rows<MmaRows<T, 256>>(context, problem);
    }
}

}  // namespace

void few_rows_mma(const Context& context, const Problem& problem) {
    dispatch<Float16, BFloat16>(problem.dtype, [&]<class T>() { run<T>(context, problem); });
}

}  // namespace slipstick::cuda::attention
