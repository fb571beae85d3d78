"""Layers that multiply approximately, to put in the place of torch's."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from slipstick.mitchell import Method
from slipstick.torch._convolution import mitchell_conv2d
from slipstick.torch._methods import Gradient, check_gradient, text_of
from slipstick.torch._products import mitchell_linear

__all__ = ["MitchellConv2d", "MitchellLinear"]


def set_choices(layer: nn.Module, method: Any, gradient: Any) -> None:
    """Check how a layer multiplies, and note it there."""
    owner = type(layer).__name__
    text_of(owner, method)
    check_gradient(owner, gradient)
    layer.method = method
    layer.gradient = gradient


class MitchellLinear(nn.Linear):
    """`torch.nn.Linear` of approximate products.

    Parameters
    ----------
    *args, **kwargs
        Those of `torch.nn.Linear`; parameters and their initial values are the same.
    method : str or Method
        One of `slipstick.mitchell.methods()`, or an object such as ``DRUM(5)``.
    gradient : {"mimic", "exact", "straight-through"}
        See `mitchell_matmul`.

    Attributes
    ----------
    method, gradient
        As they were given; may be set.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit.

    Notes
    -----
    Input (..., in_features), result (..., out_features), both of the weight's dtype: float32,
    float64, float16 or bfloat16. Source: as for `mitchell_matmul`.

    Examples
    --------
    >>> import torch
    >>> from slipstick.torch import MitchellLinear
    >>> layer = MitchellLinear(3, 2, method="realm", gradient="straight-through")
    >>> layer(torch.ones(5, 3)).shape
    torch.Size([5, 2])
    """

    method: str | Method
    gradient: Gradient

    def __init__(
        self,
        *args: Any,
        method: str | Method = "mitchell",
        gradient: Gradient = "mimic",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        set_choices(self, method, gradient)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x @ weight.T + bias``."""
        return mitchell_linear(
            x, self.weight, self.bias, method=self.method, gradient=self.gradient
        )

    def extra_repr(self) -> str:
        """Return the sizes, and how the layer multiplies."""
        return f"{super().extra_repr()}, method={self.method!r}, gradient={self.gradient!r}"


class MitchellConv2d(nn.Conv2d):
    """`torch.nn.Conv2d` of approximate products, with any stride, padding, dilation and groups.

    Parameters
    ----------
    *args, **kwargs
        Those of `torch.nn.Conv2d`; parameters and their initial values are the same.
    method, gradient
        As for `MitchellLinear`.

    Attributes
    ----------
    method, gradient
        As they were given; may be set.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit.

    Notes
    -----
    Input (n, c, h, w) or (c, h, w), of the weight's dtype, as is the result. Source: as for
    `mitchell_matmul`.

    Examples
    --------
    >>> import torch
    >>> from slipstick.torch import MitchellConv2d
    >>> layer = MitchellConv2d(3, 8, 3, padding=1, padding_mode="reflect", method="drum")
    >>> layer(torch.ones(2, 3, 5, 5)).shape
    torch.Size([2, 8, 5, 5])
    """

    method: str | Method
    gradient: Gradient

    def __init__(
        self,
        *args: Any,
        method: str | Method = "mitchell",
        gradient: Gradient = "mimic",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        set_choices(self, method, gradient)

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            around = self._reversed_padding_repeated_twice
            x, padding = functional.pad(x, around, mode=self.padding_mode), 0
        return mitchell_conv2d(
            x,
            weight,
            bias,
            stride=self.stride,  # type: ignore[arg-type]
            padding=padding,
            dilation=self.dilation,  # type: ignore[arg-type]
            groups=self.groups,
            method=self.method,
            gradient=self.gradient,
        )

    def extra_repr(self) -> str:
        """Return the sizes, and how the layer multiplies."""
        sizes: str = super().extra_repr()  # type: ignore[no-untyped-call]
        return f"{sizes}, method={self.method!r}, gradient={self.gradient!r}"
