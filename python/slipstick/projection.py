"""Random projection by a matrix that is never stored.

``y = A x / sqrt(k)`` with a random k x d matrix A keeps squared norms on average, and by the lemma
of Johnson and Lindenstrauss (1984) k of order ``ln N / eps**2`` keeps all distances among N points
within a factor 1 +- eps. Every entry of A is a pure function of (kind, seed, component, feature),
made from the counter-based generator Philox4x32-10 inside the kernel that uses it: the matrix takes
no memory, and it is the same for every thread count, instruction set, batch and chunk.
"""

from __future__ import annotations

import math
import operator
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slipstick import _cpu
from slipstick._arrays import framework_of
from slipstick._chi2 import smallest_k

__all__ = ["block", "min_dim", "project"]

# How many components the 32-bit counter of each kind tells apart, as a power of two.
_COMPONENT_BITS = {"rademacher": 39, "gaussian": 34}


def project(
    x: Any,
    n_components: int,
    *,
    kind: str = "rademacher",
    seed: int = 0,
    density: None = None,
    first_feature: int = 0,
    out: Any = None,
) -> Any:
    """Project the last axis of an array onto `n_components` random directions.

    Parameters
    ----------
    x : array of shape (..., n_features)
        Floats (float32, float64, float16, bfloat16), integers or bools, of any strides, read in
        place.
    n_components : int
        The number of components k, at least 1.
    kind : str
        "rademacher": entries +1 or -1; the variance of ``|y|**2 / |x|**2`` is at most 2/k.
        "gaussian": standard normal entries of 24 bits with ``|z| <= 6.34``; the variance is 2/k.
    seed : int
        From 0 to 2**64 - 1. It names the matrix; a larger k appends rows to it.
    density : None
        Neither kind has one.
    first_feature : int
        The global index of column 0 of `x`: projections of column chunks add up to that of the
        whole, to rounding. ``first_feature + n_features`` may reach 2**64.
    out : array, optional
        Where to write; of the result's shape and dtype, sharing no memory with `x`.

    Returns
    -------
    array of shape (..., n_components)
        ``A x / sqrt(k)`` in the framework and dtype of `x` (float64 for integers), or `out`. Sums
        are float32 (float64 for float64), scaled and rounded once; a sum beyond the float range is
        infinite. Infinities and NaNs propagate.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit; nothing is written then.

    Notes
    -----
    A result depends on neither threads, instruction set nor batch, to the last bit: within each
    block of 256 features (by global index) a sum is one chain of fused multiply-adds, and the
    blocks are added in order. Source: D. Achlioptas, "Database-friendly random projections", 2003,
    for random signs.

    Examples
    --------
    >>> import numpy as np
    >>> import slipstick
    >>> x = np.zeros(1000, np.float32)
    >>> x[3] = 2
    >>> y = slipstick.projection.project(x, 16, seed=7)
    >>> y[:4]
    array([ 0.5,  0.5,  0.5, -0.5], dtype=float32)
    >>> float(np.linalg.norm(y))  # signs keep the norm of a vector with one nonzero
    2.0
    """
    bits = _component_bits("project", kind)
    _check_density("project", kind, density)
    n_components = _integer("project", "n_components", n_components, 1, bits)
    seed = _integer("project", "seed", seed, 0, 64)
    first_feature = _integer("project", "first_feature", first_feature, 0, 64)
    framework = framework_of("project", x, out)
    return framework.finish(
        _cpu.project(x, n_components, kind, seed, first_feature, out, framework.empty)
    )


