"""Random projection, entry by entry: Su Jianlin, kexue.fm, 2021-09-17 and 2021-09-24."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slipstick._chi2 import smallest_k
from slipstick._gaussian import gaussian_from_bits
from slipstick._philox import philox4x32
from slipstick.reference._transforms import srht_block

Array = NDArray[Any]

_LOW = np.uint64(0xFFFFFFFF)
_RADEMACHER_TAG = 0x52414400
_GAUSSIAN_TAG = 0x47415500
_SPARSE_TAG = 0x53505200
_HASHED_TAG = 0x534A4C00


def _words(tag: int, seed: int, number: Array, columns: Array) -> Array:
    """32-bit word `number` of the stream of each column: uint32 (len(number), len(columns)).

    Counter (c0, c1, c2, c3) = (number >> 2, low half of the column, high half, tag).
    """
    groups, where = np.unique(number >> np.uint64(2), return_inverse=True)
    counter = np.zeros((len(groups), len(columns), 4), dtype=np.uint64)
    counter[..., 0] = groups[:, np.newaxis]
    counter[..., 1] = columns & _LOW
    counter[..., 2] = columns >> np.uint64(32)
    counter[..., 3] = tag
    words = philox4x32(counter, [seed & 0xFFFFFFFF, seed >> 32])
    column = np.arange(len(columns))
    return np.asarray(words[where[:, np.newaxis], column, (number & np.uint64(3))[:, np.newaxis]])


def _indices(part: slice) -> Array:
    """Return the global indices of a slice with an end, uint64 up to 2^64 - 1."""
    start = part.start or 0
    return np.asarray(np.uint64(start) + np.arange(part.stop - start, dtype=np.uint64))


def nonzeros(kind: str, n_components: int, density: float | None) -> int:
    """Return the nonzeros of a column of "sjlt" or "countsketch"."""
    if kind == "countsketch":
        return 1
    return min(8, n_components) if density is None else round(density * n_components)


def _hashed(seed: int, i: Array, j: Array, n_components: int, s: int) -> Array:
    """Entries 0 and +-1, one of these in each of s blocks of components and each column.

    Block r holds the rows from floor(r k / s) on. Counter (r, low j, high j): word 0 times the
    block's height, shifted down by 32, is the row within it, bit 0 of word 1 the sign.
    """
    entries = np.zeros((len(i), len(j)))
    for r in range(s):
        begin, end = r * n_components // s, (r + 1) * n_components // s
        number = np.array([4 * r, 4 * r + 1], dtype=np.uint64)
        place, sign = _words(_HASHED_TAG, seed, number, j)
        row = ((place.astype(np.uint64) * np.uint64(end - begin)) >> np.uint64(32)) + begin
        entries += np.where(i[:, np.newaxis] == row.astype(np.uint64), 1.0 - 2.0 * (sign & 1), 0.0)
    return entries


def block(
    kind: str,
    seed: int,
    rows: slice,
    cols: slice,
    *,
    n_components: int | None = None,
    density: float | None = None,
) -> NDArray[np.float64]:
    """Return any (rows, cols) of the random matrix A, scaled if `n_components` is given.

    Row i is a component, column j a feature; every entry is a function of (seed, i, j) alone.
    "rademacher": 1 - 2 * bit, one bit an entry. "gaussian": `gaussian_from_bits`, one word an
    entry. "sparse": one word an entry, its upper 31 bits against floor(density 2^31 + 1/2), bit 0
    the sign. "srht": `srht_block`. The scale is 1/sqrt(n_components), "sparse":
    sqrt(1/density)/sqrt(n_components). "sjlt" and "countsketch": s entries a column that are not 0,
    scaled by 1/sqrt(s).

    >>> block("rademacher", 7, slice(0, 8), slice(0, 1))[:, 0].astype(int).tolist()
    [-1, -1, 1, 1, -1, 1, -1, -1]
    """
    i, j = _indices(rows), _indices(cols)
    if kind == "rademacher":
        words = _words(_RADEMACHER_TAG, seed, i >> np.uint64(5), j)
        bits = (words >> (i & np.uint64(31)).astype(np.uint32)[:, np.newaxis]) & 1
        entries = 1.0 - 2.0 * bits
    elif kind == "gaussian":
        entries = gaussian_from_bits(_words(_GAUSSIAN_TAG, seed, i, j)).astype(np.float64)
    elif kind == "sparse":
        assert density is not None
        words = _words(_SPARSE_TAG, seed, i, j)
        entries = np.where(words >> 1 < int(density * 2**31 + 0.5), 1.0 - 2.0 * (words & 1), 0.0)
    elif kind in ("sjlt", "countsketch"):
        assert n_components is not None
        entries = _hashed(seed, i, j, n_components, nonzeros(kind, n_components, density))
    elif kind == "srht":
        entries = srht_block(seed, i, j)
    else:
        raise ValueError(f"block: `kind` must be one of the family's, got {kind!r}")
    if n_components is None:
        return np.asarray(entries)
    return np.asarray(entries * _scale(kind, n_components, density))


def _scale(kind: str, n_components: int, density: float | None) -> float:
    if kind in ("sjlt", "countsketch"):
        return float(1 / np.sqrt(nonzeros(kind, n_components, density)))
    return float(np.sqrt(1 / density if density else 1) / np.sqrt(n_components))


def project(
    x: ArrayLike,
    n_components: int,
    *,
    kind: str = "rademacher",
    seed: int = 0,
    density: float | None = None,
    first_feature: int = 0,
) -> NDArray[np.float64]:
    """Multiply x (..., features) by the scaled A^T, to (..., n_components).

    The scale keeps squared norms on average. `first_feature` is the global index of column 0 of x.

    >>> float(np.linalg.norm(project([0.0, 2.0, 0.0], 16)))  # a one-hot x keeps its norm
    2.0
    """
    x = np.asarray(x).astype(np.float64)
    matrix = _matrix(kind, seed, n_components, first_feature, x.shape[-1], density)
    return np.asarray((x @ matrix.T) * _scale(kind, n_components, density))


def _matrix(
    kind: str, seed: int, n_components: int, first_feature: int, n: int, density: float | None
) -> Array:
    """Return the unscaled entries of n columns."""
    rows, cols = slice(0, n_components), slice(first_feature, first_feature + n)
    if kind in ("sjlt", "countsketch"):
        return np.sign(block(kind, seed, rows, cols, n_components=n_components, density=density))
    return block(kind, seed, rows, cols, density=density)


def back_project(
    y: ArrayLike,
    n_features: int,
    *,
    kind: str = "rademacher",
    seed: int = 0,
    density: float | None = None,
    first_feature: int = 0,
) -> NDArray[np.float64]:
    """Multiply y (..., components) by the scaled A, to (..., n_features): the adjoint of `project`.

    >>> float(back_project(project([0.0, 2.0, 0.0], 16), 3)[1])
    2.0
    """
    y = np.asarray(y).astype(np.float64)
    matrix = _matrix(kind, seed, y.shape[-1], first_feature, n_features, density)
    return np.asarray((y @ matrix) * _scale(kind, y.shape[-1], density))


def min_dim(
    n_samples: ArrayLike,
    eps: ArrayLike,
    *,
    delta: ArrayLike | None = None,
    guarantee: str = "all_pairs",
    on: str = "squared",
) -> Any:
    """Return the number of components that keeps distances among N points within 1 +- `eps`.

    delta=None: floor(4 ln N / (eps^2/2 - eps^3/3)) of Dasgupta and Gupta, as in scikit-learn, for
    all pairs and squared distances. Otherwise the smallest k for which the union bound over the
    pairs ("each_pair": one pair) keeps the probability of failure at most `delta`; exact for
    Gaussian entries, where ``k |Ax|^2 / |x|^2`` has the chi-square law with k degrees.
    on="distance" takes eps on the distances themselves, (1 - eps)^2 .. (1 + eps)^2 on the squared
    ones.

    Arguments broadcast; the result is int64.

    >>> int(min_dim(1000, 0.1)), int(min_dim(1000, 0.1, delta=0.05))
    (5920, 5806)
    """
    if delta is None:
        e = np.asarray(eps, dtype=np.float64)
        return (4 * np.log(n_samples) / ((e**2 / 2) - (e**3 / 3))).astype(np.int64)

    def exact(n: int, eps: float, delta: float) -> int:
        low, high = (-eps, eps) if on == "squared" else (-eps * (2 - eps), eps * (2 + eps))
        pairs = n * (n - 1) / 2 if guarantee == "all_pairs" else 1
        return smallest_k(low, high, delta / pairs) if pairs else 1

    return np.asarray(np.frompyfunc(exact, 3, 1)(n_samples, eps, delta)).astype(np.int64)
