"""Error metrics as of Jiang, Santiago, Mo, Liu and Lombardi 2020, of all pairs of an experiment."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class ErrorStatistics(NamedTuple):
    """Metrics of P against T; RE = (P - T) / T, ED = P - T.

    bias, mred, peak_low, peak_high, variance (of the population) and quantiles are of RE, where T
    is not 0. med is the mean of abs(ED), nmed med over the largest exact product, error_rate the
    share of P != T and worst_case the largest abs(ED), over all pairs. worst_pairs are the indices
    at which abs(RE) is largest.
    """

    bias: float
    mred: float
    peak_low: float
    peak_high: float
    variance: float
    med: float
    nmed: float
    error_rate: float
    worst_case: int
    worst_pairs: list[tuple[int, ...]]
    quantiles: tuple[float, ...]


def error_statistics(
    product: ArrayLike,
    exact: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    count_zeros: bool = False,
) -> ErrorStatistics:
    """Compare integer products with exact ones of the same shape, each with its weight.

    Pairs of weight 0 do not occur. `count_zeros` counts RE = 0 where the exact product is 0,
    instead of leaving the pair out. A quantile q is the least RE that, with those below it, has
    at least the share q of the weight.

    >>> a = np.arange(1, 4)
    >>> error_statistics([[1, 2, 3], [2, 4, 6], [3, 6, 8]], np.multiply.outer(a, a)).worst_pairs
    [(2, 2)]
    """
    p, t = np.asarray(product).astype(np.int64), np.asarray(exact).astype(np.int64)
    w = np.ones(p.shape) if weights is None else np.asarray(weights).astype(np.float64)
    distance = np.abs(p - t)
    med = float((w * distance).sum() / w.sum())
    counted = (w > 0) & ((t != 0) | count_zeros)
    relative = np.where(t == 0, 0.0, (p - t) / np.where(t == 0, 1, t))
    re, share = relative[counted], w[counted] / w[counted].sum()
    bias = float((share * re).sum())
    worst = counted & (np.abs(relative) == np.abs(re).max())
    order = np.argsort(re)
    cumulative = np.cumsum(w[counted][order])
    at = np.searchsorted(cumulative, np.array(QUANTILES) * cumulative[-1])
    return ErrorStatistics(
        bias=bias,
        mred=float((share * np.abs(re)).sum()),
        peak_low=float(re.min()),
        peak_high=float(re.max()),
        variance=float((share * (re - bias) ** 2).sum()),
        med=med,
        nmed=med / int(np.abs(t).max()),
        error_rate=float(w[p != t].sum() / w.sum()),
        worst_case=int(distance[w > 0].max()),
        worst_pairs=[tuple(int(i) for i in index) for index in np.argwhere(worst)],
        quantiles=tuple(float(q) for q in re[order][at]),
    )