def block(
    kind: str,
    seed: int,
    rows: slice,
    cols: slice,
    *,
    n_components: int | None = None,
    density: None = None,
) -> NDArray[np.float64]:
    """Return a part of the random matrix behind `project`.

    Parameters
    ----------
    kind, seed, density
        As for `project`.
    rows, cols : slice
        Components and features, without a step; a start that is None means 0. A stop is needed, but
        for rows when `n_components` is given.
    n_components : int, optional
        If given, the entries are scaled by ``1 / sqrt(n_components)``, as `project` scales, and
        rows end there. If not, they are +-1 or standard normal.

    Returns
    -------
    ndarray of float64, shape (rows, columns)
        Equal to the same part of any larger block.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit.

    Examples
    --------
    >>> import slipstick
    >>> slipstick.projection.block("rademacher", 7, slice(4), slice(2**40, 2**40 + 2))
    array([[ 1.,  1.],
           [ 1.,  1.],
           [-1., -1.],
           [-1.,  1.]])
    """
    bits = _component_bits("block", kind)
    _check_density("block", kind, density)
    seed = _integer("block", "seed", seed, 0, 64)
    scale = 1.0
    if n_components is not None:
        n_components = _integer("block", "n_components", n_components, 1, bits)
        scale = 1 / math.sqrt(n_components)
    row, n_rows = _range("rows", rows, bits, n_components)
    col, n_cols = _range("cols", cols, 64, None)
    entries = np.empty((n_rows, n_cols))
    _cpu.projection_block(kind, seed, row, col, scale, entries)
    return entries


def min_dim(
    n_samples: ArrayLike,
    eps: ArrayLike,
    *,
    delta: ArrayLike | None = None,
    guarantee: str = "all_pairs",
    on: str = "squared",
) -> Any:
    """Return how many components keep distances within a factor 1 +- `eps`.

    Parameters
    ----------
    n_samples : int or array of ints
        The number N of points, at least 1.
    eps : float or array of floats
        The distortion allowed, between 0 and 1.
    delta : float or array of floats, optional
        The probability of failure allowed, between 0 and 1. None gives the classical bound ``4 ln N
        / (eps**2 / 2 - eps**3 / 3)``, rounded down, the integers of scikit-learn; its proof leaves
        a probability of failure of up to 1 - 1/N.
    guarantee : {"all_pairs", "each_pair"}
        Whether all N (N - 1) / 2 distances hold together, or each one by itself.
    on : {"squared", "distance"}
        Whether `eps` bounds squared distances or distances themselves; the latter needs a quarter
        of k.

    Returns
    -------
    int, or ndarray of int64
        An array where an argument is one; arguments broadcast.

    Raises
    ------
    TypeError, ValueError
        For arguments outside these bounds; delta=None knows "all_pairs" and "squared" alone.

    Notes
    -----
    With `delta` the result is the smallest k for which the union bound over the pairs holds with
    the chi-square law of ``k |y|**2 / |x|**2``, exact for "gaussian" and an approximation for other
    kinds. Source of the classical bound: S. Dasgupta and A. Gupta, "An elementary proof of a
    theorem of Johnson and Lindenstrauss", 2003.

    Examples
    --------
    >>> import slipstick
    >>> slipstick.projection.min_dim(1000, 0.1)
    5920
    >>> slipstick.projection.min_dim(1000, 0.1, delta=0.05)
    5806
    >>> slipstick.projection.min_dim(1000, 0.1, delta=0.05, guarantee="each_pair")
    768
    """
    samples = _numbers("n_samples", n_samples, "iu", "an int")
    if np.any(samples < 1):
        raise ValueError(f"min_dim: `n_samples` must be at least 1, got {samples[samples < 1][0]}")
    epsilon = _fractions("eps", eps)
    _check_choice("guarantee", guarantee, ("all_pairs", "each_pair"))
    _check_choice("on", on, ("squared", "distance"))
    if delta is None:
        for name, given, needed in (
            ("guarantee", guarantee, "all_pairs"),
            ("on", on, "squared"),
        ):
            if given != needed:
                raise ValueError(
                    f"min_dim: `{name}` must be {needed!r} while `delta` is None, got {given!r}"
                )
        samples, epsilon = _broadcast(n_samples=samples, eps=epsilon)
        real = 4 * np.log(samples) / ((epsilon**2 / 2) - (epsilon**3 / 3))
        _check_size(epsilon, real)
        result = real.astype(np.int64)
    else:
        samples, epsilon, failure = _broadcast(
            n_samples=samples, eps=epsilon, delta=_fractions("delta", delta)
        )
        # The classical bound on k for `failure`, which the exact k does not pass.
        _check_size(epsilon, (4 * np.log(samples) - 2 * np.log(failure) + 2) / (epsilon**2 / 6))
        result = np.empty(samples.shape, np.int64)
        for index in np.ndindex(samples.shape):
            n, e = int(samples[index]), float(epsilon[index])
            pairs = n * (n - 1) / 2 if guarantee == "all_pairs" else 1.0
            low, high = (-e, e) if on == "squared" else (-e * (2 - e), e * (2 + e))
            # One point has no distances to keep.
            result[index] = smallest_k(low, high, float(failure[index]) / pairs) if pairs else 1
    return result if result.ndim else int(result)


