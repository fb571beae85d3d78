"""Products, quotients, roots, logarithms and powers of arrays, element by element."""

from __future__ import annotations

from typing import Any

from slipstick._arrays import framework_of
from slipstick._numbers import is_number, to_float
from slipstick.mitchell._methods import Method, Mitchell, as_method

# Offsets of quotients in units of 2**-23. Their error has another shape than a product's: the mean
# vanishes at d = 0.0579951, and the extremes -d/(1+d) and (3-d)**2/8 - 1 balance at the root of
# d**3 - 5 d**2 - 13 d + 1 = 0, d = 0.0748032.
_QUOTIENTS = {
    "mitchell": Mitchell(),
    "zero-bias": Mitchell(486_498 * 2.0**-23),
    "minimax": Mitchell(627_494 * 2.0**-23),
}


def _quotient(function: str, method: object) -> Method:
    """Return the method of a quotient: Mitchell's, with or without an offset."""
    if isinstance(method, str) and method in _QUOTIENTS:
        return _QUOTIENTS[method]
    if isinstance(method, Mitchell):
        if method.raw or method.kosson_jaggi:
            raise ValueError(
                f"{function}: `method` must be without `raw` and `kosson_jaggi`, got {method!r}"
            )
        return method
    expected = ", ".join(repr(name) for name in _QUOTIENTS)
    message = f"{function}: `method` must be a Mitchell object or one of {expected}, got {method!r}"
    raise ValueError(message) if isinstance(method, str) else TypeError(message)


def _expect_plain(function: str, method: object) -> None:
    """Refuse all but Mitchell's method of 1962."""
    if isinstance(method, str) and method == "mitchell":
        return
    if isinstance(method, Mitchell) and not (method.offset or method.raw or method.kosson_jaggi):
        return
    message = f"{function}: `method` must be 'mitchell' or Mitchell(), got {method!r}"
    raise ValueError(message) if isinstance(method, str | Mitchell) else TypeError(message)


