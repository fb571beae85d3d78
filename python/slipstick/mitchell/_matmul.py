"""Matrix products with approximate products and ordinary sums."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from slipstick._arrays import framework_of
from slipstick._numbers import given, is_number, to_float
from slipstick.mitchell._elementwise import multiply
from slipstick.mitchell._methods import Method, Mitchell, as_method

_FRACTION_BITS = {"float32": 23, "float64": 52, "float16": 10, "bfloat16": 7}
_GOLDEN = (5**0.5 - 1) / 2


@lru_cache
def gain(method: Method, fraction: int) -> float:
    """Return E[P T] / E[T^2] of the product P and the exact one T, log-uniform operands.

    `fraction` counts the fraction bits of the operands' format. The density of log-uniform
    significands is 1 / (T ln^2 2), so that the gain is the mean of P over that of T on the unit
    square of fractions. Mitchell's method has the closed form
    (4/9) (2 + 2 d + (1 - d)^3 / 6 + d^3 / 3), 26/27 without an offset. Others are averaged over a
    million pairs: all fractions of a 16-bit format, or else one of each 1024th, at golden-ratio
    steps so that low bits are set half of the time: within 2e-6.
    """
    if isinstance(method, Mitchell):
        d = method.offset
        return 4 / 9 * (2 + 2 * d + (1 - d) ** 3 / 6 + d**3 / 3)
    bits = min(fraction, 10)
    places = np.arange(1 << bits)
    within = places * _GOLDEN % 1 if fraction > bits else 0.0
    values: Any = 1 + (places + within) * 2.0**-bits
    if fraction == 7:
        import ml_dtypes

        values = values.astype(ml_dtypes.bfloat16)
    else:
        values = values.astype({10: "float16", 23: "float32", 52: "float64"}[fraction])
    products = multiply(values[:, np.newaxis], values[np.newaxis, :], method=method)
    return float(products.astype(np.float64).mean() / values.astype(np.float64).mean() ** 2)


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
        Operands of one dtype: float32, float64, float16, bfloat16, int8, int16, int32, uint8,
        uint16 or uint32; on a CUDA device float32, float16, bfloat16, int8 or uint8. Leading axes
        broadcast as in `numpy.matmul`.
    method : str or Method
        One of `methods()`, or an object such as `Mitchell()`.
    correction : None, "gain" or float
        A factor for the result: "gain" is the inverse of the method's gain E[P T] / E[T^2] for
        log-uniform operands, 27/26 for plain Mitchell and close to 1 for methods with an offset; a
        float is the factor itself. Floating-point operands only.
    out : array, optional
        Where to write; of the result's shape and dtype, sharing no memory with `a` or `b`.

    Returns
    -------
    array of shape (..., m, n), without the axis that a one-dimensional operand lacks
        In the framework of `a`, or `out`. float32, float16 and bfloat16 are summed in float32,
        float64 in float64, and rounded once. Integer sums are exact: int32 or uint32 for 8-bit
        operands, else int64 or uint64.

    Raises
    ------
    TypeError, ValueError
        For operands, a method, a correction or an `out` that do not fit, and for integers whose
        sums could overflow (on a CUDA device by their dtype, since it is not waited for to look at
        the numbers); nothing is written then.

    Notes
    -----
    Products are those of `multiply`; only `LMulFormula`, `ILM` and `DRUM`, which are defined by
    real products, enter a sum of floats unrounded. Sums run along k in chains of 256, each in
    order, whatever the number of threads or the device. Products with zeros, infinities and NaNs
    follow the rules of `multiply`.

    Examples
    --------
    >>> import numpy as np
    >>> import slipstick
    >>> a = np.float32([[3, 3], [1, 2]])
    >>> slipstick.mitchell.matmul(a, a)
    array([[11., 14.],
           [ 5.,  7.]], dtype=float32)
    >>> slipstick.mitchell.matmul(np.uint8([[200, 7]]), np.uint8([[3], [7]]), method="drum")
    array([[661]], dtype=uint32)
    """
    framework = framework_of("matmul", a, out)
    chosen = as_method("matmul", method)
    multiplier = _multiplier(a, chosen, correction)
    native = chosen._in(framework.kernels)
    product = framework.kernels.matmul(a, b, native, multiplier, out, framework.empty)
    return framework.finish(product)


def _multiplier(a: Any, method: Method, correction: str | float | None) -> float:
    if correction is None:
        return 1.0
    dtype = str(getattr(a, "dtype", "")).rpartition(".")[2]
    if "int" in dtype:
        raise ValueError(f"matmul: `correction` must be None for integers, got {given(correction)}")
    if isinstance(correction, str) and correction == "gain":
        try:
            return 1 / gain(method, _FRACTION_BITS.get(dtype, 23))
        except (TypeError, ValueError):
            return 1.0  # the method does not take the dtype: the product says so
    if is_number(correction):
        if math.isfinite(to_float(correction)):
            return to_float(correction)
        raise ValueError(f"matmul: `correction` must be finite, got {given(correction, str)}")
    message = f"matmul: `correction` must be None, 'gain' or a number, got {given(correction)}"
    raise ValueError(message) if isinstance(correction, str) else TypeError(message)
