"""Matrix products with approximate products and ordinary sums."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from slipstick import _cpu
from slipstick._arrays import framework_of
from slipstick._numbers import given, is_number, to_float
from slipstick.mitchell._elementwise import multiply
from slipstick.mitchell._methods import Method, Mitchell, as_method

_FRACTION_BITS = {"float32": 23, "float64": 52, "float16": 10, "bfloat16": 7}


@lru_cache
def gain(method: Method, fraction: int) -> float:
    """Return E[P T] / E[T^2] of the product P and the exact one T, log-uniform operands.

    `fraction` counts the fraction bits of the operands' format. The density of log-uniform
    significands is 1 / (T ln^2 2), so that the gain is 4/9 of the mean of P over the unit square of
    fractions. Mitchell's method has the closed form (4/9) (2 + 2 d + (1 - d)^3 / 6 + d^3 / 3),
    26/27 without an offset; others are averaged over a grid.
    """
    if isinstance(method, Mitchell):
        d = method.bias or 0.0
        return 4 / 9 * (2 + 2 * d + (1 - d) ** 3 / 6 + d**3 / 3)
    # The format's own fractions where that is possible, else midpoints: the kinks of P leave errors
    # of the square of the step, 1e-7.
    bits = min(fraction, 10)
    dtype, step = ("float16", 2.0**-bits) if fraction == 10 else ("float32", 2.0**-bits)
    grid = np.arange(1 << bits) * step + (step / 2 if fraction > bits else 0.0)
    values = (1 + grid).astype(dtype)
    if fraction == 7:
        import ml_dtypes

        values = values.astype(ml_dtypes.bfloat16)
    products = multiply(values[:, np.newaxis], values[np.newaxis, :], method=method)
    return float(4 / 9 * products.astype(np.float64).mean())


def matmul(
    a: Any,
    b: Any,
    *,
    method: str | Method = "mitchell",
    correction: str | float | None = None,
    out: Any = None,
) -> Any:
    """Multiply matrices with approximate products and ordinary sums.

    Parameters
    ----------
    a : array of shape (..., m, k) or (k,)
    b : array of shape (..., k, n) or (k,)
        Operands of one dtype, as in `multiply`. Leading axes broadcast as in `numpy.matmul`.
    method : str or Method
        One of `methods()`, or an object such as `Mitchell()`.
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
    chosen = as_method("matmul", method)
    multiplier = _multiplier(a, chosen, correction)
    return framework.finish(_cpu.matmul(a, b, chosen._native, multiplier, out, framework.empty))


def _multiplier(a: Any, method: Method, correction: str | float | None) -> float:
    if correction is None:
        return 1.0
    dtype = str(getattr(a, "dtype", "")).rpartition(".")[2]
    if "int" in dtype:
        raise ValueError(f"matmul: `correction` must be None for integers, got {given(correction)}")
    if isinstance(correction, str) and correction == "gain":
        return 1 / gain(method, _FRACTION_BITS.get(dtype, 23))
    if is_number(correction):
        if math.isfinite(to_float(correction)):
            return to_float(correction)
        raise ValueError(f"matmul: `correction` must be finite, got {given(correction, str)}")
    message = f"matmul: `correction` must be None, 'gain' or a number, got {given(correction)}"
    raise ValueError(message) if isinstance(correction, str) else TypeError(message)
