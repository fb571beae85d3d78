"""Scales of attention with learnable parameters, and how any scale reaches an operator."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from slipstick import scales
from slipstick._numbers import given, is_number, to_float
from slipstick.scales import Scale

__all__ = ["LogNScale", "SSMaxScale"]

# The laws that have a tensor: lambda itself, or s and b of SSMax side by side, (heads or 1, 2).
GIVEN = "given"
LEARNED = "learned"
NUMBERS = (512.0,)
DEFAULT = ("LogN", [*NUMBERS])


class LearnableScale(nn.Module):
    """The base of the scales with parameters: a law ``(s ln n + b) / sqrt(d)``."""

    def _coefficients(self) -> tuple[Tensor, Tensor]:
        """Return s and b, each of shape () or (heads,)."""
        raise NotImplementedError

    def _lowered(self) -> Tensor:
        """Return s and b side by side, (heads or 1, 2), as the operator takes them."""
        s, b = torch.broadcast_tensors(*self._coefficients())
        return torch.stack((s.reshape(-1), b.reshape(-1)), -1)

    def forward(self, n: Tensor, dim: int | None = None) -> Tensor:
        """Return lambda for counts of visible keys, as `slipstick.scales.Scale.factor` does.

        Parameters
        ----------
        n : integer Tensor of any shape
            Counts; those below 1 are taken as 1.
        dim : int, optional
            The head dimension d; None for the softmax form, without ``sqrt(d)``.

        Returns
        -------
        Tensor
            Of the parameters' dtype and the shape of `n`. With one parameter a head, heads are the
            second-last axis and `n` broadcasts against (heads, 1).
        """
        owner = type(self).__name__
        if not isinstance(n, Tensor) or n.is_floating_point() or n.is_complex():
            shown = f"dtype {n.dtype}" if isinstance(n, Tensor) else type(n).__name__
            raise TypeError(f"{owner}: `n` must be a tensor of integers, got {shown}")
        if dim is not None and (not isinstance(dim, int) or isinstance(dim, bool) or dim < 1):
            raise ValueError(f"{owner}: `dim` must be None or an int of at least 1, got {dim!r}")
        s, b = (part.unsqueeze(-1) if part.ndim else part for part in self._coefficients())
        root = 1.0 if dim is None else math.sqrt(dim)
        return (s * n.clamp(min=1).to(s.dtype).log() + b) / root


class LogNScale(LearnableScale):
    """`slipstick.scales.LogN` with a base that is learned: lambda = ln n / (ln base * sqrt d).

    Parameters
    ----------
    base : float
        The length at which the factor is that of ordinary attention to begin with; finite and above
        1.
    heads : int, optional
        Give each head a base of its own.
    device, dtype : optional
        Of the parameter; a floating-point dtype.

    Attributes
    ----------
    log_base : nn.Parameter of shape () or (heads,)
        ln base. It is learned instead of the base, whose gradient shrinks with the base itself.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit.

    Notes
    -----
    Source: Su Jianlin, kexue.fm/archives/8823 (2021).

    Examples
    --------
    >>> import torch
    >>> from slipstick.torch import LogNScale, attention
    >>> scale = LogNScale(512)
    >>> query, key, value = torch.ones(3, 1, 2, 8, 16)
    >>> attention(query, key, value, scale=scale).sum().backward()
    >>> scale.log_base.grad.shape
    torch.Size([])
    >>> round(scale(torch.tensor(512), dim=64).item(), 6)
    0.125
    """

    def __init__(
        self,
        base: float = 512.0,
        heads: int | None = None,
        *,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        start = math.log(scales.LogN(base).base)
        self.log_base = _parameter("LogNScale", start, heads, device, dtype)

    def _coefficients(self) -> tuple[Tensor, Tensor]:
        return self.log_base.reciprocal(), torch.zeros_like(self.log_base)

    def extra_repr(self) -> str:
        """Return the shape of the parameter."""
        return f"heads={self.log_base.shape[0]}" if self.log_base.ndim else ""


class SSMaxScale(LearnableScale):
    """`slipstick.scales.SSMax` with parameters that are learned: lambda = (s ln n + b) / sqrt d.

    Parameters
    ----------
    s : float
        What s starts from; ``1 / ln(n0)`` keeps the ordinary factor at n0 keys.
    b : float, optional
        What b starts from; None, the default, leaves b away. The paper reports that b hurts long
        contexts.
    heads : int, optional
        Give each head parameters of its own.
    device, dtype : optional
        Of the parameters; a floating-point dtype.

    Attributes
    ----------
    s : nn.Parameter of shape () or (heads,)
    b : nn.Parameter of the shape of `s`, or None

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit; when it is used, for parameters that are no longer finite.
        Those on a CUDA device are not looked at, and give rows of NaN.

    Notes
    -----
    Source: scalable softmax, arXiv 2501.19399.

    Examples
    --------
    >>> import torch
    >>> from slipstick.torch import SSMaxScale, attention
    >>> scale = SSMaxScale(0.2, heads=2)
    >>> query, key, value = torch.ones(3, 1, 2, 8, 16)
    >>> attention(query, key, value, scale=scale).sum().backward()
    >>> scale.s.grad.shape
    torch.Size([2])
    """

    def __init__(
        self,
        s: float = 1.0,
        b: float | None = None,
        heads: int | None = None,
        *,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("s", s), ("b", 0.0 if b is None else b)):
            if not is_number(value):
                raise TypeError(f"SSMaxScale: `{name}` must be a finite number, got {given(value)}")
        law = scales.SSMax(s, 0.0 if b is None else b)
        self.s = _parameter("SSMaxScale", law.s, heads, device, dtype)
        self.b = None if b is None else _parameter("SSMaxScale", law.b, heads, device, dtype)

    def _coefficients(self) -> tuple[Tensor, Tensor]:
        return self.s, torch.zeros_like(self.s) if self.b is None else self.b

    def extra_repr(self) -> str:
        """Return the shape of the parameters, and whether there is a b."""
        heads = f"heads={self.s.shape[0]}, " if self.s.ndim else ""
        return f"{heads}b={self.b is not None}"


def _parameter(owner: str, start: Any, heads: Any, device: Any, dtype: Any) -> nn.Parameter:
    if heads is not None:
        if not isinstance(heads, int) or isinstance(heads, bool):
            raise TypeError(f"{owner}: `heads` must be None or an int, got {type(heads).__name__}")
        if heads < 1:
            raise ValueError(f"{owner}: `heads` must be None or at least 1, got {heads}")
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise TypeError(f"{owner}: `dtype` must be a floating-point torch.dtype, got {dtype!r}")
    shape = () if heads is None else (heads,)
    return nn.Parameter(torch.full(shape, float(start), device=device, dtype=dtype))


def _list(parameter: Any) -> list[float]:
    return list(parameter) if isinstance(parameter, tuple) else [parameter]


Law = tuple[float | torch.SymFloat | None, str, list[float], Tensor | None]


def lowered(scale: Any) -> Law:
    """Return a scale as the operator takes it: lambda, a law, its numbers, its tensor.

    Written for torch.compile to read, which is why a law goes as numbers: those it may leave open.
    """
    if type(scale) is float:  # what most calls give, before the slower questions
        return scale, *DEFAULT, None
    if isinstance(scale, scales.LogN):
        return None, "LogN", [scale.base], None
    if isinstance(scale, scales.Su):
        return None, "Su", [scale.kappa], None
    if isinstance(scale, scales.ClippedLogN):
        return None, "ClippedLogN", [scale.train_length], None
    if isinstance(scale, scales.Temperature):
        return None, "Temperature", [scale.beta, scale.length, scale.offset], None
    if isinstance(scale, scales.SSMax):
        s, b = (_list(scale.s), _list(scale.b))
        heads = max(len(s), len(b))
        columns = (x if len(x) == heads else x * heads for x in (s, b))
        return None, "SSMax", [number for column in columns for number in column], None
    if isinstance(scale, LearnableScale):
        return None, LEARNED, [], scale._lowered()
    if isinstance(scale, Tensor):
        return None, GIVEN, [], scale
    if is_number(scale):
        return to_float(scale), *DEFAULT, None
    if isinstance(scale, torch.SymFloat):  # made of a head dimension that torch.compile leaves open
        return scale, *DEFAULT, None
    shown = f"the class {scale.__name__}" if isinstance(scale, type) else type(scale).__name__
    raise TypeError(
        "attention: `scale` must be an object of slipstick.scales, a LogNScale or SSMaxScale, a "
        f"number or a tensor, got {given(scale) if isinstance(scale, (bool, str)) else shown}"
    )


@lru_cache(maxsize=256)
def scale_of(law: str, numbers: tuple[float, ...]) -> Scale:
    """Return the scale that `lowered` took apart."""
    if law == "SSMax" and len(numbers) >= 2 and len(numbers) % 2 == 0:
        heads = len(numbers) // 2
        s, b = numbers[:heads], numbers[heads:]
        return scales.SSMax(s, b) if heads > 1 else scales.SSMax(s[0], b[0])
    if law == "Temperature" and len(numbers) == 3:
        return scales.Temperature(numbers[0], int(numbers[1]), int(numbers[2]))
    if law in ("LogN", "Su", "ClippedLogN") and len(numbers) == 1:
        chosen: Scale = getattr(scales, law)(numbers[0])
        return chosen
    raise ValueError(
        "attention: `law` must be LogN, Su, ClippedLogN, SSMax or Temperature with as many numbers "
        f"as it has, got {given(law)} with {len(numbers)}"
    )


def scale_from(law: str, scale: Tensor) -> Any:
    """Return what `slipstick.attention` takes for a tensor on the CPU and its law."""
    if law == GIVEN:
        return scale
    s, b = scale.to(torch.float64).unbind(1)
    if len(s) == 1:
        return scales.SSMax(s.item(), b.item())
    return scales.SSMax(s.numpy(), b.numpy())
