"""Tails of the chi-square distribution of k degrees, at multiples of k, for any k >= 1.

With X ~ chi2_k, a = k/2 and w = ln(X / k), the density of w is a^a exp(a (w - e^w)) / Gamma(a):
smooth on the whole line, without the endpoint singularity that X has for k < 2. Beyond (1 + eta)
times the mean, in either direction, the tail is therefore

    prefactor(a, eta) * integral over t >= 0 of exp(a (v - (1 + eta) (e^v - 1))),   v = +-t,

and the exponent is concave with slope -a |eta| at 0, so a fixed quadrature serves k = 1 and
k = 1e12 alike. A series or a continued fraction would need about 1/|eta| terms.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

__all__ = ["smallest_k", "tail"]

# 64 nodes leave a relative error of at most 1e-13; what remains at large k is the rounding of the
# exponent, 1e-12 at k = 1e8 (both against 40-digit quadrature).
_N_NODES = 64
# exp(-40) = 4e-18 is below the resolution of float64.
_CUT = -40.0


def tail(k: int, eta: float) -> float:
    """Return P(X >= (1 + eta) k) for eta > 0, P(X <= (1 + eta) k) for -1 < eta < 0; X ~ chi2_k.

    >>> round(tail(2, 1.0), 12) == round(math.exp(-2.0), 12)  # P(chi2_2 >= 4)
    True
    """
    a, side = k / 2.0, math.copysign(1.0, eta)

    def exponent(t: Any) -> Any:
        v = side * t
        return a * (v - (1.0 + eta) * np.expm1(v))

    end = 1.0 / (1.0 + a)
    while exponent(end) > _CUT:
        end *= 1.25
    nodes, weights = _gauss_legendre()
    integral = 0.5 * end * float(np.sum(weights * np.exp(exponent(0.5 * end * (nodes + 1.0)))))
    return math.exp(_log_prefactor(a, eta)) * integral


@cache
def _gauss_legendre() -> tuple[Any, Any]:
    # On first use: at import it would cost 10 ms, most of it NumPy's polynomial package.
    return np.polynomial.legendre.leggauss(_N_NODES)


def _log_prefactor(a: float, eta: float) -> float:
    """Return a ln x - x - ln Gamma(a) at x = a (1 + eta), without its cancelling terms."""
    shape = a * (math.log1p(eta) - eta)
    if a < 16.0:
        return shape + a * math.log(a) - a - math.lgamma(a)
    # Stirling's series; its next term is below 1e-12 at a = 16.
    correction = 1 / (12 * a) - 1 / (360 * a**3) + 1 / (1260 * a**5) - 1 / (1680 * a**7)
    return shape + 0.5 * math.log(a / (2.0 * math.pi)) - correction


def smallest_k(low: float, high: float, failure: float) -> int:
    """Return the smallest k with P(X < (1 + low) k) + P(X > (1 + high) k) <= failure; X ~ chi2_k.

    -1 < low < 0 < high. The left side falls with k, so doubling and bisection find it.

    >>> smallest_k(-0.1, 0.1, 0.05)
    768
    """

    def holds(k: int) -> bool:
        return tail(k, low) + tail(k, high) <= failure

    above = 1
    while not holds(above):
        above *= 2
    below = above // 2  # 0, or a k that fails
    while above - below > 1:
        middle = (below + above) // 2
        if holds(middle):
            above = middle
        else:
            below = middle
    return above
