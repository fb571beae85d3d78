"""What every function says of tensors that it cannot take."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def tensors(function: str, names: tuple[str, ...], *values: Any) -> None:
    """Refuse what is no dense tensor on the CPU; the meta device, which has shapes alone, passes.

    Raises
    ------
    TypeError
        For what is no tensor, and for sparse ones. (Nested and quantized tensors are refused by
        the operators, see `_library.define`.)
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
        if value.device == device:
            continue
        if device is not None:
            raise ValueError(
                f"{function}: `{name}` must be on device {device} like `{names[0]}`, got device "
                f"{value.device}"
            )
        device = value.device
        if device.type not in ("cpu", "meta"):
            raise ValueError(
                f"{function}: `{name}` must be on the CPU, which alone has a kernel, got device "
                f"{device}"
            )
