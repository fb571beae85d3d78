// Few rows by plain multiply-adds, float32 and float64: tiles of eight rows. A step's 16 keys are
// scored by two lanes each, for four rows; then each lane owns columns of the values, for all
// eight. At 128 columns of float32 a step is 1024 multiply-adds of a warp and some 210 reads of
// shared memory for 16 KB of keys and values, which take a multiprocessor's share of the memory's
// rate 1130 clocks to come. Rows beyond eight are another tile, which finds keys and values in the
// second cache.
#include "attention/few_rows.cuh"

namespace slipstick::cuda::attention {
namespace {

template <class T_, int kDim_>
class SimtRows {
public:
    using T = T_;
    using Acc = T_;
    static constexpr int kDim = kDim_;
    static constexpr int kRows = 8;
    static constexpr int kVector = 16 / static_cast<int>(sizeof(T));
    // 16 bytes between rows: the rows of a column then lie in different banks.
    static constexpr int kPitch = kDim + kVector;
    static constexpr int kTile = kStepKeys * kPitch;
    static constexpr int kQuery = kRows * kPitch;
    // Some 70 KB of tiles, so that every device from 8.0 on has room (99 KB) and most hold two.
    static constexpr int kRowBytes = kDim * static_cast<int>(sizeof(T));
    static constexpr int kWarps = kRowBytes <= 512 ? 4 : 2048 / kRowBytes;
    static constexpr int kSlots = kRowBytes <= 256 ? 4 : 2;
    struct Scratch {
        alignas(16) T weight[kRows][kStepKeys];  // -1: hidden
        T alpha[kRows];
    };
    using Shared = FewRowsShared<SimtRows>;

    __device__ __forceinline__ SimtRows(const Problem& problem, int rows, const Lines<T>& keys,
                                        const Lines<T>& values, Shared& shared)
        : problem_(problem), rows_(rows), keys_(keys), values_(values), shared_(shared) {}

    __device__ __forceinline__ void see(const Seen& seen) { seen_ = seen; }

    __device__ __forceinline__ void load_keys(T* tile, int key) const { load(tile, keys_, key); }
    __device__ __forceinline__ void load_values(T* tile, int key) const {
        load(tile, values_, key);
    }

    __device__ __forceinline__ void put_queries(const Work& work) {
        load_queries<kRows, kDim, kWarps, T>(problem_, work, rows_, [&](int r, int column) {
            return shared_.query + r * kPitch + column;
        });
    }

    __device__ __forceinline__ void reset() {
#pragma unroll
        for (auto& state : state_) state = {-kInfinity<T>, 0, 0};
#pragma unroll
        for (auto& row : out_)
            for (T& element : row) element = 0;
    }

    __device__ __forceinline__ void score(const T* tile, int key) {
        const T* const line = tile + key_of_lane() * kPitch;
        const T* const queries = shared_.query + first_row() * kPitch;
        // Chains of 64 bytes of columns, added in order, as in the other kernels without tensor
        // cores: the gradients' e^(s - L) then meets the scores that L is made of.
        constexpr int chain_columns = 64 / static_cast<int>(sizeof(T));
        T scores[4] = {};
#pragma unroll 1
        for (int begin = 0; begin < problem_.dim; begin += chain_columns) {
            T chains[4] = {};
#pragma unroll
            for (int vector = 0; vector < chain_columns; vector += kVector) {
                const int column = begin + vector;
                if (column >= problem_.dim) break;
                const Vector k = *reinterpret_cast<const Vector*>(line + column);
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const Vector q =
                        *reinterpret_cast<const Vector*>(queries + i * kPitch + column);
#pragma unroll
                    for (int e = 0; e < kVector; ++e)
                        chains[i] = std::fma(q.element[e], k.element[e], chains[i]);
                }
            }
#pragma unroll
            for (int i = 0; i < 4; ++i) scores[i] += chains[i];
        }
        const auto cap = static_cast<T>(problem_.softcap);
        const int j = key + key_of_lane();
        whole_ =
            key >= seen_.all_first && seen_.all_last - key >= kStepKeys && !problem_.has_mask();
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const RowInfo<T> row = shared_.rows[first_row() + i];
            T& s = scores[i];
            s *= row.factor;
            if (cap != 0) s = cap * std::tanh(s / cap);
            bool shown = j >= row.first && j < row.last;
            if (shown && problem_.has_mask()) {
                const T bias = bias_of<T>(problem_, shared_.work.sequence, row.head, row.query, j);
                s += bias;
                shown = bias != -kInfinity<T>;
            }
            if (!shown) s = -kInfinity<T>;
            weigh(i, s, shown);
        }
    }

