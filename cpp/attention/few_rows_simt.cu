// Few rows by plain multiply-adds, float32 and float64: tiles of eight rows. A step's 16 keys are
// scored by two lanes each, for four rows; then each lane owns columns of the values, for all
// eight. At 128 columns of float32 a step is 1024 multiply-adds of a warp and some 250 reads of
// shared memory for 16 KB of keys and values, which take a multiprocessor's share of the memory's
// rate 1130 clocks to come. Rows beyond eight are another tile, which finds keys and values in the
// second cache.
#include "attention/few_rows.cuh"

namespace slipstick::cuda::attention {
namespace {

struct SimtOperands {
    bool aligned_keys;  // rows can be copied 16 bytes at a time
    bool aligned_values;
};

template <class T_, int kDim_>
class SimtRows {
public:
    using T = T_;
    using Acc = T_;
    using Operands = SimtOperands;
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

    __device__ __forceinline__ SimtRows(const Problem& problem, const Operands& operands,
                                        const Work& work, int rows, Shared& shared)
        : problem_(problem), operands_(operands), work_(work), rows_(rows), shared_(shared) {}

    __device__ __forceinline__ void see(const Seen& seen) { seen_ = seen; }

    __device__ __forceinline__ void load_keys(T* tile, int key) const {
        load(tile, problem_.key, operands_.aligned_keys, problem_.dim, key);
    }
    __device__ __forceinline__ void load_values(T* tile, int key) const {
        load(tile, problem_.value, operands_.aligned_values, problem_.dim_v, key);
    }

    __device__ __forceinline__ void put_queries() {
        for (int at = static_cast<int>(threadIdx.x); at < kRows * kDim; at += kWarps * kWarp) {
            const int r = at / kDim;
            const int column = at % kDim;
            T element = 0;
            if (r < rows_ && column < problem_.dim) {
                const int64_t row = work_.first_row + r;
                element = *problem_.query.template at<const T>(
                    work_.sequence.batch, work_.kv_head * problem_.group + row % problem_.group,
                    work_.sequence.first_query + row / problem_.group, column);
            }
            shared_.query[r * kPitch + column] = element;
        }
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
        // One chain over the columns, as in the other kernels without tensor cores.
        T scores[4] = {};
#pragma unroll 2
        for (int column = 0; column < problem_.dim; column += kVector) {
            const Vector k = *reinterpret_cast<const Vector*>(line + column);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const Vector q = *reinterpret_cast<const Vector*>(queries + i * kPitch + column);
#pragma unroll
                for (int e = 0; e < kVector; ++e)
                    scores[i] = std::fma(q.element[e], k.element[e], scores[i]);
            }
        }
        const auto cap = static_cast<T>(problem_.softcap);
        const int j = key + key_of_lane();
        whole_ = key >= seen_.all_first && key + kStepKeys <= seen_.all_last &&
                 !problem_.has_mask();
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const RowInfo<T> row = shared_.rows[first_row() + i];
            T& s = scores[i];
            s *= row.factor;
            if (cap != 0) s = cap * std::tanh(s / cap);
            bool shown = j >= row.first && j < row.last;
            if (shown && problem_.has_mask()) {
                const T bias = bias_of<T>(problem_, work_.sequence, row.head, row.query, j);
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

    // Zeros for keys that no row sees, and beyond the columns to a whole vector.
    __device__ __forceinline__ void load(T* tile, const Operand& operand, bool aligned, int columns,
                                         int key) const {
        const T* const first = operand.template at<const T>(work_.sequence.batch, work_.kv_head,
                                                            work_.sequence.first_key + key);
        constexpr int chunks = kDim / kVector;
#pragma unroll 2
        for (int at = lane(); at < kStepKeys * chunks; at += kWarp) {
            const int row = at / chunks;
            const int column = at % chunks * kVector;
            if (column >= columns) continue;
            const bool valid = key + row >= seen_.first && key + row < seen_.last;
            const T* const source = first + row * operand.row + column * operand.column;
            T* const target = tile + row * kPitch + column;
            if (aligned) {
                copy_async(target, valid ? source : operand.data, valid);
                continue;
            }
#pragma unroll
            for (int e = 0; e < kVector; ++e) {
                target[e] = valid && column + e < columns ? source[e * operand.column] : T{0};
            }
        }
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
    const Operands& operands_;
    const Work& work_;
    const int rows_;
    Shared& shared_;
    Seen seen_;
    RowState<T> state_[4];  // sums over the lane's own keys
    T out_[kRows][kColumns];
    bool whole_;  // every row sees every key of the step
};

template <class T>
bool has_aligned_lines(const Operand& operand, int64_t columns) {
    constexpr int64_t vector = 16 / sizeof(T);
    return columns % vector == 0 && operand.column == 1 &&
           reinterpret_cast<uintptr_t>(operand.data) % 16 == 0 && operand.batch % vector == 0 &&
           operand.head % vector == 0 && operand.row % vector == 0;
}

template <class T>
void run(const Context& context, const Problem& problem) {
    const SimtOperands operands{has_aligned_lines<T>(problem.key, problem.dim),
                                has_aligned_lines<T>(problem.value, problem.dim_v)};
    const int dim = std::max(problem.dim, problem.dim_v);
    if (dim <= 64) {
        run_few_rows<SimtRows<T, 64>>(context, problem, operands);
    } else if (dim <= 128) {
        run_few_rows<SimtRows<T, 128>>(context, problem, operands);
    } else {
        run_few_rows<SimtRows<T, 256>>(context, problem, operands);
    }
}

}  // namespace

void few_rows_simt(const Context& context, const Problem& problem) {
    dispatch<float, double>(problem.dtype, [&]<class T>() { run<T>(context, problem); });
}

}  // namespace slipstick::cuda::attention
