"""The random matrices as scikit-learn's functions of the same names return them."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
import scipy.sparse
import sklearn
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, validate_params

from slipstick.projection import block

_BLOCK_BYTES = 1 << 24  # of a dense float64 part of a sparse matrix


@validate_params(  # type: ignore[untyped-decorator]
    {
        "n_samples": ["array-like", Interval(Real, 1, None, closed="left")],
        "eps": ["array-like", Interval(Real, 0, 1, closed="neither")],
    },
    prefer_skip_nested_validation=True,
)
def johnson_lindenstrauss_min_dim(n_samples: ArrayLike, *, eps: ArrayLike = 0.1) -> Any:
    """Return how many components keep all squared distances among points within 1 +- `eps`.

    The bound ``4 ln N / (eps**2 / 2 - eps**3 / 3)``, rounded down, of S. Dasgupta and A. Gupta,
    "An elementary proof of a theorem of Johnson and Lindenstrauss", 2003.
    `slipstick.projection.min_dim` knows tighter ones.

    Parameters
    ----------
    n_samples : int or array-like of int
        The number N of points, at least 1.
    eps : float or array-like of float
        Between 0 and 1.

    Returns
    -------
    int64, or ndarray of int64
        For arguments that broadcast.

    Raises
    ------
    ValueError
        For arguments outside their range.

    Examples
    --------
    >>> from slipstick.sklearn import johnson_lindenstrauss_min_dim
    >>> johnson_lindenstrauss_min_dim(1e6, eps=[0.5, 0.1, 0.01])
    array([    663,   11841, 1112658])
    """
    epsilon, samples = np.asarray(eps), np.asarray(n_samples)
    if not np.all((epsilon > 0) & (epsilon < 1)):
        raise ValueError(f"The JL bound is defined for eps in ]0, 1[, got {epsilon!r}")
    if not np.all(samples > 0):
        raise ValueError(
            f"The JL bound is defined for n_samples greater than zero, got {samples!r}"
        )
    return (4 * np.log(samples) / (epsilon**2 / 2 - epsilon**3 / 3)).astype(np.int64)


def seed_of(random_state: Any) -> int:
    """Return an int as it is, and 64 bits of anything else that scikit-learn draws from."""
    if isinstance(random_state, (int, np.integer)):
        return int(random_state)
    low, high = check_random_state(random_state).randint(0, 1 << 32, size=2, dtype=np.uint64)
    return int(low) | int(high) << 32


def in_configured_interface(matrix: Any) -> Any:
    """Return a CSR matrix as a sparse array or matrix, as scikit-learn is configured."""
    interface = sklearn.get_config().get("sparse_interface", "spmatrix")
    is_array = interface == "sparray"
    return (scipy.sparse.csr_array if is_array else scipy.sparse.csr_matrix)(matrix)


def sparse_block(kind: str, seed: int, shape: tuple[int, int], **law: Any) -> Any:
    """Return a matrix of few nonzeros in CSR form, by way of dense parts of it."""
    step = max(1, _BLOCK_BYTES // (8 * shape[1]))
    parts = [
        scipy.sparse.csr_array(
            block(
                kind,
                seed,
                slice(row, min(row + step, shape[0])),
                slice(0, shape[1]),
                n_components=shape[0],
                **law,
            )
        )
        for row in range(0, shape[0], step)
    ]
    return scipy.sparse.vstack(parts, format="csr")


def _check_input_size(n_components: int, n_features: int) -> None:
    for name, size in (("n_components", n_components), ("n_features", n_features)):
        if size <= 0:
            raise ValueError(f"{name} must be strictly positive, got {size}")


def check_density(density: Any, n_features: int) -> Any:
    if isinstance(density, str) and density == "auto":
        return 1 / np.sqrt(n_features)
    if not 0 < density <= 1:
        raise ValueError(f"Expected density in range ]0, 1], got: {density!r}")
    return density


def _gaussian_random_matrix(
    n_components: int, n_features: int, random_state: Any = None
) -> NDArray[np.float64]:
    """Return a dense matrix of N(0, 1 / n_components)."""
    _check_input_size(n_components, n_features)
    rows, columns = slice(0, n_components), slice(0, n_features)
    seed = seed_of(random_state)
    entries: NDArray[np.float64] = block("gaussian", seed, rows, columns, n_components=n_components)
    return entries


def _sparse_random_matrix(
    n_components: int, n_features: int, density: Any = "auto", random_state: Any = None
) -> Any:
    """Return a CSR matrix of entries 0 and +-1 / sqrt(density n_components); dense at density 1."""
    _check_input_size(n_components, n_features)
    density = check_density(density, n_features)
    seed, shape = seed_of(random_state), (n_components, n_features)
    if density == 1:
        rows, columns = slice(0, n_components), slice(0, n_features)
        return block("sparse", seed, rows, columns, n_components=n_components, density=1)
    return in_configured_interface(sparse_block("sparse", seed, shape, density=float(density)))
