"""The largest singular values and vectors by a random sketch."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slipstick import _cpu
from slipstick._arrays import framework_of, to_numpy
from slipstick._numbers import given
from slipstick.projection._arguments import index, integer
from slipstick.projection._device_matrix import OnDevice, framework_for
from slipstick.projection._krylov import Matrix, NotFiniteError, krylov_svd, passes_for
from slipstick.projection._matrices import CHUNK_BYTES, of_array
from slipstick.projection._project import block
from slipstick.projection._sparse_input import check_indices, is_sparse

Array = NDArray[Any]


def randomized_svd(
    x: Any,
    n_components: int,
    *,
    n_oversamples: int = 10,
    n_iter: int | str = "auto",
    center: bool = False,
    seed: int = 0,
) -> tuple[Any, Any, Any]:
    """Return the largest singular values of a matrix with their vectors, by a random sketch.

    Parameters
    ----------
    x : array of shape (n_samples, n_features), or sparse matrix or array of SciPy
        Floats (float32, float64, float16, bfloat16), integers or bools. CSR and CSC are used as
        they are; COO becomes CSR.
    n_components : int
        The number of singular values k, from 1 to the smaller side of `x`.
    n_oversamples : int
        How many columns more than k the sketch has (fewer, where the smaller side ends).
    n_iter : int or "auto"
        The accuracy asked for: that of so many power iterations, as in scikit-learn. "auto" means
        7, or 4 where k is 10 % of the smaller side or more. 0 leaves out all iterations.
    center : bool
        Whether to subtract the mean of each column; `x` is neither changed nor copied.
    seed : int
        From 0 to 2**64 - 1. It names the sketch: the transposed matrix of `project` with kind
        "gaussian", by column of `x`.

    Returns
    -------
    U : array of shape (n_samples, n_components)
    S : array of shape (n_components,)
        In decreasing order.
    Vt : array of shape (n_components, n_features)
        In the framework of `x` and of its dtype if that is float32 or float64, float32 for shorter
        floats, float64 for others. The entry of largest magnitude of each column of U is positive.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit, infinities, NaNs, and products beyond the range of the dtype.

    Notes
    -----
    The result is the best approximation within a block Krylov space, which holds every power of
    ``x x^T`` on the way and not the last alone: as accurate as `n_iter` power iterations while
    reading `x` 8 times for 7 of them, not 16. Blocks become orthonormal by CholeskyQR2 with a
    float64 Gram matrix, or by Householder reflections where that fails. One seed names one sketch
    everywhere, and products with a dense `x` have the same bits for every thread count; small
    factors go through NumPy's linear algebra, so results have the same bits for one version of
    NumPy with one number of threads, and agree to rounding elsewhere.

    A matrix of torch or cupy on a CUDA device is multiplied there by its framework, with the same
    sketch; tall blocks stay on the device, and NumPy factorises the small ones. What torch is told
    of TF32 (``torch.backends.cuda.matmul.allow_tf32``) holds for these products too.

    Sources: N. Halko, P. Martinsson, J. Tropp, "Finding structure with randomness", 2011; C. Musco,
    C. Musco, "Randomized block Krylov methods for stronger and faster approximate singular value
    decomposition", 2015; Y. Yamamoto et al., "Roundoff error analysis of the CholeskyQR2
    algorithm", 2015.

    Examples
    --------
    >>> import numpy as np
    >>> import slipstick
    >>> x = np.outer(np.arange(100.0), np.ones(80)) + np.eye(100, 80)
    >>> u, s, vt = slipstick.projection.randomized_svd(x, 2)
    >>> s.round(3).tolist()
    [5125.848, 1.0]
    >>> u.shape, vt.shape
    ((100, 2), (2, 80))
    """
    finish = None if is_sparse(x) else framework_of("randomized_svd", x)
    if finish is not None and finish.kernels is not _cpu:
        return factorise_on_device(x, n_components, n_oversamples, n_iter, center, seed)
    array = as_matrix("randomized_svd", x)
    dtype = check_matrix("randomized_svd", array.shape, array.dtype)
    plan = plan_of("randomized_svd", array.shape, n_components, n_oversamples, n_iter, center, seed)
    matrix = of_array(array, dtype, plan.center)
    with np.errstate(over="ignore", invalid="ignore"):
        u, s, vt = plan.factorise("randomized_svd", matrix)
    if finish is None or isinstance(x, np.ndarray):
        return u, s, vt

    def converted(result: Array) -> Any:
        target = finish.empty(result.shape, result.dtype.name)
        np.asarray(target)[...] = result
        return finish.finish(target)

    return converted(u), converted(s), converted(vt)


class Plan(NamedTuple):
    """The checked arguments of a randomized SVD, whatever holds the matrix."""

    n_components: int
    width: int
    passes: int
    center: bool
    seed: int

    def factorise(
        self, function: str, matrix: Matrix, sketch: Any = None
    ) -> tuple[Any, Array, Array]:
        """Return U, S and Vt; a sketch that is not NumPy's is given."""
        if sketch is None:
            sketch = normal_entries(self.seed, self.width, matrix.shape[1], matrix.dtype)
        try:
            return krylov_svd(matrix, sketch, self.n_components, self.passes)
        except NotFiniteError:
            raise ValueError(
                f"{function}: `x` must be finite and its products too, got infinities or NaNs"
            ) from None


