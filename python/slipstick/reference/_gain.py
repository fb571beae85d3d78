"""The gain of a method: by how much a sum of its products falls short."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from slipstick.reference._methods import DEFAULT_WIDTHS, lmul_l, realm_table


def gain(
    bias: float = 0.0,
    *,
    method: str = "mitchell",
    width: int | None = None,
    table: ArrayLike | None = None,
    fraction: int = 23,
) -> float:
    """Return E[P T] / E[T^2] of the product P and the exact one T, log-uniform operands.

    Under the density 1 / (T ln^2 2) of the significands that is (4/9) times the mean of V over the
    unit square. Operands are continuous, or, where the method drops bits, take the values that it
    leaves. `fraction` counts the fraction bits of the format, on which "mbm" with truncation and
    "alm-soa" depend.

    >>> round(27 * gain(0.0), 12)
    26.0
    >>> round(gain(method="ilm", width=0), 12) == round(8 / 9, 12)
    True
    """
    if width is None:
        width = DEFAULT_WIDTHS.get(method, 0)
    if method == "mitchell":
        return _bit_sum(bias)
    if method == "lmul":
        bits = width or fraction
        d = 2.0 ** -lmul_l(bits)
        # Rounding to a grid of step h makes the mean a trapezoidal rule, too large by h^3 / 12
        # times the jump of the slope in every cell that a kink crosses: (1 - d) / h of them with
        # jump 1 and d / h with jump 2.
        h = 2.0**-bits if bits < fraction else 0.0
        return _bit_sum(d) + 4 / 9 * h * h * (1 + d) / 12
    if method == "lmul-formula":
        bits = width or fraction
        c = 2.0 ** -lmul_l(bits)
        h = 2.0**-bits if bits < fraction else 0.0
        # An operand rounded up to 2 (probability h / 2) doubles what the other adds, and c.
        one_carry = h * ((1 - h) / 2 + c * (1 - h / 2))
        return 4 / 9 * (2 + c + one_carry + h * h / 4 * (1 + 3 * c))
    if method == "mbm":
        return 4 / 9 * (_mbm_mean(width, fraction))
    if method == "realm":
        return 4 / 9 * (13 / 6 + float(realm_table(width).mean()) / 64)
    if method == "ilm":
        # P = A B - (what remains of A) (what remains of B), on average 1/2 after the first leading
        # one is removed and a third of that after each further one.
        return float(1 - 9.0 ** -(width + 1))
    if method == "mitch-w":
        h = 2.0 ** (1 - min(width, fraction + 1))
        return 4 / 9 * (1 + (1 - h) + (1 - h) * (1 - 2 * h) / 6)
    if method == "drum":
        return 1.0 if width > 1 else 4 / 9  # the bit that is set stands for the mean of those lost
    if method == "alm-soa":
        return 4 / 9 * _set_one_adder_mean(width, fraction)
    entries = np.asarray(table)
    if method != "table" or len(entries) == 256:
        raise ValueError(f"gain: {method!r} has no mantissas of its own")
    bits = len(entries).bit_length() - 1
    mantissas = entries.astype(np.int64)
    values = (1 + (mantissas & 0x7F) / 2.0**bits) * (1 + (mantissas >> 7))
    return float(4 / 9 * values.mean())


def _bit_sum(d: float) -> float:
    return (4 / 9) * (2 + 2 * d + (1 - d) ** 3 / 6 + d**3 / 3)


def _mbm_mean(truncate: int, fraction: int) -> float:
    c = 5 / 64
    if truncate == 0:  # the skipped corner is a triangle of side c / 2
        return 13 / 6 + c * (1 - c * c / 8)
    # Odd multiples of 1 / 2n, n each: their sums are (i + j + 1) / n, above 1 by t / n in n - t
    # ways. The correction is skipped where t / n >= 1 - c / 2.
    n = 1 << (fraction - truncate - 1)
    skipped = n - math.ceil(n * (1 - c / 2))
    return 2 + (n * n - 1) / (6 * n * n) + c * (1 - skipped * (skipped + 1) / (2 * n * n))


def _set_one_adder_mean(width: int, fraction: int) -> float:
    n = 1 << (fraction - width)  # values of the bits that are added, in units of 1 / n
    ones = (2**width - 1) / 2**fraction
    # The sum above 1 by t / n + ones, in n - 1 - t ways without the carry and n - t with it; the
    # carry has probability 1/4.
    without = (n - 1) * (n - 2) / (6 * n * n) + ones * (n - 1) / (2 * n)
    carrying = (n * n - 1) / (6 * n * n) + ones * (n + 1) / (2 * n)
    return float(1 + (1 - 1 / n) + 1 / (4 * n) + ones + 3 / 4 * without + 1 / 4 * carrying)
