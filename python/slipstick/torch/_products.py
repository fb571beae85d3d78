"""Matrix products and linear layers of approximate products, with the choice of gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from slipstick import mitchell
from slipstick.mitchell import Method
from slipstick.mitchell._matmul import _multiplier
from slipstick.torch import _checks, _library
from slipstick.torch._methods import (
    Correction,
    Gradient,
    check_derivative,
    check_gradient,
    chosen,
    correction_of,
    method_of,
    text_of,
)

__all__ = ["mitchell_linear", "mitchell_matmul"]

# What exact sums of integers are: see `slipstick.mitchell.matmul`.
_SUMS = {torch.int8: torch.int32, torch.uint8: torch.uint32}
_UNSIGNED = (torch.uint16, torch.uint32)


def mitchell_matmul(
    a: Tensor,
    b: Tensor,
    *,
    method: str | Method = "mitchell",
    gradient: Gradient = "mimic",
    correction: Correction = None,
) -> Tensor:
    """Multiply matrices with approximate products and ordinary sums, and a gradient to choose.

    Parameters
    ----------
    a : Tensor of shape (..., m, k) or (k,)
    b : Tensor of shape (..., k, n) or (k,)
        Operands of one dtype, as `slipstick.mitchell.matmul` takes them: float32, float64, float16,
        bfloat16, or integers of 8, 16 or 32 bits. Autocast casts them. Leading axes broadcast.
    method : str or Method
        One of `slipstick.mitchell.methods()`, or an object such as ``DRUM(5)``.
    gradient : {"mimic", "exact", "straight-through"}
        As for `slipstick.mitchell.matmul_backward`: the method's own products of the gradient with
        the other operand; the derivative of the piecewise linear product; that of the exact one.
    correction : None, "gain" or float
        A factor for the result, see `slipstick.mitchell.matmul`. Gradients but for
        "straight-through" get it too.

    Returns
    -------
    Tensor of shape (..., m, n), without the axis that a one-dimensional operand lacks
        The bits of `slipstick.mitchell.matmul`.

    Raises
    ------
    TypeError, ValueError
        For operands or parameters that do not fit, and for "exact" with a method that has no
        derivative to speak of.
    NotImplementedError
        When a gradient of a gradient is asked for, or a derivative in forward mode.

    Notes
    -----
    Sources: J. N. Mitchell, 1962; the gradients after Kosson and Jaggi, NeurIPS 2023.

    Examples
    --------
    >>> import torch
    >>> from slipstick.torch import mitchell_matmul
    >>> a = torch.tensor([[3.0, 3.0], [1.0, 2.0]], requires_grad=True)
    >>> product = mitchell_matmul(a, a.detach(), gradient="straight-through")
    >>> product.tolist()
    [[11.0, 14.0], [5.0, 7.0]]
    >>> product.sum().backward()
    >>> a.grad.tolist()
    [[6.0, 3.0], [6.0, 3.0]]
    """
    return _product("mitchell_matmul", ("a", "b"), a, b, method, gradient, correction)


def mitchell_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    method: str | Method = "mitchell",
    gradient: Gradient = "mimic",
    correction: Correction = None,
) -> Tensor:
    """Compute ``x @ weight.T + bias`` with approximate products, as `torch.nn.functional.linear`.

    Parameters
    ----------
    x : Tensor of shape (..., in_features)
    weight : Tensor of shape (out_features, in_features)
        The second operand of every product.
    bias : Tensor of shape (out_features,), optional
        Added as it is.
    method, gradient, correction
        As for `mitchell_matmul`.

    Returns
    -------
    Tensor of shape (..., out_features)

    Raises
    ------
    TypeError, ValueError
        For operands or parameters that do not fit.

    Notes
    -----
    Source: as for `mitchell_matmul`, whose bits the products have.

    Examples
    --------
    >>> import torch
    >>> from slipstick.torch import mitchell_linear
    >>> mitchell_linear(torch.tensor([3.0, 1.0]), torch.tensor([[3.0, 2.0]]))
    tensor([10.])
    """
    function = "mitchell_linear"
    names = ("x", "weight") if bias is None else ("x", "weight", "bias")
    given = (x, weight) if bias is None else (x, weight, bias)
    _checks.tensors(function, names, *given, cuda=True)
    if weight.ndim != 2:
        raise ValueError(
            f"{function}: `weight` must have two axes, got shape {tuple(weight.shape)}"
        )
    if x.ndim == 0 or x.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"{function}: `x` must have {weight.shape[1]} features like `weight`, got shape "
            f"{tuple(x.shape)}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(
            f"{function}: `bias` must have {weight.shape[0]} entries like `weight` has rows, got "
            f"shape {tuple(bias.shape)}"
        )
    # As one matrix: gradients of the weight are then sums over all rows, not stacks of products.
    rows = x if x.ndim <= 2 else x.flatten(0, -2)
    out = _product(function, ("x", "weight"), rows, weight.t(), method, gradient, correction)
    if x.ndim > 2:
        out = out.reshape(*x.shape[:-1], weight.shape[0])
    return out if bias is None else out + bias.to(out.dtype)


def _product(
    function: str,
    names: tuple[str, ...],
    a: Tensor,
    b: Tensor,
    method: str | Method,
    gradient: Gradient,
    correction: Correction,
) -> Tensor:
    _checks.tensors(function, names, a, b, cuda=True)
    check_gradient(function, gradient)
    gain, factor = correction_of(function, correction)
    result: Tensor = _op(a, b, text_of(function, method), gradient, gain, factor)
    return result


# --- The operators --------------------------------------------------------------------------------


def _correction(gain: bool, factor: float) -> Any:
    return "gain" if gain else None if factor == 1 else factor


def _matmul(
    a: Tensor,
    b: Tensor,
    method: str = "mitchell",
    gradient: str = "mimic",
    gain: bool = False,
    factor: float = 1.0,
) -> Any:
    way = method_of(method)
    return mitchell.matmul(a, b, method=way, correction=_correction(gain, factor))


def _matmul_backward(
    grad: Tensor,
    a: Tensor,
    b: Tensor,
    method: str = "mitchell",
    gradient: Any = "mimic",
    gain: bool = False,
    factor: float = 1.0,
) -> tuple[Tensor, Tensor]:
    way = method_of(method)
    grads = mitchell.matmul_backward(grad, a, b, method=way, gradient=gradient)
    multiplier = _multiplier(a, way, _correction(gain, factor))
    if multiplier == 1 or gradient == "straight-through":
        return grads
    return grads[0] * multiplier, grads[1] * multiplier


def _shape(a: Tensor, b: Tensor) -> list[int]:
    if a.ndim == 0 or b.ndim == 0:
        shapes = f"{tuple(a.shape)} and {tuple(b.shape)}"
        raise ValueError(f"mitchell_matmul: `a` and `b` must have at least one axis, got {shapes}")
    leading = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    rows = a.shape[-2:-1] if a.ndim > 1 else ()
    columns = b.shape[-1:] if b.ndim > 1 else ()
    return [*leading, *rows, *columns]


def _fake(a: Tensor, b: Tensor, *rest: Any) -> Tensor:
    _checks.tensors("mitchell_matmul", ("a", "b"), a, b, cuda=True)
    dtype = a.dtype
    if not dtype.is_floating_point:
        wide = torch.uint64 if dtype in _UNSIGNED else torch.int64
        dtype = _SUMS.get(dtype, wide)
    return a.new_empty(_shape(a, b), dtype=dtype)


def _fake_backward(grad: Tensor, a: Tensor, b: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return a.new_empty(a.shape), b.new_empty(b.shape)


_CHOICES = "str method='mitchell', str gradient='mimic', bool gain=False, float factor=1."

_op = _library.define(
    "mitchell_matmul",
    f"(Tensor a, Tensor b, {_CHOICES}) -> Tensor",
    kernel=_matmul,
    fake=_fake,
)
_backward_op = _library.define(
    "mitchell_matmul_backward",
    f"(Tensor grad, Tensor a, Tensor b, {_CHOICES}) -> (Tensor, Tensor)",
    kernel=_matmul_backward,
    fake=_fake_backward,
)


def _setup(ctx: Any, args: tuple[Any, ...], output: Tensor) -> None:
    a, b, *ctx.choices = args
    method, gradient = chosen(ctx.choices)
    check_derivative("mitchell_matmul", method_of(method), gradient, a.dtype)
    ctx.save_for_backward(a, b)


def _backward(ctx: Any, grad: Tensor) -> Any:
    return *_backward_op(grad, *ctx.saved_tensors, *ctx.choices), *(None for _ in ctx.choices)


_library.autograd("mitchell_matmul", _setup, _backward, kernel=_matmul)
_library.without_gradient("mitchell_matmul_backward", _matmul_backward)
_library.autocast("mitchell_matmul", 2)
_library.vmap("mitchell_matmul_backward", _library.one_by_one(_backward_op))


def _vmap(info: Any, in_dims: tuple[int | None, ...], a: Tensor, b: Tensor, *choices: Any) -> Any:
    """Let the batch of vmap join the leading axes, over which products broadcast."""
    size = info.batch_size
    a, b = (_library.first(x, dim, size) for x, dim in zip((a, b), in_dims, strict=False))
    row, column = a.ndim == 2, b.ndim == 2
    if row:
        a = a.unsqueeze(-2)
    if column:
        b = b.unsqueeze(-1)
    while a.ndim < b.ndim:
        a = a.unsqueeze(1)
    while b.ndim < a.ndim:
        b = b.unsqueeze(1)
    out = _op(a, b, *choices)
    if column:
        out = out.squeeze(-1)
    if row:
        out = out.squeeze(-1 if column else -2)
    return out, 0


_library.vmap("mitchell_matmul", _vmap)
