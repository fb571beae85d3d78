# The lists of sources, each file named, so that a new one is configured for.

# Checks and shapes, which are the same on every device.
set(common_sources
  cpp/attention/packed.cpp
  cpp/attention/results.cpp
  cpp/core/checks.cpp
  cpp/core/nest.cpp
  cpp/core/tensor.cpp
  cpp/mitchell/factors.cpp
  cpp/mitchell/geometry.cpp
  cpp/mitchell/method.cpp
  cpp/mitchell/results.cpp
  cpp/mitchell/sums.cpp
  cpp/projection/mixing.cpp
  cpp/projection/results.cpp
  cpp/projection/vector_pairs.cpp)

# The CPU's part, but for what is compiled for levels.
set(cpu_sources
  cpp/attention/backward.cpp
  cpp/attention/few_rows.cpp
  cpp/attention/forward.cpp
  cpp/attention/merge.cpp
  cpp/attention/scale_gradient.cpp
  cpp/attention/softmax.cpp
  cpp/attention/varlen.cpp
  cpp/attention/visibility.cpp
  cpp/core/broadcast.cpp
  cpp/core/isa.cpp
  cpp/core/matmul.cpp
  cpp/core/store.cpp
  cpp/core/threads.cpp
  cpp/mitchell/backward.cpp
  cpp/mitchell/conv2d.cpp
  cpp/mitchell/elementwise.cpp
  cpp/mitchell/errors.cpp
  cpp/mitchell/matmul.cpp
  cpp/mitchell/plan.cpp
  cpp/mitchell/ranges.cpp
  cpp/mitchell/thin.cpp
  cpp/projection/csr.cpp
  cpp/projection/hadamard.cpp
  cpp/projection/hamming.cpp
  cpp/projection/hashed.cpp
  cpp/projection/probes.cpp
  cpp/projection/projection.cpp
  cpp/projection/rotate.cpp
  cpp/projection/signs.cpp
  cpp/projection/skinny.cpp
  cpp/projection/srht.cpp
  cpp/projection/transform.cpp)

# Each is compiled once a level, inside a namespace of the level's name.
set(level_sources
  cpp/attention/backward.simd.cpp
  cpp/attention/few_rows.simd.cpp
  cpp/attention/kernels.simd.cpp
  cpp/mitchell/backward.simd.cpp
  cpp/mitchell/conv2d.simd.cpp
  cpp/mitchell/floats.simd.cpp
  cpp/mitchell/functions.simd.cpp
  cpp/mitchell/integers.simd.cpp
  cpp/mitchell/general.simd.cpp
  cpp/mitchell/lookup.simd.cpp
  cpp/mitchell/errors.simd.cpp
  cpp/mitchell/matmul.simd.cpp
  cpp/mitchell/thin.simd.cpp
  cpp/projection/csr.simd.cpp
  cpp/projection/distances.simd.cpp
  cpp/projection/hamming.simd.cpp
  cpp/projection/hashed.simd.cpp
  cpp/projection/kernels.simd.cpp
  cpp/projection/skinny.simd.cpp
  cpp/projection/transform.simd.cpp)

# The CUDA module's part.
set(cuda_sources
  cpp/attention/attention.cu
  cpp/attention/backward.cu
  cpp/attention/backward_mma.cu
  cpp/attention/backward_mma_bfloat16.cu
  cpp/attention/backward_mma_float16.cu
  cpp/attention/backward_rows.cu
  cpp/attention/backward_simt.cu
  cpp/attention/combine.cu
  cpp/attention/few_rows_mma.cu
  cpp/attention/few_rows_simt.cu
  cpp/attention/forward_mma.cu
  cpp/attention/forward_simt.cu
  cpp/attention/mask_counts.cu
  cpp/attention/prepare.cu
  cpp/attention/scale_gradient.cu
  cpp/core/upload.cu
  cpp/mitchell/all_products.cu
  cpp/mitchell/backward.cu
  cpp/mitchell/conv2d.cu
  cpp/mitchell/elementwise.cu
  cpp/mitchell/factors.cu
  cpp/mitchell/floats.cu
  cpp/mitchell/functions.cu
  cpp/mitchell/integers.cu
  cpp/mitchell/lookup.cu
  cpp/mitchell/matmul.cu
  cpp/mitchell/ranges.cu
  cpp/mitchell/sum_products.cu
  cpp/mitchell/tables.cu
  cpp/mitchell/tile_general.cu
  cpp/mitchell/tile_sums.cu
  cpp/projection/block.cu
  cpp/projection/products.cu
  cpp/projection/rotate.cu
  cpp/projection/rotation.cu
  cpp/projection/rotation_long.cu
  cpp/projection/srht.cu
  cpp/projection/srht_rows.cu
  cpp/projection/tensor_cores.cu
  cpp/projection/vectors.cu)

# Of it what is for compute capability 9.0 alone (sm_90a), and what stands in its place where that is
# not compiled for.
set(hopper_sources
  cpp/attention/forward_hopper.cu)
set(no_hopper_sources
  cpp/attention/no_hopper.cu)
