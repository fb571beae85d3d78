"""Products and quotients of arrays, element by element."""

from __future__ import annotations

from typing import Any

from slipstick import _cpu
from slipstick._arrays import framework_of
from slipstick.mitchell._methods import Method, Mitchell, as_method

# Offsets of the named methods in units of 2**-23, for products and for quotients. The product's are
# those of the public table of constants 0x3F78C094 and 0x3F772FAD. A quotient's error has another
# shape: there the mean vanishes at d = 0.0579951, and the extremes -d/(1+d) and (3-d)**2/8 - 1
# balance at the root of d**3 - 5 d**2 - 13 d + 1 = 0, d = 0.0748032.
_NAMED = {
    "mitchell": (0, 0),
    "zero-bias": (0x3F800000 - 0x3F78C094, 486_498),
    "minimax": (0x3F800000 - 0x3F772FAD, 627_494),
}


def _bias(function: str, method: str | Mitchell, *, quotient: bool = False) -> float:
    if isinstance(method, str) and method in _NAMED:
        return _NAMED[method][quotient] * 2.0**-23
    if isinstance(method, Mitchell):
        return 0.0 if method.bias is None else float(method.bias)
    expected = ", ".join(repr(name) for name in _NAMED)
    message = f"{function}: `method` must be a Mitchell object or one of {expected}, got {method!r}"
    raise ValueError(message) if isinstance(method, str) else TypeError(message)


def multiply(a: Any, b: Any, *, method: str | Method = "mitchell", out: Any = None) -> Any:
    """Multiply elementwise by adding bit patterns.

    Parameters
    ----------
    a, b : array
        Operands of one dtype: float32, float64, float16, bfloat16, int8, int16, int32, uint8,
        uint16 or uint32. Shapes broadcast as in NumPy.
    method : str or Method
        One of `methods()`, or an object such as `Mitchell()`.
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
    native = as_method("multiply", method)._native
    return framework.finish(_cpu.multiply(a, b, native, out, framework.empty))


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
    native = Mitchell(bias)._native
    return framework.finish(_cpu.divide(a, b, native, out, framework.empty))
