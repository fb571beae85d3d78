"""How well a projection kept the distances."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from slipstick._arrays import to_numpy
from slipstick._philox import philox4x32
from slipstick.projection._arguments import integer
from slipstick.projection._sparse_input import check_indices, is_sparse

Array = NDArray[Any]

PAIRS_TAG = 0x50414900
# The quantiles that a report holds.
LEVELS = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)

_CHUNK_BYTES = 1 << 24  # of float64 differences of pairs


class DistortionReport:
    """Ratios of squared distances after and before, over random pairs.

    Attributes
    ----------
    min, max, mean : float
        Of the ratios. ``1 - eps <= min`` and ``max <= 1 + eps`` is what `min_dim` promises for its
        `eps`.
    quantiles : dict
        From 0.01, 0.05, 0.25, 0.5, 0.75, 0.95 and 0.99 to the ratio that such a part of the pairs
        does not exceed, interpolated.
    ratios : ndarray of float64
        All of them, sorted.
    """

    def __init__(self, ratios: NDArray[np.float64]) -> None:
        self.ratios = np.sort(ratios)
        self.min = float(self.ratios[0])
        self.max = float(self.ratios[-1])
        self.mean = float(self.ratios.mean())
        self.quantiles = {q: float(np.quantile(self.ratios, q)) for q in LEVELS}

    def __repr__(self) -> str:
        return (
            f"DistortionReport(min={self.min:.4g}, max={self.max:.4g}, mean={self.mean:.4g}, "
            f"pairs={len(self.ratios)})"
        )

    def plot(self, ax: Any = None) -> Any:
        """Draw a histogram of the ratios with matplotlib.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; new ones if None.

        Returns
        -------
        matplotlib Axes
        """
        if ax is None:
            from matplotlib import pyplot

            ax = pyplot.figure().add_subplot()
        ax.hist(self.ratios, bins=min(100, max(10, int(len(self.ratios) ** 0.5))))
        ax.axvline(1, color="black", linewidth=1)
        for level in (0.05, 0.95):
            ax.axvline(self.quantiles[level], color="black", linewidth=1, linestyle="dashed")
        ax.set_xlabel("squared distance after / before")
        ax.set_ylabel("pairs")
        return ax


def distortion(x: Any, y: Any, *, n_pairs: int = 10_000, seed: int = 0) -> DistortionReport:
    """Compare squared distances among the rows of `y` with those among the rows of `x`.

    Parameters
    ----------
    x : array of shape (n_samples, n_features), or sparse matrix or array of SciPy
        The points; floats, integers or bools.
    y : array of shape (n_samples, n_components), or sparse
        Their projections.
    n_pairs : int
        How many pairs to draw, with replacement, at least 1. Pairs of equal points of `x` are left
        out of the report.
    seed : int
        From 0 to 2**64 - 1. It names the pairs.

    Returns
    -------
    DistortionReport

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit, infinities and NaNs, and when no pair has a distance.
    MemoryError
        For more pairs than ratios fit into memory.

    Notes
    -----
    Pair t takes words w0 and w1 of Philox4x32-10 at counter (low half of t, high half, 0,
    0x50414900): the first point is ``(w0 * n) >> 32``; the second is ``(w1 * (n - 1)) >> 32`` among
    the other points, in order. Computed in float64.

    Examples
    --------
    >>> import numpy as np
    >>> import slipstick
    >>> x = np.random.default_rng(0).standard_normal((100, 2000))
    >>> y = slipstick.projection.project(x, 500)
    >>> report = slipstick.projection.distortion(x, y, n_pairs=1000)
    >>> 0.7 < report.min < report.quantiles[0.5] < report.max < 1.3
    True
    """
    before, after = _points("x", x), _points("y", y)
    n = before.shape[0]
    if after.shape[0] != n:
        raise ValueError(
            f"distortion: `y` must have {n} rows like `x`, got shape {tuple(after.shape)}"
        )
    if not 2 <= n < 1 << 32:
        raise ValueError(f"distortion: `x` must have from 2 to 2**32 - 1 rows, got {n}")
    n_pairs = integer("distortion", "n_pairs", n_pairs, 1, 63)
    seed = integer("distortion", "seed", seed, 0, 64)
    step = max(1, _CHUNK_BYTES // (8 * (before.shape[1] + after.shape[1])))
    ratios = np.empty(n_pairs)
    used = 0
    for first in range(0, n_pairs, step):
        one, two = pairs(seed, first, min(step, n_pairs - first), n)
        old, new = _squares(before, one, two), _squares(after, one, two)
        if not (np.isfinite(old).all() and np.isfinite(new).all()):
            raise ValueError(
                "distortion: `x` and `y` must be finite and their squared distances too, "
                "got infinities or NaNs"
            )
        apart = old > 0
        count = int(np.count_nonzero(apart))
        ratios[used : used + count] = new[apart] / old[apart]
        used += count
    if not used:
        raise ValueError("distortion: `x` must have rows that differ, got none among the pairs")
    return DistortionReport(ratios[:used])


def pairs(seed: int, first: int, count: int, n: int) -> tuple[Array, Array]:
    """Return the two different points of each pair from number `first` on."""
    numbers = np.uint64(first) + np.arange(count, dtype=np.uint64)
    counters = np.zeros((count, 4), np.uint64)
    counters[:, 0] = numbers & np.uint64(0xFFFFFFFF)
    counters[:, 1] = numbers >> np.uint64(32)
    counters[:, 3] = PAIRS_TAG
    words = philox4x32(counters, [seed & 0xFFFFFFFF, seed >> 32])
    one = (words[:, 0].astype(np.uint64) * np.uint64(n)) >> np.uint64(32)
    two = (words[:, 1].astype(np.uint64) * np.uint64(n - 1)) >> np.uint64(32)
    return one.astype(np.int64), (two + (two >= one)).astype(np.int64)


def _points(name: str, array: Any) -> Any:
    if is_sparse(array):
        check_indices("distortion", name, array)
        points = array.tocsr()
    else:
        points = to_numpy("distortion", name, array)
    if points.ndim != 2:
        raise ValueError(f"distortion: `{name}` must have two axes, got shape {points.shape}")
    if points.dtype.kind not in "biuf" and points.dtype.name != "bfloat16":
        raise TypeError(
            f"distortion: `{name}` must be of floats, integers or bools, got {points.dtype}"
        )
    return points


def _squares(points: Any, one: Array, two: Array) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        difference = points[one].astype(np.float64) - points[two].astype(np.float64)
        if hasattr(difference, "tocsr"):
            return np.asarray(difference.multiply(difference).sum(axis=1)).ravel()
        return np.asarray(np.einsum("ij,ij->i", difference, difference))