def factorise_on_device(x: Any, *arguments: Any) -> tuple[Any, Any, Any]:
    """Return U, S and Vt beside a matrix of torch or cupy."""
    function = "randomized_svd"
    framework = framework_for(x)
    framework.check(function, x)
    name = framework.name_of(x)
    try:
        given_dtype = np.dtype(np.float16 if name == "bfloat16" else name)  # both become float32
    except TypeError:
        raise TypeError(
            f"{function}: `x` must be of floats, integers or bools, got {name}"
        ) from None
    shape = tuple(int(size) for size in x.shape)
    dtype = check_matrix(function, shape, given_dtype)
    plan = plan_of(function, shape, *arguments)
    with framework.current():
        matrix = OnDevice(x, dtype, plan.center)
        u, s, vt = plan.factorise(function, matrix, matrix.sketch(plan.seed, plan.width))
        u, s, vt = (matrix.settle(part).array for part in (u, s.astype(dtype), vt))
    return u, s, vt


def as_matrix(function: str, x: Any) -> Any:
    """Return NumPy's array of `x`, or `x` itself if it is sparse and may be read."""
    if not is_sparse(x):
        return to_numpy(function, "x", x)
    check_indices(function, "x", x)
    return x


def check_matrix(function: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype that a matrix of such a shape and dtype is factorised in."""
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"{function}: `x` must have two axes of at least 1, got shape {shape}")
    if dtype.name in ("float32", "float64"):
        return np.dtype(dtype.name)
    if dtype.name in ("float16", "bfloat16"):
        return np.dtype(np.float32)
    if dtype.kind not in "biu":
        raise TypeError(f"{function}: `x` must be of floats, integers or bools, got {dtype}")
    return np.dtype(np.float64)


def plan_of(
    function: str,
    shape: tuple[int, ...],
    n_components: Any,
    n_oversamples: Any,
    n_iter: Any,
    center: Any,
    seed: Any,
) -> Plan:
    """Check what the functions that factorise have in common."""
    side = min(shape)
    k = integer(function, "n_components", n_components, 1, 63)
    if k > side:
        raise ValueError(
            f"{function}: `n_components` must be at most {side}, the smaller side of `x`, got {k}"
        )
    width = min(side, k + integer(function, "n_oversamples", n_oversamples, 0, 63))
    if isinstance(n_iter, str):
        if n_iter != "auto":
            raise ValueError(f"{function}: `n_iter` must be an int or 'auto', got {given(n_iter)}")
        n_iter = 7 if k < 0.1 * side else 4
    elif index(n_iter) is None:
        raise TypeError(
            f"{function}: `n_iter` must be an int or 'auto', got {type(n_iter).__name__}"
        )
    n_iter = integer(function, "n_iter", n_iter, 0, 31)
    if not isinstance(center, (bool, np.bool_)):
        raise TypeError(f"{function}: `center` must be True or False, got {type(center).__name__}")
    seed = integer(function, "seed", seed, 0, 64)
    return Plan(k, width, passes_for(n_iter), bool(center), seed)


def normal_entries(
    seed: int, width: int, n_features: int, dtype: np.dtype[Any], first_component: int = 0
) -> Array:
    """Return the transposed, unscaled Gaussian matrix (n_features, width) of a seed."""
    entries = np.empty((n_features, width), dtype)
    step = max(1, CHUNK_BYTES // (8 * width))
    rows = slice(first_component, first_component + width)
    for first in range(0, n_features, step):
        part = slice(first, min(first + step, n_features))
        entries[part] = block("gaussian", seed, rows, part).T
    return entries
