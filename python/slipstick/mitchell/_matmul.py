"""Matrix products with approximate products and ordinary sums."""

from __future__ import annotations

import math
from typing import Any

from slipstick import _cpu
from slipstick._arrays import framework_of
from slipstick._numbers import is_number, to_float
from slipstick.mitchell._elementwise import _bias
from slipstick.mitchell._methods import Mitchell


def _gain(bias: float) -> float:
    """E[P T] / E[T^2] for log-uniform mantissas; 26/27 without an offset."""
    return 4 / 9 * (2 + 2 * bias + (1 - bias) ** 3 / 6 + bias**3 / 3)


def matmul(
    a: Any,
    b: Any,
    *,
    method: str | Mitchell = "mitchell",
    correction: str | float | None = None,
    out: Any = None,
) -> Any:
    """Multiply matrices with approximate products and ordinary sums.

    Parameters
    ----------
    a : array of shape (..., m, k) or (k,)
    b : array of shape (..., k, n) or (k,)
        Operands of one dtype, as in `multiply`. Leading axes broadcast as in `numpy.matmul`.
    method : str or Mitchell
        One of `methods()`, or a `Mitchell` object.
    correction : None, "gain" or float
        A factor for the result: "gain" is the inverse of the method's mean gain, 27/26 for plain
        Mitchell; a float is the factor itself. Floating-point operands only.
    out : array, optional
        Where to write; of the result's shape and dtype, sharing no memory with `a` or `b`.

    Returns
    -------
    array of shape (..., m, n)
        In the framework of `a`, or `out`. float32, float16 and bfloat16 are summed in float32,
        float64 in float64, and rounded once. Integer sums are exact: int32 or uint32 for 8-bit
        operands, else int64 or uint64.

    Raises
    ------
    TypeError, ValueError
        For operands, a method, a correction or an `out` that do not fit, and for integers whose
        sums could overflow; nothing is written then.

    Examples
    --------
    >>> import numpy as np
    >>> import slipstick
    >>> a = np.float32([[3, 3], [1, 2]])
    >>> slipstick.mitchell.matmul(a, a)
    array([[11., 14.],
           [ 5.,  7.]], dtype=float32)
    """
    framework = framework_of("matmul", a, out)
    bias = _bias("matmul", method)
    multiplier = _multiplier(a, bias, correction)
    native = Mitchell(bias)._native
    return framework.finish(_cpu.matmul(a, b, native, multiplier, out, framework.empty))


def _multiplier(a: Any, bias: float, correction: str | float | None) -> float:
    if correction is None:
        return 1.0
    if "int" in str(getattr(a, "dtype", "")):
        raise ValueError(f"matmul: `correction` must be None for integers, got {correction!r}")
    if isinstance(correction, str) and correction == "gain":
        return 1 / _gain(bias)
    if is_number(correction):
        if math.isfinite(to_float(correction)):
            return to_float(correction)
        raise ValueError(f"matmul: `correction` must be finite, got {correction}")
    message = f"matmul: `correction` must be None, 'gain' or a number, got {correction!r}"
    raise ValueError(message) if isinstance(correction, str) else TypeError(message)
