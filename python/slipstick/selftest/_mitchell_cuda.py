"""Mitchell's family on a CUDA device: the bits that the CPU gives."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from slipstick import mitchell
from slipstick.selftest._check import Array, Case, Check
from slipstick.selftest._inputs import BFLOAT16, DTYPES, FLOATS, awkward, ordinary, patterns
from slipstick.selftest._mitchell import FLOAT32, Dtype, gradient_operands, methods_of

_FLOAT_SUMMANDS = [np.dtype(np.float32), np.dtype(np.float16), *BFLOAT16]
_SUMMANDS = [*_FLOAT_SUMMANDS, np.dtype(np.int8), np.dtype(np.uint8)]


def _title(dtype: Dtype, method: object) -> str:
    return f"{dtype}, {method if isinstance(method, str) else 'a table'}"


def _products() -> Iterator[Case]:
    for dtype in DTYPES:
        values = awkward(dtype, 300)
        for method, _ in methods_of(dtype):
            call = partial(mitchell.multiply, method=method)
            yield Case(_title(dtype, method), call, (values[:, np.newaxis], values[np.newaxis]))
        a, b = patterns(dtype, 2, 1_000_003)
        yield Case(f"{dtype}, a million numbers", mitchell.multiply, (a, b))
        a, b = patterns(dtype, 301, 77), patterns(dtype, 77, 301).T
        yield Case(f"{dtype}, rows by columns", mitchell.multiply, (a, b))


def _functions() -> Iterator[Case]:
    method = mitchell.Mitchell(0.05)
    for dtype in FLOATS:
        a = np.concatenate([awkward(dtype, 200_000), ordinary(dtype, 100_000)])
        b = a[::-1].copy()
        yield Case(f"divide, {dtype}", partial(mitchell.divide, method=method), (a, b))
        yield Case(f"reciprocal, {dtype}", partial(mitchell.reciprocal, method=method), (a,))
        for name in ("sqrt", "log2", "exp2"):
            yield Case(f"{name}, {dtype}", getattr(mitchell, name), (a,))
        yield Case(f"power, {dtype}", mitchell.power, (a, ordinary(dtype, len(a), seed=1)))
        yield Case(f"power of 0.3, {dtype}", partial(mitchell.power, p=0.3), (a,))
    for dtype in DTYPES:
        yield Case(f"square, {dtype}", mitchell.square, (awkward(dtype, 100_000),))


def _zeros(a: Array) -> None:
    np.maximum(a, 0, out=a)


def _wide(a: Array) -> None:
    a[::2] *= np.float32(2.0**-120)


def _infinite(a: Array) -> None:
    a[0, 0] = np.inf


def _matmul() -> Iterator[Case]:
    shapes = (
        *((257, 600, 131), (128, 256, 128), (1, 700, 300), (300, 700, 1), (64, 1, 64)),
        *((1, 1, 1), (5, 257, 3)),
    )
    for dtype in _SUMMANDS:
        for rows, depth, columns in shapes:
            a, b = ordinary(dtype, rows, depth), ordinary(dtype, depth, columns, seed=1)
            yield Case(f"{dtype}, {rows} x {depth} x {columns}", mitchell.matmul, (a, b))
        a, b = ordinary(dtype, 150, 300), ordinary(dtype, 300, 140, seed=1)
        for method, _ in methods_of(dtype):
            call = partial(mitchell.matmul, method=method)
            yield Case(_title(dtype, method), call, (a, b))
        transposed = ordinary(dtype, 300, 150).T, ordinary(dtype, 140, 300, seed=1).T
        yield Case(f"{dtype}, transposed", mitchell.matmul, transposed)
        batch = ordinary(dtype, 3, 1, 40, 50), ordinary(dtype, 2, 50, 60, seed=1)
        yield Case(f"{dtype}, a batch", mitchell.matmul, batch)
    gain = partial(mitchell.matmul, correction="gain")
    for change in (_zeros, _wide, _infinite):  # each takes another kernel
        a, b = ordinary(FLOAT32, 150, 300), ordinary(FLOAT32, 300, 140, seed=1)
        change(a)
        title = f"float32, {change.__name__[1:]}"
        yield Case(title, mitchell.matmul, (a, b))
        yield Case(f"{title}, gain corrected", gain, (a, b))


def _convolutions() -> Iterator[Case]:
    kinds: tuple[tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]], ...] = (
        ("3 x 3", (2, 16, 30, 33), (24, 16, 3, 3), {"padding": 1}),
        ("1 x 1", (2, 70, 12, 11), (9, 70, 1, 1), {}),
        ("depthwise", (2, 20, 30, 33), (20, 1, 3, 3), {"padding": "same", "groups": 20}),
        ("strided", (1, 6, 40, 37), (8, 3, 5, 3), {"stride": (2, 3), "groups": 2}),
        ("dilated", (1, 6, 40, 37), (8, 6, 3, 3), {"dilation": (2, 3), "padding": (4, 2)}),
    )
    for dtype in _SUMMANDS:
        for name, shape, kernel, options in kinds:
            x, weight = ordinary(dtype, *shape), ordinary(dtype, *kernel, seed=1)
            yield Case(f"{dtype}, {name}", partial(mitchell.conv2d, **options), (x, weight))
    for method, _ in methods_of(FLOAT32):
        x, weight = ordinary(FLOAT32, 1, 8, 20, 20), ordinary(FLOAT32, 9, 8, 3, 3, seed=1)
        call = partial(mitchell.conv2d, padding=1, method=method)
        yield Case(_title(FLOAT32, method), call, (x, weight))


def _backward() -> Iterator[Case]:
    for dtype in _FLOAT_SUMMANDS:
        for gradient in ("mimic", "exact", "straight-through"):
            call = partial(mitchell.matmul_backward, gradient=gradient)
            yield Case(f"{dtype}, {gradient}", call, gradient_operands(dtype, 150, 270, 300))
    for method, _ in methods_of(FLOAT32):
        call = partial(mitchell.matmul_backward, method=method)
        operands = gradient_operands(FLOAT32, 70, 90, 130)
        yield Case(f"{_title(FLOAT32, method)}, mimic", call, operands)


CHECKS = [
    Check("mitchell", "multiply, every method", _products),
    Check("mitchell", "other functions of elements", _functions),
    Check("mitchell", "matmul, every method", _matmul),
    Check("mitchell", "conv2d", _convolutions),
    Check("mitchell", "matmul_backward", _backward),
]
