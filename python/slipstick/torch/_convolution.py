"""Convolutions of approximate products, with the choice of gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from slipstick import mitchell
from slipstick.mitchell import Method
from slipstick.mitchell._conv import _pair
from slipstick.torch import _checks, _library
from slipstick.torch._methods import (
    Gradient,
    check_derivative,
    check_gradient,
    chosen,
    method_of,
    text_of,
)

__all__ = ["mitchell_conv2d"]

_NAME = "mitchell_conv2d"
# Elements of the patches that a backward pass lays out at a time: 64 MiB of float32.
_PATCHES = 1 << 24


def mitchell_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    method: str | Method = "mitchell",
    gradient: Gradient = "mimic",
) -> Tensor:
    """Cross-correlate images with kernels of approximate products, as torch's `conv2d` does.

    Parameters
    ----------
    x : Tensor of shape (n, c, h, w) or (c, h, w)
        float32, float64, float16, bfloat16, or integers of 8, 16 or 32 bits, like `weight`.
        Autocast casts both.
    weight : Tensor of shape (o, c / groups, kh, kw)
        The second operand of every product.
    bias : Tensor of shape (o,), optional
        Added as it is.
    stride, padding, dilation, groups
        As for `slipstick.mitchell.conv2d`; `padding` may be "valid" or "same".
    method, gradient
        As for `mitchell_matmul`. Gradients are those of the product of the weights with the
        patches that they lie on; "straight-through" gives torch's own.

    Returns
    -------
    Tensor of shape (n, o, oh, ow) or (o, oh, ow)
        The bits of `slipstick.mitchell.conv2d`.

    Raises
    ------
    TypeError, ValueError
        For operands or parameters that do not fit.
    NotImplementedError
        When a gradient of a gradient is asked for, or a derivative in forward mode.

    Notes
    -----
    Source: as for `mitchell_matmul`. The backward passes "mimic" and "exact" lay out patches, of
    some images at a time, 64 MiB of float32 where one image allows it.

    Examples
    --------
    >>> import torch
    >>> from slipstick.torch import mitchell_conv2d
    >>> mitchell_conv2d(torch.tensor([[[3.0, 1.0, 2.0]]]), torch.tensor([[[[3.0, 2.0]]]]))
    tensor([[[10.,  7.]]])
    """
    names = ("x", "weight") if bias is None else ("x", "weight", "bias")
    given = (x, weight) if bias is None else (x, weight, bias)
    _checks.tensors(_NAME, names, *given, cuda=True)
    check_gradient(_NAME, gradient)
    text = text_of(_NAME, method)
    if x.ndim not in (3, 4):
        raise ValueError(f"{_NAME}: `x` must have 3 or 4 axes, got shape {tuple(x.shape)}")
    if weight.ndim != 4:
        raise ValueError(f"{_NAME}: `weight` must have 4 axes, got shape {tuple(weight.shape)}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(
            f"{_NAME}: `bias` must have {weight.shape[0]} entries like `weight`, got shape "
            f"{tuple(bias.shape)}"
        )
    steps, spread = _ints("stride", stride, 1), _ints("dilation", dilation, 1)
    if isinstance(groups, bool) or not isinstance(groups, int):
        raise TypeError(f"{_NAME}: `groups` must be an int, got {type(groups).__name__}")
    if groups < 1 or x.shape[-3] != weight.shape[1] * groups or weight.shape[0] % groups:
        raise ValueError(
            f"{_NAME}: `groups` must divide the channels of `x` and of the result into groups that "
            f"fit `weight`, got {groups} for shapes {tuple(x.shape)} and {tuple(weight.shape)}"
        )
    x, border = _padded(x, weight, padding, steps, spread)
    out: Tensor = _op(x, weight, steps, border, spread, groups, text, gradient)
    return out if bias is None else out + bias.to(out.dtype).reshape(-1, 1, 1)


def _ints(name: str, value: Any, least: int) -> list[int]:
    try:
        pair = _pair(name, value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"mitchell_{error}") from None
    if min(pair) < least:
        raise ValueError(f"{_NAME}: `{name}` must be at least {least}, got {value!r}")
    return list(pair)


def _padded(
    x: Tensor, weight: Tensor, padding: Any, stride: list[int], dilation: list[int]
) -> tuple[Tensor, list[int]]:
    """Return the images and the zeros that the operator adds on both sides."""
    if not isinstance(padding, str):
        return x, _ints("padding", padding, 0)
    if padding not in ("valid", "same"):
        raise ValueError(
            f"{_NAME}: `padding` must be an int, a pair of ints, 'valid' or 'same', got {padding!r}"
        )
    if padding == "valid":
        return x, [0, 0]
    if stride != [1, 1]:
        raise ValueError(f"{_NAME}: `stride` must be 1 for padding 'same', got {tuple(stride)}")
    zeros = [step * (size - 1) for step, size in zip(dilation, weight.shape[-2:], strict=True)]
    # The odd zero lies below or to the right. Padded zeros are multiplied like any other one.
    x = functional.pad(x, (0, zeros[1] % 2, 0, zeros[0] % 2)) if any(z % 2 for z in zeros) else x
    return x, [zeros[0] // 2, zeros[1] // 2]


# --- The operators --------------------------------------------------------------------------------


def _conv2d(
    x: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    method: str = "mitchell",
    gradient: str = "mimic",
) -> Any:
    return mitchell.conv2d(
        x,
        weight,
        stride=tuple(stride),  # type: ignore[arg-type]
        padding=tuple(padding),  # type: ignore[arg-type]
        dilation=tuple(dilation),  # type: ignore[arg-type]
        groups=groups,
        method=method_of(method),
    )


def _conv2d_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    method: str = "mitchell",
    gradient: Any = "mimic",
) -> tuple[Tensor, Tensor]:
    batched = x.ndim == 4
    if not batched:
        grad, x = grad.unsqueeze(0), x.unsqueeze(0)
    if gradient == "straight-through" or x.numel() == 0 or grad.numel() == 0:
        places = (stride, padding, dilation, False, [0, 0], groups, [True, True, False])
        grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(grad, x, weight, None, *places)
        grad_x, grad_weight = grad_x.contiguous(), grad_weight.contiguous()
    else:
        layout = {"dilation": dilation, "padding": padding, "stride": stride}
        multiplier = method_of(method)
        taps = weight.shape[1] * weight.shape[2] * weight.shape[3]
        # (groups, taps, o / groups), the second operand
        kernels = weight.reshape(groups, -1, taps).transpose(1, 2)
        sums = torch.float64 if x.dtype == torch.float64 else torch.float32
        total = kernels.new_zeros(kernels.shape, dtype=sums)
        grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
        per_image = groups * taps * grad.shape[2] * grad.shape[3]
        step = max(1, _PATCHES // per_image)
        for begin in range(0, len(x), step):
            part = slice(begin, begin + step)
            images = len(x[part])
            patches = functional.unfold(x[part], tuple(weight.shape[2:]), **layout)  # type: ignore[arg-type]
            # (groups, images * places, taps or o / groups): one matrix a group
            rows = patches.reshape(images, groups, taps, -1).permute(1, 0, 3, 2).flatten(1, 2)
            upstream = grad[part].reshape(images, groups, -1, grad.shape[2] * grad.shape[3])
            upstream = upstream.permute(1, 0, 3, 2).flatten(1, 2)
            of_rows, of_kernels = mitchell.matmul_backward(
                upstream, rows, kernels, method=multiplier, gradient=gradient
            )
            total += of_kernels
            of_patches = of_rows.reshape(groups, images, -1, taps).permute(1, 0, 3, 2)
            grad_x[part] = functional.fold(
                of_patches.reshape(patches.shape),
                tuple(x.shape[2:]),
                tuple(weight.shape[2:]),
                **layout,  # type: ignore[arg-type]
            )
        grad_weight = total.transpose(1, 2).reshape(weight.shape).to(weight.dtype).contiguous()
    return grad_x if batched else grad_x.squeeze(0), grad_weight


def _fake(
    x: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    *rest: Any,
) -> Tensor:
    _checks.tensors(_NAME, ("x", "weight"), x, weight, cuda=True)
    sizes = [
        (x.shape[axis - 2] + 2 * padding[axis] - dilation[axis] * (weight.shape[axis + 2] - 1) - 1)
        // stride[axis]
        + 1
        for axis in (0, 1)
    ]
    dtype = x.dtype
    if not dtype.is_floating_point:
        wide = torch.uint64 if dtype in (torch.uint16, torch.uint32) else torch.int64
        dtype = {torch.int8: torch.int32, torch.uint8: torch.uint32}.get(dtype, wide)
    return x.new_empty((*x.shape[:-3], weight.shape[0], *sizes), dtype=dtype)


def _fake_backward(grad: Tensor, x: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), weight.new_empty(weight.shape)


_CHOICES = (
    "SymInt[2] stride, SymInt[2] padding, SymInt[2] dilation, SymInt groups, "
    "str method='mitchell', str gradient='mimic'"
)
_op = _library.define(
    _NAME, f"(Tensor x, Tensor weight, {_CHOICES}) -> Tensor", kernel=_conv2d, fake=_fake
)
_backward_op = _library.define(
    f"{_NAME}_backward",
    f"(Tensor grad, Tensor x, Tensor weight, {_CHOICES}) -> (Tensor, Tensor)",
    kernel=_conv2d_backward,
    fake=_fake_backward,
)


def _setup(ctx: Any, args: tuple[Any, ...], output: Tensor) -> None:
    x, weight, *ctx.choices = args
    method, gradient = chosen(ctx.choices[4:])
    check_derivative(_NAME, method_of(method), gradient, x.dtype)
    ctx.save_for_backward(x, weight)


def _backward(ctx: Any, grad: Tensor) -> Any:
    grads: tuple[Tensor, Tensor] = _backward_op(grad, *ctx.saved_tensors, *ctx.choices)
    return *grads, *(None for _ in ctx.choices)


_library.autograd(_NAME, _setup, _backward, kernel=_conv2d)
_library.without_gradient(f"{_NAME}_backward", _conv2d_backward)
_library.autocast(_NAME, 2)
_library.vmap(_NAME, _library.one_by_one(_op))
_library.vmap(f"{_NAME}_backward", _library.one_by_one(_backward_op))
