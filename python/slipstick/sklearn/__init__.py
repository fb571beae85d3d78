"""Estimators for scikit-learn whose random matrix is never stored.

`GaussianRandomProjection`, `SparseRandomProjection` and `johnson_lindenstrauss_min_dim` stand in
for those of ``sklearn.random_projection``: names, parameters, attributes, errors and messages are
the same, the random numbers are not. A fitted estimator holds a few integers; `transform` makes the
matrix while it multiplies, and `components_` is made anew whenever it is read.
"""

from slipstick.sklearn._estimators import (
    GaussianRandomProjection,
    HadamardRandomProjection,
    RademacherRandomProjection,
    SJLTRandomProjection,
    SparseRandomProjection,
)
from slipstick.sklearn._matrices import (
    _gaussian_random_matrix as _gaussian_random_matrix,
)
from slipstick.sklearn._matrices import (
    _sparse_random_matrix as _sparse_random_matrix,
)
from slipstick.sklearn._matrices import johnson_lindenstrauss_min_dim

__all__ = [
    "GaussianRandomProjection",
    "HadamardRandomProjection",
    "RademacherRandomProjection",
    "SJLTRandomProjection",
    "SparseRandomProjection",
    "johnson_lindenstrauss_min_dim",
]
