"""Gradients of matrix products with approximate products."""

from __future__ import annotations

from typing import Any, Literal

from slipstick._arrays import framework_of
from slipstick._numbers import given
from slipstick.mitchell._base import Derivative
from slipstick.mitchell._methods import Method, as_method

_GRADIENTS = ("mimic", "exact", "straight-through")
_FRACTION_BITS = {"float64": 52, "float32": 23, "float16": 10, "bfloat16": 7}


def matmul_backward(
    grad: Any,
    a: Any,
    b: Any,
    *,
    method: str | Method = "mitchell",
    gradient: Literal["mimic", "exact", "straight-through"] = "mimic",
) -> tuple[Any, Any]:
    """Gradients of ``sum(grad * matmul(a, b))`` with respect to `a` and to `b`.

    Parameters
    ----------
    grad : array of the shape of ``matmul(a, b)``
        The gradient with respect to the product.
    a : array of shape (..., m, k) or (k,)
    b : array of shape (..., k, n) or (k,)
        The operands of the product. All three share one dtype: float32, float64, float16 or
        bfloat16; float64 not on a CUDA device.
    method : str or Method
        One of `methods()`, or a method object.
    gradient : {"mimic", "exact", "straight-through"}
        "mimic": the method's own products of `grad` with the other operand, as Kosson and Jaggi
        (NeurIPS 2023) train. "exact": the derivative
        of the piecewise linear product, for Mitchell's kind ``sgn(b) * 2**(E_b + carry)``, which
        jumps between the powers of two around b. "straight-through": the gradient of the exact
        product.

    Returns
    -------
    grad_a, grad_b : array
        In the framework of `grad`, of the shapes of `a` and `b` and of their dtype. Sums run in
        float32, for float64 in float64, over the inner axis and then over the axes along which the
        operand was stretched, in blocks of 256, and are rounded once.

    Raises
    ------
    TypeError, ValueError
        For operands or a method that do not fit, and for "exact" with a method that has no
        derivative to speak of: one that drops bits of its operands is constant between jumps.

    Notes
    -----
    "exact" is right-continuous in the magnitudes. A zero or subnormal operand has the derivative 0
    where it is the other factor, and the mantissa 0 where it is the one in question; an infinity or
    NaN in either makes the derivative NaN. MBM and REALM have Mitchell's, since what they add
    is constant. "mimic" with a power of two in place of `b` gives the exact gradient.

    Examples
    --------
    >>> import numpy as np
    >>> import slipstick
    >>> one, b = np.float32([[1]]), np.float32([[1.5]])
    >>> slipstick.mitchell.matmul_backward(one, b, b)[0]
    array([[1.5]], dtype=float32)
    >>> slipstick.mitchell.matmul_backward(one, b, b, gradient="exact")[0]
    array([[2.]], dtype=float32)
    """
    framework = framework_of("matmul_backward", grad)
    chosen = as_method("matmul_backward", method)
    if not isinstance(gradient, str) or gradient not in _GRADIENTS:
        expected = ", ".join(repr(name) for name in _GRADIENTS)
        message = f"matmul_backward: `gradient` must be one of {expected}, got {given(gradient)}"
        raise ValueError(message) if isinstance(gradient, str) else TypeError(message)
    derivative = Derivative("carry")
    if gradient == "exact":
        fraction = _FRACTION_BITS.get(str(getattr(grad, "dtype", "")).rpartition(".")[2], 23)
        derivative = _derivative(chosen, fraction)
    native = chosen._in(framework.kernels)
    grad_a, grad_b = framework.kernels.matmul_backward(
        grad, a, b, native, gradient, *derivative, framework.empty
    )
    return framework.finish(grad_a), framework.finish(grad_b)


def _derivative(method: Method, fraction: int) -> Derivative:
    derivative = method.derivative(fraction)
    if derivative is None:
        raise ValueError(
            "matmul_backward: `gradient` must be 'mimic' or 'straight-through' for a method that "
            f"drops bits of its operands, got 'exact' with {method!r}"
        )
    return derivative