def _component_bits(function: str, kind: str) -> int:
    if not isinstance(kind, str):
        raise TypeError(f"{function}: `kind` must be a str, got {type(kind).__name__}")
    if kind not in _COMPONENT_BITS:
        known = " or ".join(repr(name) for name in _COMPONENT_BITS)
        raise ValueError(f"{function}: `kind` must be {known}, got {kind!r}")
    return _COMPONENT_BITS[kind]


def _check_density(function: str, kind: str, density: Any) -> None:
    if density is not None:
        raise ValueError(f"{function}: `density` must be None for kind {kind!r}, got {density!r}")


def _integer(function: str, name: str, value: SupportsIndex, low: int, bits: int) -> int:
    """Return `value` as an int, if it lies in [low, 2**bits) (up to 2**bits for a count)."""
    number = _index(value)
    if number is None:
        raise TypeError(f"{function}: `{name}` must be an int, got {type(value).__name__}")
    last = (1 << bits) - 1 + low
    if not low <= number <= last:
        text = f"2**{bits}" if low else f"2**{bits} - 1"
        raise ValueError(f"{function}: `{name}` must be between {low} and {text}, got {number}")
    return number


def _index(value: Any) -> int | None:
    """Return an int of Python, NumPy or a framework as an int; None for anything else."""
    if type(value) is int:  # the common case, for speed
        return value
    if isinstance(value, (bool, np.bool_)):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def _range(name: str, part: slice, bits: int, length: int | None) -> tuple[int, int]:
    """Return the first index and the number of indices of a slice."""
    if not isinstance(part, slice):
        raise TypeError(f"block: `{name}` must be a slice, got {type(part).__name__}")
    if part.step is not None and part.step != 1:
        raise ValueError(f"block: `{name}` must have no step, got {part}")
    stop = length if part.stop is None else part.stop
    if stop is None:
        raise ValueError(f"block: `{name}` must have a stop, got {part}")
    first, end = _index(0 if part.start is None else part.start), _index(stop)
    if first is None or end is None:
        raise TypeError(f"block: `{name}` must be a slice of ints, got {part}")
    last, text = (1 << bits, f"2**{bits}") if length is None else (length, f"n_components={length}")
    if not (0 <= first <= last and 0 <= end <= last):
        raise ValueError(f"block: `{name}` must lie between 0 and {text}, got {part}")
    # An empty slice may start at the end, which is no index.
    return (first, end - first) if end > first else (0, 0)


def _numbers(name: str, values: ArrayLike, kinds: str, expected: str) -> NDArray[Any]:
    array = np.asarray(values)
    if array.dtype.kind not in kinds:
        raise TypeError(f"min_dim: `{name}` must be {expected} or an array of them, got {values!r}")
    return array


def _fractions(name: str, values: ArrayLike) -> NDArray[np.float64]:
    array = _numbers(name, values, "fiu", "a float").astype(np.float64)
    inside = (array > 0) & (array < 1)
    if not np.all(inside):
        raise ValueError(
            f"min_dim: `{name}` must be greater than 0 and less than 1, got {array[~inside][0]}"
        )
    return array


def _broadcast(**arrays: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    try:
        return np.broadcast_arrays(*arrays.values())
    except ValueError:
        names = ", ".join(f"`{name}`" for name in arrays)
        shapes = ", ".join(str(array.shape) for array in arrays.values())
        raise ValueError(
            f"min_dim: {names} must broadcast with each other, got shapes {shapes}"
        ) from None


def _check_size(epsilon: NDArray[np.float64], components: NDArray[np.float64]) -> None:
    too_many = components >= 2.0**63
    if np.any(too_many):
        raise ValueError(
            f"min_dim: `eps` must be large enough for fewer than 2**63 components, "
            f"got {epsilon[too_many][0]}"
        )


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        expected = " or ".join(repr(choice) for choice in choices)
        message = f"min_dim: `{name}` must be {expected}, got {value!r}"
        raise ValueError(message) if isinstance(value, str) else TypeError(message)
