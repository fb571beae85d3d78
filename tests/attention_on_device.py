"""The attention family on CUDA devices: NumPy's arrays go there, and results come back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

import slipstick
from attention_backward_oracle import Upstream
from attention_oracle import DTYPES, Rows
from slipstick import AttentionGrads
from slipstick.scales import Scale

# What a device has to be given there; numbers of keys may lie there or on the host.
_THERE = ("mask", "scale")
_INTEGERS = ("key_lengths", "n_keys")


def with_dtypes(cases: Iterable[Any]) -> list[Any]:
    """Pair all cases with float32 and bfloat16, and every third with float64 and float16.

    Those share the code of their kernels with the first two.
    """
    rare = (np.dtype(np.float64), np.dtype(np.float16))
    return [
        pytest.param(case, dtype, id=f"{case}-{dtype}")
        for number, case in enumerate(cases)
        for dtype in DTYPES
        if dtype not in rare or number % 3 == 0
    ]


def moved(device: Any, options: dict[str, Any], *, integers: bool = False) -> dict[str, Any]:
    """Return options with their arrays on the device, those of integers only if asked for."""

    def move(name: str, value: Any) -> Any:
        is_array = isinstance(value, np.ndarray)
        if (name in _THERE and is_array) or (name in _INTEGERS and integers and value is not None):
            return device.array(np.asarray(value))
        return value

    return {name: move(name, value) for name, value in options.items()}


def _same(array: Any) -> Any:
    return array


def attend(
    device: Any, arrays: Any, options: dict[str, Any], *, view=_same, integers=False
) -> Rows:
    """Run `slipstick.attention` on views of the arrays on the device."""
    out, stats = slipstick.attention(
        *(view(device.array(x)) for x in arrays),
        return_stats=True,
        **moved(device, options, integers=integers),
    )
    return Rows(*map(device.numpy, (out, *stats)))


def attend_packed(device: Any, arrays: Any, options: dict[str, Any], *, integers=False) -> Rows:
    """Run `slipstick.attention_varlen`; with `integers` the bounds lie on the device too."""
    *inputs, cu_q, cu_k = arrays
    bounds = [device.array(x) if integers else x for x in (cu_q, cu_k)]
    out, stats = slipstick.attention_varlen(
        *map(device.array, inputs),
        *bounds,
        return_stats=True,
        **moved(device, options, integers=integers),
    )
    return Rows(*map(device.numpy, (out, *stats)))


def differentiate(
    device: Any, arrays: Any, upstream: Upstream, options: dict[str, Any], *, view=_same
) -> AttentionGrads:
    """Run `slipstick.attention` and its backward pass; numbers come back as floats."""
    arrays = [view(device.array(x)) for x in arrays]
    given = [None if x is None else device.array(x) for x in upstream]
    there = moved(device, options)
    out, stats = slipstick.attention(*arrays, return_stats=True, **there)
    grads = slipstick.attention_backward(
        given[0], *arrays, out, stats, grad_lse=given[1], grad_entropy=given[2], **there
    )
    scale = grads.scale
    if isinstance(scale, tuple):
        scale = tuple(_number(device.numpy(x)) for x in scale)
    elif scale is not None:
        scale = device.numpy(scale)
        if isinstance(options.get("scale"), (Scale, int, float)):
            scale = _number(scale)
    return AttentionGrads(*map(device.numpy, grads[:3]), scale)


def _number(array: np.ndarray) -> Any:
    return array if array.ndim else array.item()
