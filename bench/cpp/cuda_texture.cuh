// Matrix products by a table as simulators of multipliers on GPUs form them (TFApprox, Vaverka,
// Mrazek, Vasicek and Sekanina, DATE 2020): tiles in shared memory, and every product fetched from
// a texture. The fetches are the limit, 4 a clock on each multiprocessor, whatever the tiles are.
#pragma once

#include <cstdint>

#include "cuda_bench.cuh"

namespace bench {

class Texture {
public:
    // 256 x 256 products on the device, row by row.
    explicit Texture(const uint16_t* entries) {
        cudaResourceDesc resource{};
        resource.resType = cudaResourceTypeLinear;
        resource.res.linear.devPtr = const_cast<uint16_t*>(entries);
        resource.res.linear.desc = cudaCreateChannelDesc<unsigned short>();
        resource.res.linear.sizeInBytes = 65536 * sizeof(uint16_t);
        cudaTextureDesc how{};
        how.readMode = cudaReadModeElementType;
        check(cudaCreateTextureObject(&texture_, &resource, &how, nullptr), kProgram);
    }
    ~Texture() { cudaDestroyTextureObject(texture_); }
    Texture(const Texture&) = delete;
    Texture& operator=(const Texture&) = delete;

    cudaTextureObject_t get() const { return texture_; }

private:
    cudaTextureObject_t texture_ = 0;
};

inline constexpr int kTextureTile = 16;

// out[i, j] = sum over k of table[a[i, k], b[k, j]]; n is a multiple of the tile.
__global__ void texture_matmul(cudaTextureObject_t table, const uint8_t* a, const uint8_t* b,
                               uint32_t* out, int n) {
    __shared__ uint8_t left[kTextureTile][kTextureTile], right[kTextureTile][kTextureTile];
    const int row = static_cast<int>(blockIdx.y) * kTextureTile + static_cast<int>(threadIdx.y);
    const int column = static_cast<int>(blockIdx.x) * kTextureTile + static_cast<int>(threadIdx.x);
    uint32_t sum = 0;
    for (int k = 0; k < n; k += kTextureTile) {
        left[threadIdx.y][threadIdx.x] = a[int64_t{row} * n + k + threadIdx.x];
        right[threadIdx.y][threadIdx.x] =
            b[int64_t{k + static_cast<int>(threadIdx.y)} * n + column];
        __syncthreads();
#pragma unroll
        for (int i = 0; i < kTextureTile; ++i) {
            const int index = left[threadIdx.y][i] << 8 | right[i][threadIdx.x];
            sum += tex1Dfetch<unsigned short>(table, index);
        }
        __syncthreads();
    }
    out[int64_t{row} * n + column] = sum;
}

}  // namespace bench
