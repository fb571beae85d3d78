"""The three families in plain NumPy: what the compiled kernels are compared with.

Written to be read. Sums are float64 and results are not rounded to the dtype of the input, except
where an operation is exact by definition: a Mitchell product, an entry of a random matrix. Nothing
here checks its arguments beyond what the mathematics needs; the public functions do.
"""

from slipstick._gaussian import fma, gaussian_from_bits
from slipstick._philox import philox4x32
from slipstick.reference._attention import (
    AttentionGrads,
    AttentionStats,
    attention,
    attention_backward,
    softmax,
)
from slipstick.reference._gain import gain
from slipstick.reference._lsh import cross_polytope, hamming_distance, hamming_topk, simhash
from slipstick.reference._merge import merge_attention
from slipstick.reference._methods import realm_table
from slipstick.reference._mitchell import (
    divide,
    exp2,
    log2,
    multiply,
    power,
    reciprocal,
    sqrt,
    square,
)
from slipstick.reference._products import conv2d, derivative, matmul, matmul_backward
from slipstick.reference._projection import back_project, block, min_dim, project
from slipstick.reference._statistics import ErrorStatistics, error_statistics
from slipstick.reference._svd import pairs, randomized_svd
from slipstick.reference._transforms import (
    hadamard,
    hadamard_matrix,
    mixing_matrix,
    rotate,
    rotation_matrix,
    srht_rows,
)
from slipstick.reference._varlen import attention_varlen

__all__ = [
    "AttentionGrads",
    "AttentionStats",
    "ErrorStatistics",
    "attention",
    "attention_backward",
    "attention_varlen",
    "back_project",
    "block",
    "conv2d",
    "cross_polytope",
    "derivative",
    "divide",
    "error_statistics",
    "exp2",
    "fma",
    "gain",
    "gaussian_from_bits",
    "hadamard",
    "hadamard_matrix",
    "hamming_distance",
    "hamming_topk",
    "log2",
    "matmul",
    "matmul_backward",
    "merge_attention",
    "min_dim",
    "mixing_matrix",
    "multiply",
    "pairs",
    "philox4x32",
    "power",
    "project",
    "randomized_svd",
    "realm_table",
    "reciprocal",
    "rotate",
    "rotation_matrix",
    "simhash",
    "softmax",
    "sqrt",
    "square",
    "srht_rows",
]
