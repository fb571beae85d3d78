"""Mitchell's approximate multiplication: products by adding piecewise-linear logarithms.

J. N. Mitchell, "Computer Multiplication and Division Using Binary Logarithms", IRE Transactions on
Electronic Computers EC-11(4), 1962. A number ``2**k * (1 + x)`` has the approximate logarithm
``k + x``, which is its own bit pattern, so that a product is one integer addition. The relative
error of a product lies between -1/9 and 0, that of a quotient between 0 and +1/8.

This is a simulator: on a CPU or GPU the exact product is never slower. Subnormal operands count as
zero, and results below the normal range are flushed to zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from slipstick import _cpu
from slipstick._arrays import framework_of
from slipstick._numbers import is_number, to_float

__all__ = ["Mitchell", "divide", "matmul", "methods", "multiply"]


@dataclass(frozen=True)
class Mitchell:
    """Mitchell's method with an offset added to the sum of the mantissa fractions.

    Parameters
    ----------
    bias : float, optional
        The offset d, ``0 <= d < 1``, in ``1 + x + y + d`` (product) and ``x - y - d`` (quotient).
        None, the default, means 0: the method of 1962. In a format with m fraction bits it becomes
        ``round(d * 2**m)`` units of the bit pattern; integer products are the floor of the exact
        rational.

    Examples
    --------
    >>> import numpy as np
    >>> import slipstick
    >>> three = np.float32([3.0])
    >>> slipstick.mitchell.multiply(three, three, method=slipstick.mitchell.Mitchell())
    array([8.], dtype=float32)
    >>> slipstick.mitchell.multiply(three, three, method=slipstick.mitchell.Mitchell(bias=0.0625))
    array([8.5], dtype=float32)
    """

    bias: float | None = None

    def __post_init__(self) -> None:
        bias = self.bias
        if bias is None:
            return
        if not is_number(bias):
            raise TypeError(f"Mitchell: `bias` must be a number or None, got {type(bias).__name__}")
        if not 0 <= bias < 1:
            raise ValueError(f"Mitchell: `bias` must be at least 0 and less than 1, got {bias}")


# Offsets of the named methods in units of 2**-23, for products and for quotients. The product's are
# those of the public table of constants 0x3F78C094 and 0x3F772FAD. A quotient's error has another
# shape: there the mean vanishes at d = 0.0579951, and the extremes -d/(1+d) and (3-d)**2/8 - 1
# balance at the root of d**3 - 5 d**2 - 13 d + 1 = 0, d = 0.0748032.
_NAMED = {
    "mitchell": (0, 0),
    "zero-bias": (0x3F800000 - 0x3F78C094, 486_498),
    "minimax": (0x3F800000 - 0x3F772FAD, 627_494),
}


def methods() -> tuple[str, ...]:
    """Return the names that `method` accepts.

    Examples
    --------
    >>> import slipstick
    >>> slipstick.mitchell.methods()
    ('mitchell', 'zero-bias', 'minimax')
    """
    return tuple(_NAMED)


def _bias(function: str, method: str | Mitchell, *, quotient: bool = False) -> float:
    if isinstance(method, str) and method in _NAMED:
        return _NAMED[method][quotient] * 2.0**-23
    if isinstance(method, Mitchell):
        return 0.0 if method.bias is None else float(method.bias)
    expected = ", ".join(repr(name) for name in _NAMED)
    message = f"{function}: `method` must be a Mitchell object or one of {expected}, got {method!r}"
    raise ValueError(message) if isinstance(method, str) else TypeError(message)


def multiply(a: Any, b: Any, *, method: str | Mitchell = "mitchell", out: Any = None) -> Any:
    """Multiply elementwise by adding bit patterns.

    Parameters
    ----------
    a, b : array
        Operands of one dtype: float32, float64, float16, bfloat16, int8, int16, int32, uint8,
        uint16 or uint32. Shapes broadcast as in NumPy.
    method : str or Mitchell
        One of `methods()`, or a `Mitchell` object.
    out : array, optional
        Where to write; of the result's shape and dtype. It may be `a` or `b` itself.

    Returns
    -------
    array
        In the framework of `a`, or `out`. Floats keep their dtype; an integer product has the next
        wider dtype of the same signedness, and saturates there if an offset carries it beyond.

    Raises
    ------
    TypeError, ValueError
        For operands, a method or an `out` that do not fit; nothing is written then.

    Notes
    -----
    NaN gives the quiet NaN; infinity times zero (a subnormal counts as zero) is NaN; results below
    the normal range are zero with the product's sign, above it infinity.

    Examples
    --------
    >>> import numpy as np
    >>> import slipstick
    >>> slipstick.mitchell.multiply(np.float32([2, 3, -5]), np.float32([8, 3, 5]))
    array([ 16.,   8., -24.], dtype=float32)
    """
    framework = framework_of("multiply", a, out)
    return framework.finish(_cpu.multiply(a, b, _cpu.MitchellMethod("mitchell", bias=_bias("multiply", method)), out, framework.empty))


def divide(a: Any, b: Any, *, method: str | Mitchell = "mitchell", out: Any = None) -> Any:
    """Divide elementwise by subtracting bit patterns.

    Parameters
    ----------
    a, b : array
        Dividend and divisor of one dtype: float32, float64, float16 or bfloat16. Shapes broadcast.
    method : str or Mitchell
        "mitchell": relative error in [0, 1/8]. "zero-bias": no mean error for uniform mantissas.
        "minimax": +-6.96 %. The offsets behind the last two are the quotient's own.
    out : array, optional
        Where to write; of the result's shape and dtype. It may be `a` or `b` itself.

    Returns
    -------
    array
        In the framework of `a`, or `out`; of the operands' dtype.

    Raises
    ------
    TypeError, ValueError
        For operands, a method or an `out` that do not fit; nothing is written then.

    Notes
    -----
    x/0 is infinity with the quotient's sign, x/inf is zero, 0/0 and inf/inf are NaN; subnormal
    operands count as zero.

    Examples
    --------
    >>> import numpy as np
    >>> import slipstick
    >>> slipstick.mitchell.divide(np.float32([8, 9]), np.float32([2, 3]))
    array([4.  , 3.25], dtype=float32)
    """
    framework = framework_of("divide", a, out)
    bias = _bias("divide", method, quotient=True)
    return framework.finish(_cpu.divide(a, b, _cpu.MitchellMethod("mitchell", bias=bias), out, framework.empty))


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
    return framework.finish(_cpu.matmul(a, b, _cpu.MitchellMethod("mitchell", bias=bias), multiplier, out, framework.empty))


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