def multiply(a: Any, b: Any, *, method: str | Method = "mitchell", out: Any = None) -> Any:
    """Multiply elementwise by adding bit patterns.

    Mitchell's product has the pattern ``|a| + |b| - C``, C that of 1.0. Its relative error lies in
    [-1/9, 0], with a mean of -3.8488 % for uniform mantissas. J. N. Mitchell, IRE Transactions on
    Electronic Computers EC-11(4), 1962; other methods name their own source.

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
    native = as_method("multiply", method)._in(framework.kernels)
    return framework.finish(framework.kernels.multiply(a, b, native, out, framework.empty))


def square(a: Any, *, method: str | Method = "mitchell", out: Any = None) -> Any:
    """Square elementwise: ``multiply(a, a)``.

    Mitchell's square has the pattern ``2 |a| - C``, C that of 1.0. Its relative error lies in
    [-1/9, 0], with a mean of ``-(2 + 2 ln 3 - 6 ln 2)`` = -3.8341 % for uniform mantissas.

    Parameters
    ----------
    a : array
        Of any dtype that `multiply` takes.
    method : str or Method
        One of `methods()`, or an object such as `Mitchell()`.
    out : array, optional
        Where to write; of the result's shape and dtype. It may be `a` itself.

    Returns
    -------
    array
        In the framework of `a`, or `out`. Floats keep their dtype; the square of an integer has the
        next wider dtype of the same signedness.

    Raises
    ------
    TypeError, ValueError
        For an operand, a method or an `out` that do not fit; nothing is written then.

    Notes
    -----
    Edges are those of `multiply`.

    Examples
    --------
    >>> import numpy as np
    >>> import slipstick
    >>> slipstick.mitchell.square(np.float32([2, 3, -5]))
    array([ 4.,  8., 24.], dtype=float32)
    """
    framework = framework_of("square", a, out)
    native = as_method("square", method)._in(framework.kernels)
    return framework.finish(framework.kernels.square(a, native, out, framework.empty))


def divide(a: Any, b: Any, *, method: str | Mitchell = "mitchell", out: Any = None) -> Any:
    """Divide elementwise by subtracting bit patterns.

    The quotient has the pattern ``|a| - |b| + C``, C that of 1.0 less the offset. Without an
    offset the relative error lies in [0, 1/8], with a mean of ``ln 2 / 2 - 11/36`` = +4.1018 % for
    uniform mantissas. J. N. Mitchell, IRE Transactions on Electronic Computers EC-11(4), 1962.

    Parameters
    ----------
    a, b : array
        Dividend and divisor of one dtype: float32, float64, float16 or bfloat16. Shapes broadcast
        as in NumPy.
    method : str or Mitchell
        "mitchell"; "zero-bias": no mean error for uniform mantissas, range [-5.48, +8.19] %;
        "minimax": range +-6.96 %, mean -1.16 %. The offsets behind the last two are the quotient's
        own. Or a `Mitchell` object with any offset, without `raw` and `kosson_jaggi`.
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
    operands count as zero; results below the normal range are zero, above it infinity.

    Examples
    --------
    >>> import numpy as np
    >>> import slipstick
    >>> slipstick.mitchell.divide(np.float32([8, 9]), np.float32([2, 3]))
    array([4.  , 3.25], dtype=float32)
    """
    framework = framework_of("divide", a, out)
    native = _quotient("divide", method)._in(framework.kernels)
    return framework.finish(framework.kernels.divide(a, b, native, out, framework.empty))


def reciprocal(a: Any, *, method: str | Mitchell = "mitchell", out: Any = None) -> Any:
    """Take reciprocals elementwise: ``divide(1, a)``.

    The reciprocal has the pattern ``2 C - |a|``, C that of 1.0; an offset is subtracted once.
    Without one the relative error lies in [0, 1/8], with a mean of 1/12 = +8.3333 % for uniform
    mantissas.

    Parameters
    ----------
    a : array
        float32, float64, float16 or bfloat16.
    method : str or Mitchell
        As in `divide`, and with its offsets: "zero-bias" has errors in [-2.90, +8.19] %, mean
        +4.07 %, and "minimax" in [-3.74, +6.96] %, mean +2.86 %.
    out : array, optional
        Where to write; of the result's shape and dtype. It may be `a` itself.

    Returns
    -------
    array
        In the framework of `a`, or `out`; of the dtype of `a`.

    Raises
    ------
    TypeError, ValueError
        For an operand, a method or an `out` that do not fit; nothing is written then.

    Notes
    -----
    A zero or subnormal number gives infinity with its sign, infinity a zero, NaN gives NaN.

    Examples
    --------
    >>> import numpy as np
    >>> import slipstick
    >>> slipstick.mitchell.reciprocal(np.float32([4, 3, -1.5]))
    array([ 0.25 ,  0.375, -0.75 ], dtype=float32)
    """
    framework = framework_of("reciprocal", a, out)
    native = _quotient("reciprocal", method)._in(framework.kernels)
    return framework.finish(framework.kernels.reciprocal(a, native, out, framework.empty))


def sqrt(a: Any, *, method: str | Mitchell = "mitchell", out: Any = None) -> Any:
    """Take square roots elementwise, by halving Mitchell's logarithm.

    The root has the pattern ``(a >> 1) + (C >> 1)``, C that of 1.0. Its relative error lies in
    [0, ``3 / (2 sqrt(2)) - 1`` = 6.0660 %]; the mean for uniform mantissas is
    ``(5 sqrt(2) - 4) / 3 - 1`` = +2.3689 % for even exponents and ``(8 - 7 / sqrt(2)) / 3 - 1`` =
    +1.6751 % for odd ones.

    Parameters
    ----------
    a : array
        float32, float64, float16 or bfloat16.
    method : str or Mitchell
        "mitchell" or ``Mitchell()``: no other is defined.
    out : array, optional
        Where to write; of the result's shape and dtype. It may be `a` itself.

    Returns
    -------
    array
        In the framework of `a`, or `out`; of the dtype of `a`.

    Raises
    ------
    TypeError, ValueError
        For an operand, a method or an `out` that do not fit; nothing is written then.

    Notes
    -----
    Zeros and subnormal numbers give zeros with their sign, other negative numbers NaN.

    Examples
    --------
    >>> import numpy as np
    >>> import slipstick
    >>> slipstick.mitchell.sqrt(np.float32([16, 2, 9]))
    array([4.   , 1.5  , 3.125], dtype=float32)
    """
    framework = framework_of("sqrt", a, out)
    _expect_plain("sqrt", method)
    return framework.finish(framework.kernels.sqrt(a, out, framework.empty))


def log2(a: Any, *, method: str | Mitchell = "mitchell", out: Any = None) -> Any:
    """Take Mitchell's logarithm to base 2: ``k + x`` of ``2**k * (1 + x)``.

    That is ``(bits - C) / 2**m``, C the pattern of 1.0 and m the number of fraction bits, rounded
    once, to nearest even. It is too low by 0 to ``1 - (1 + ln ln 2) / ln 2`` = 0.0860713, on
    average by ``1.5 - 1 / ln 2`` = 0.0573050 for uniform mantissas. J. N. Mitchell, IRE
    Transactions on Electronic Computers EC-11(4), 1962.

    Parameters
    ----------
    a : array
        float32, float64, float16 or bfloat16.
    method : str or Mitchell
        "mitchell" or ``Mitchell()``: no other is defined.
    out : array, optional
        Where to write; of the result's shape and dtype. It may be `a` itself.

    Returns
    -------
    array
        In the framework of `a`, or `out`; of the dtype of `a`.

    Raises
    ------
    TypeError, ValueError
        For an operand, a method or an `out` that do not fit; nothing is written then.

    Notes
    -----
    Zeros and subnormal numbers give -inf, other negative numbers NaN.

    Examples
    --------
    >>> import numpy as np
    >>> import slipstick
    >>> slipstick.mitchell.log2(np.float32([8, 3, 0.75]))
    array([ 3. ,  1.5, -0.5], dtype=float32)
    """
    framework = framework_of("log2", a, out)
    _expect_plain("log2", method)
    return framework.finish(framework.kernels.log2(a, out, framework.empty))


def exp2(a: Any, *, method: str | Mitchell = "mitchell", out: Any = None) -> Any:
    """Raise 2 to the power of each element by Mitchell's antilogarithm, the inverse of `log2`.

    With k = floor(a) the result is ``2**k * (1 + a - k)``: the number of the pattern
    ``C + floor(a * 2**m)``, C the pattern of 1.0 and m the number of fraction bits. Its relative
    error lies in [0, ``2 / (e ln 2) - 1`` = 6.1476 %], with a mean of ``1 / (2 ln(2)**2) - 1`` =
    +4.0685 % for a uniform fraction ``a - k``, before truncation. J. N. Mitchell, IRE Transactions
    on Electronic Computers EC-11(4), 1962.

    Parameters
    ----------
    a : array
        float32, float64, float16 or bfloat16.
    method : str or Mitchell
        "mitchell" or ``Mitchell()``: no other is defined.
    out : array, optional
        Where to write; of the result's shape and dtype. It may be `a` itself.

    Returns
    -------
    array
        In the framework of `a`, or `out`; of the dtype of `a`.

    Raises
    ------
    TypeError, ValueError
        For an operand, a method or an `out` that do not fit; nothing is written then.

    Notes
    -----
    Results above the finite range are infinity, below the normal range 0.

    Examples
    --------
    >>> import numpy as np
    >>> import slipstick
    >>> slipstick.mitchell.exp2(np.float32([3, 1.5, -0.5]))
    array([8.  , 3.  , 0.75], dtype=float32)
    """
    framework = framework_of("exp2", a, out)
    _expect_plain("exp2", method)
    return framework.finish(framework.kernels.exp2(a, out, framework.empty))


def power(a: Any, p: Any, *, method: str | Mitchell = "mitchell", out: Any = None) -> Any:
    """Raise to a power elementwise, by multiplying Mitchell's logarithm.

    The result has the pattern ``C + floor(p * (|a| - C))``, evaluated exactly, C the pattern of
    1.0. For p > 0 its relative error lies between ``2**(-0.0861 p) - 1`` and +6.15 %, for p < 0
    between 0 and ``1.0615 * 2**(0.0861 |p|) - 1``, before truncation: the errors of `log2` and
    `exp2` compound. Its mean depends on p; -1, 1/2 and 2 give the bits of `reciprocal`, `sqrt` and
    `square` for positive numbers.

    Parameters
    ----------
    a : array
        float32, float64, float16 or bfloat16.
    p : number or array
        A number is taken as it is, in double precision; an array has the dtype of `a` and
        broadcasts with it as in NumPy.
    method : str or Mitchell
        "mitchell" or ``Mitchell()``: no other is defined.
    out : array, optional
        Where to write; of the result's shape and dtype. It may be `a` or `p` itself.

    Returns
    -------
    array
        In the framework of `a`, or `out`; of the dtype of `a`.

    Raises
    ------
    TypeError, ValueError
        For operands, a method or an `out` that do not fit; nothing is written then.

    Notes
    -----
    A negative base needs an integer p, else the result is NaN. Other special cases are those of
    IEEE 754's pow, with subnormal numbers as zeros: 1 for p = 0 and for a = 1, whatever the other.
    Results above the finite range are infinity, below the normal range zero.

    Examples
    --------
    >>> import numpy as np
    >>> import slipstick
    >>> slipstick.mitchell.power(np.float32([2, 3, -3]), 3)
    array([  8.,  24., -24.], dtype=float32)
    """
    framework = framework_of("power", a, out)
    _expect_plain("power", method)
    exponent = to_float(p) if is_number(p) else p
    return framework.finish(framework.kernels.power(a, exponent, out, framework.empty))
