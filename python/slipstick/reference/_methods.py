"""What each method makes of two significands.

A method has two steps. `PREPARE` shortens an operand: from (power, fraction) to the same, in a
format of m fraction bits, `present` of which an operand has. `VALUE` gives V, the product in units
of 2^(k1 + k2), as an exact integer in units of 2^-unit. Arrays hold int64 or Python ints.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Parameters(NamedTuple):
    """Parameters of a product: m of the format, and those of the method, None resolved."""

    m: int
    width: int
    offset: Any  # of "mitchell", in units of 2^-unit
    unit: int  # what V counts is 2^-unit


DEFAULT_WIDTHS = {"mbm": 0, "realm": 16, "ilm": 1, "mitch-w": 6, "drum": 6, "alm-soa": 4}

# Their V has more fraction bits than an operand: floats round it once, matrix products not at all.
REAL_PRODUCTS = ("lmul-formula", "ilm", "drum")

# For gradients: adding bits to the fractions, nothing dropped.
CARRYING = ("mitchell", "lmul", "mbm", "realm")


def lmul_l(bits: int) -> int:
    """Return l of the offset 2^-l for a mantissa of `bits` bits."""
    return bits if bits <= 3 else 3 if bits == 4 else 4


# --- operands -------------------------------------------------------------------------------------


def _keep_top(fraction: Array, m: int, kept: int) -> Array:
    return (fraction >> (m - kept)) << (m - kept)


def _round_to(power: Array, fraction: Array, p: Parameters, _: Any) -> tuple[Array, Array]:
    """L-Mul: round to `width` fraction bits, ties to even; a carry raises the power of two."""
    dropped = p.m - p.width
    if dropped <= 0:
        return power, fraction
    kept, rest = fraction >> dropped, fraction & ((1 << dropped) - 1)
    half = 1 << (dropped - 1)
    up = (rest > half) | ((rest == half) & ((kept & 1) == 1))
    kept = kept + np.where(up, 1, 0)
    carry = kept >> p.width
    return power + carry, (kept & ((1 << p.width) - 1)) << dropped


def _set_last_kept(power: Array, fraction: Array, p: Parameters, _: Any) -> tuple[Array, Array]:
    """MBM: clear the `width` lowest bits and set the one above, unless `width` is 0."""
    if p.width == 0:
        return power, fraction
    return power, _keep_top(fraction, p.m, p.m - p.width) | (1 << p.width)


def _cut(power: Array, fraction: Array, p: Parameters, _: Any) -> tuple[Array, Array]:
    """Mitch-w: `width` counts the leading one."""
    return power, _keep_top(fraction, p.m, min(p.width - 1, p.m))


def _shorten(power: Array, fraction: Array, p: Parameters, present: Any) -> tuple[Array, Array]:
    """DRUM: where an operand has more than `width` bits keep those and set the last."""
    kept = p.width - 1
    if kept >= p.m:
        return power, fraction
    # With kept = 0 the last bit kept is the leading one.
    last = 1 << (p.m - kept) if kept else 0
    return power, np.where(present > kept, _keep_top(fraction, p.m, kept) | last, fraction)


Prepare = Callable[[Array, Array, Parameters, Any], tuple[Array, Array]]

PREPARE: dict[str, Prepare] = {
    "lmul": _round_to,
    "lmul-formula": _round_to,
    "mbm": _set_last_kept,
    "mitch-w": _cut,
    "drum": _shorten,
}


# --- products -------------------------------------------------------------------------------------


def _bit_sum(s: Array, unit: int) -> Array:
    """1 + s below 1, 2 s below 2, 4 (s - 1) below 3: 2^floor(s) (1 + s - floor(s))."""
    carries = s >> unit
    return np.asarray(((1 << unit) + s - (carries << unit)) << carries)


def _mitchell(x: Array, y: Array, p: Parameters) -> Array:
    return _bit_sum(x + y + p.offset, p.unit)


def _lmul(x: Array, y: Array, p: Parameters) -> Array:
    return _bit_sum(x + y + (1 << (p.unit - lmul_l(p.width))), p.unit)


def _lmul_formula(x: Array, y: Array, p: Parameters) -> Array:
    return (1 << p.unit) + x + y + (1 << (p.unit - lmul_l(p.width)))


def _mbm(x: Array, y: Array, p: Parameters) -> Array:
    """M + c; left out where the sum carries and the corrected significand would again."""
    one = 1 << p.unit
    c = 5 * one // 64
    s = x + y
    skip = 2 * (s - one) + c >= 2 * one
    return np.where(s < one, one + s + c, np.where(skip, 2 * s, 2 * s + c))


def _realm(x: Array, y: Array, p: Parameters) -> Array:
    """M + s_ij, with segments by the top bits of the fractions."""
    segment_bits = p.width.bit_length() - 1
    i, j = ((f >> (p.unit - segment_bits)).astype(np.intp) for f in (x, y))
    s = realm_table(p.width)[i, j].astype(x.dtype)
    return np.asarray(_bit_sum(x + y, p.unit) + (s << (p.unit - 6)))


def _ilm(x: Array, y: Array, p: Parameters) -> Array:
    """Add basic blocks of what remains; x and y have p.unit / 2 bits here."""
    m = p.unit // 2
    a, b = (1 << m) + x, (1 << m) + y
    total = np.zeros_like(a)
    for _ in range(p.width + 1):
        top_a, top_b = leading(a), leading(b)
        total = total + np.where(
            (a == 0) | (b == 0), 0, top_a * top_b + (a - top_a) * top_b + (b - top_b) * top_a
        )
        a, b = a - top_a, b - top_b
    return total


def _exact(x: Array, y: Array, p: Parameters) -> Array:
    one = 1 << (p.unit // 2)
    return np.asarray((one + x) * (one + y))


def _set_one_adder(x: Array, y: Array, p: Parameters) -> Array:
    w = p.width
    carry = (x >> (w - 1)) & (y >> (w - 1)) & 1
    s = (((x >> w) + (y >> w) + carry) << w) | ((1 << w) - 1)
    return _bit_sum(s, p.unit)


VALUE: dict[str, Callable[[Array, Array, Parameters], Array]] = {
    "mitchell": _mitchell,
    "lmul": _lmul,
    "lmul-formula": _lmul_formula,
    "mbm": _mbm,
    "realm": _realm,
    "ilm": _ilm,
    "mitch-w": lambda x, y, p: _bit_sum(x + y, p.unit),
    "drum": _exact,
    "alm-soa": _set_one_adder,
}


def leading(a: Array) -> Array:
    """Return the leading power of two of nonnegative integers, 0 of 0."""
    if a.dtype == object:
        return np.asarray(np.frompyfunc(lambda v: 1 << (v.bit_length() - 1) if v else 0, 1, 1)(a))
    for shift in (1, 2, 4, 8, 16, 32):  # smear the leading one downwards
        a = a | (a >> shift)
    return np.asarray(a - (a >> 1))


@cache
def realm_table(segments: int) -> NDArray[np.int64]:
    """Return 64 s_ij: s = E[(T - M) / T] / E[1 / T] over a segment, rounded.

    T = (1 + x)(1 + y). T - M is x y where x + y < 1, else (1 - x)(1 - y). Gauss-Legendre in x and,
    on both sides of the line x + y = 1, in y; smooth pieces, so 20 nodes are exact to rounding.
    """
    nodes, weights = np.polynomial.legendre.leggauss(20)
    nodes, weights = (nodes + 1) / 2, weights / 2
    low = np.arange(segments) / segments
    # Axes: segment of x, segment of y, node of x, node of y.
    x = low[:, None, None, None] + (nodes / segments)[:, None]
    y_low = low[None, :, None, None]
    y_high = y_low + 1 / segments
    line = np.clip(1 - x, y_low, y_high)

    def mean(f: Callable[[Array], Array], start: Array, stop: Array) -> Array:
        y = start + (stop - start) * nodes
        inner = ((stop - start) * f(y) / ((1 + x) * (1 + y))) @ weights
        return np.asarray(inner @ weights / segments)

    missing = mean(lambda y: x * y, y_low, line) + mean(lambda y: (1 - x) * (1 - y), line, y_high)
    density = mean(np.ones_like, y_low, y_high + 0 * x)
    return np.rint(64 * missing / density).astype(np.int64)