    __device__ __forceinline__ void add(const T* tile, int) {
        const Scratch& scratch = this->scratch();
#pragma unroll
        for (int row = 0; row < kRows; ++row) {
            const T alpha = scratch.alpha[row];
#pragma unroll
            for (T& element : out_[row]) element *= alpha;
        }
        const T* const first = tile + lane() * kPiece;
#pragma unroll 1
        for (int j = 0; j < kStepKeys; j += kVector) {
            Vector weight[kRows];
#pragma unroll
            for (int row = 0; row < kRows; ++row)
                weight[row] = *reinterpret_cast<const Vector*>(scratch.weight[row] + j);
#pragma unroll
            for (int e = 0; e < kVector; ++e) {
                T value[kColumns];
#pragma unroll
                for (int piece = 0; piece < kColumns / kPiece; ++piece) {
                    const auto read = *reinterpret_cast<const Pack<T, kPiece>*>(
                        first + (j + e) * kPitch + piece * kWarp * kPiece);
#pragma unroll
                    for (int c = 0; c < kPiece; ++c) value[piece * kPiece + c] = read.element[c];
                }
#pragma unroll
                for (int row = 0; row < kRows; ++row) {
                    // 0 times an infinite value is NaN: a row takes those of the keys it sees.
                    const T own = weight[row].element[e];
                    if (!whole_ && own < 0) continue;
#pragma unroll
                    for (int c = 0; c < kColumns; ++c)
                        out_[row][c] = std::fma(own, value[c], out_[row][c]);
                }
            }
        }
    }

    __device__ __forceinline__ void put_state() {
        const int warp = static_cast<int>(threadIdx.x) / kWarp;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            RowState<T> state = state_[i];
#pragma unroll
            for (int distance = 1; distance < kStepKeys; distance *= 2) {
                state.sum += shuffle_xor(state.sum, distance);
                state.moment += shuffle_xor(state.moment, distance);
            }
            if (key_of_lane() == 0) shared_.state[warp][first_row() + i] = state;
        }
#pragma unroll
        for (int row = 0; row < kRows; ++row) {
#pragma unroll
            for (int c = 0; c < kColumns; ++c) {
                const int column = c / kPiece * kWarp * kPiece + lane() * kPiece + c % kPiece;
                shared_.ring[warp].out[out_at<kDim>(row, column)] = out_[row][c];
            }
        }
    }

private:
    using Vector = Pack<T, kVector>;
    // Columns of a lane, in pieces that a read of shared memory brings at once.
    static constexpr int kColumns = kDim / kWarp;
    static constexpr int kPiece = kColumns < kVector ? kColumns : kVector;

    __device__ __forceinline__ static int lane() { return static_cast<int>(threadIdx.x) % kWarp; }
    __device__ __forceinline__ static int key_of_lane() { return lane() % kStepKeys; }
    __device__ __forceinline__ static int first_row() { return lane() / kStepKeys * 4; }
    __device__ __forceinline__ Scratch& scratch() const {
        return shared_.scratch[threadIdx.x / kWarp];
    }

    __device__ __forceinline__ void load(T* tile, const Lines<T>& lines, int key) const {
        load_lines<kDim, kVector>(
            lines, key, seen_, [&](int line, int column) { return tile + line * kPitch + column; });
    }

    // The update of the specification's 4.3 for row i of the lane's four: the score of the lane's
    // key becomes its weight e^(s - m).
    __device__ __forceinline__ void weigh(int i, T score, bool shown) {
        RowState<T>& state = state_[i];
        T largest = larger(-kInfinity<T>, score);
#pragma unroll
        for (int distance = 1; distance < kStepKeys; distance *= 2)
            largest = larger(largest, shuffle_xor(largest, distance));
        const T before = state.maximum;
        state.maximum = larger(before, largest);
        T alpha = 1;
        if (state.maximum != before) {
            const T delta = before - state.maximum;
            alpha = std::exp(delta);
            state.moment = alpha * (state.moment + larger(kLowest<T>, delta) * state.sum);
            state.sum *= alpha;
        }
        // Any finite reference gives a score of -inf the weight 0.
        const T t = score - (state.maximum == -kInfinity<T> ? T{0} : state.maximum);
        const T weight = std::exp(t);
        state.sum += weight;
        state.moment = std::fma(weight, larger(kLowest<T>, t), state.moment);
        scratch().weight[first_row() + i][key_of_lane()] = shown ? weight : T{-1};
        if (key_of_lane() == 0) scratch().alpha[first_row() + i] = alpha;
    }

    const Problem& problem_;
    const int rows_;
    const Lines<T> keys_;
    const Lines<T> values_;
    Shared& shared_;
    Seen seen_;
    RowState<T> state_[4];  // sums over the lane's own keys
    T out_[kRows][kColumns];
    bool whole_;  // every row sees every key of the step
};

template <class T>
void run(const Context& context, const Problem& problem) {
    const int dim = std::max(problem.dim, problem.dim_v);
    if (dim <= 64) {
        run_few_rows<SimtRows<T, 64>>(context, problem);
    } else if (dim <= 128) {
        run_few_rows<SimtRows<T, 128>>(context, problem);
    } else {
        run_few_rows<SimtRows<T, 256>>(context, problem);
    }
}

}  // namespace

void few_rows_simt(const Context& context, const Problem& problem) {
    dispatch<float, double>(problem.dtype, [&]<class T>() { run<T>(context, problem); });
}

}  // namespace slipstick::cuda::attention
