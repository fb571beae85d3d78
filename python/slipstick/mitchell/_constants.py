"""Constants of the methods, derived."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray


def lmul_offset(bits: int) -> int:
    """Return l of L-Mul's offset ``2**-l`` for a number of mantissa bits."""
    return bits if bits <= 3 else 3 if bits == 4 else 4


@cache
def realm_table(segments: int) -> NDArray[np.uint8]:
    """Return REALM's corrections times 64, rounded, as (segments, segments) uint8.

    s = -E[M/T - 1] / E[1/T] over a segment, with T = (1 + x)(1 + y). T - M is x y below the line
    x + y = 1 and (1 - x)(1 - y) above. The integral over y has a closed form and the one over x is
    smooth: 16 Gauss-Legendre nodes leave an error below 1e-15.
    """
    edges = np.arange(segments + 1) / segments
    nodes, weights = np.polynomial.legendre.leggauss(16)
    x = edges[:-1, np.newaxis, np.newaxis] + (nodes + 1) / (2 * segments)
    low, high = edges[:-1, np.newaxis], edges[1:, np.newaxis]  # of y, along the second axis
    split = np.clip(1 - x, low, high)

    def below(y: NDArray[Any]) -> NDArray[Any]:  # the integral of y / (1 + y)
        return np.asarray(y - np.log1p(y))

    def above(y: NDArray[Any]) -> NDArray[Any]:  # the integral of (1 - y) / (1 + y)
        return np.asarray(2 * np.log1p(y) - y)

    shortfall = x / (1 + x) * (below(split) - below(low))
    shortfall = shortfall + (1 - x) / (1 + x) * (above(high) - above(split))
    logs = np.diff(np.log1p(edges))
    correction = shortfall @ weights / (2 * segments) / np.multiply.outer(logs, logs)
    table = np.asarray(np.rint(64 * correction)).astype(np.uint8)
    table.setflags(write=False)
    return table


def float32_offset(c: int) -> float:
    """Return the offset of a published float32 constant C."""
    return (0x3F800000 - c) * 2.0**-23
