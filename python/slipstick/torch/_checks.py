"""What every function says of tensors that it cannot take."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]


def tensors(function: str, names: tuple[str, ...], *values: Any, cuda: bool = False) -> None:
    """Refuse what is no dense tensor on the CPU or, where `cuda` says that it may, on a GPU.

    The meta device, which has shapes alone, passes.

    Raises
    ------
    TypeError
        For what is no tensor, and for sparse, nested, quantized and uninitialized ones.
    ValueError
        For a tensor on another device than the first, or on one that has no kernel.
    """
    device = None
    for name, value in zip(names, values, strict=True):
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{function}: `{name}` must be a torch.Tensor, got {type(value).__name__}"
            )
        if value.layout is not torch.strided:
            raise TypeError(
                f"{function}: `{name}` must be a dense tensor, got layout {value.layout}"
            )
        kind = (
            "a nested"
            if value.is_nested
            else "a quantized"
            if value.is_quantized
            else "an uninitialized"
            if isinstance(value, UninitializedTensorMixin)
            else None
        )
        if kind is not None:
            raise TypeError(f"{function}: `{name}` must be a dense tensor, got {kind} one")
        if value.device == device:
            continue
        if device is not None:
            raise ValueError(
                f"{function}: `{name}` must be on device {device} like `{names[0]}`, got device "
                f"{value.device}"
            )
        device = value.device
        if device.type not in ("cpu", "meta") and not (cuda and device.type == "cuda"):
            where = "on the CPU or a CUDA device" if cuda else "on the CPU"
            raise ValueError(
                f"{function}: `{name}` must be {where}, which alone has a kernel, got device "
                f"{device}"
            )
