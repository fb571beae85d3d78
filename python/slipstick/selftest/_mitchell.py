"""Mitchell's family: products bit for bit, sums within their rounding."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

import numpy as np

from slipstick import mitchell, reference
from slipstick.selftest._check import Array, Case, Check
from slipstick.selftest._inputs import (
    DTYPES,
    FLOATS,
    awkward,
    last_place,
    ordinary,
    patterns,
    smallest,
)

Dtype = np.dtype[Any]
FLOAT32 = np.dtype(np.float32)

# The names whose product is Mitchell's with an offset: their offsets.
_OFFSETS = {
    "mitchell": 0.0,
    "zero-bias": 0x73F6C / 2**23,
    "minimax": 0x8D053 / 2**23,
    "min-rms": 0x7124A / 2**23,
}
_QUOTIENT_OFFSET = 0.05


def methods_of(dtype: Dtype) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield every method that takes the dtype, and the reference's options for it."""
    for name in mitchell.methods():
        if name in _OFFSETS:
            yield name, {"bias": _OFFSETS[name]}
        elif name != "operand-decomposition" or dtype.kind in "iu":
            yield name, {"method": name}
    table = _table_for(dtype)
    if table is not None:
        yield mitchell.Table(table), {"method": "table", "table": table}


def _table_for(dtype: Dtype) -> Array | None:
    """Return arbitrary products: of bytes, or a carry and a fraction of 7 bits."""
    if dtype.itemsize == 1:
        return patterns(np.dtype(f"{dtype.kind}2"), 256, 256, seed=77)
    return None if dtype.kind in "iu" else patterns(np.dtype(np.uint8), 128, 128, seed=77)


def _title(dtype: Dtype, method: Any) -> str:
    return f"{dtype}, {method if isinstance(method, str) else 'a table'}"


# --- Elements -------------------------------------------------------------------------------------


def _products() -> Iterator[Case]:
    for dtype in DTYPES:
        values = awkward(dtype, 60)
        a, b = values[:, np.newaxis], values[np.newaxis]
        for method, options in methods_of(dtype):
            call = partial(mitchell.multiply, method=method)
            expected = reference.multiply(a, b, **options)
            yield Case(_title(dtype, method), call, (a, b), expected)
    a, b = patterns(FLOAT32, 2, 200_001)  # long enough for several threads
    expected = reference.multiply(a, b)
    yield Case("200,001 numbers", mitchell.multiply, (a, b), expected)


def _quotients() -> Iterator[Case]:
    method, bias = mitchell.Mitchell(_QUOTIENT_OFFSET), _QUOTIENT_OFFSET
    for dtype in FLOATS:
        values = awkward(dtype, 20)
        a, b = values[:, np.newaxis], values[np.newaxis]
        call = partial(mitchell.divide, method=method)
        yield Case(f"divide, {dtype}", call, (a, b), reference.divide(a, b, bias=bias))
        call = partial(mitchell.reciprocal, method=method)
        expected = reference.reciprocal(values, bias=bias)
        yield Case(f"reciprocal, {dtype}", call, (values,), expected)


def _functions() -> Iterator[Case]:
    for dtype in FLOATS:
        every = dtype.itemsize == 2  # all numbers of a 16-bit format
        a = np.arange(65536).astype(np.uint16).view(dtype) if every else awkward(dtype, 5000)
        for name in ("sqrt", "log2", "exp2"):
            with np.errstate(all="ignore"):
                expected = np.asarray(getattr(reference, name)(a))
            yield Case(f"{name}, {dtype}", getattr(mitchell, name), (a,), expected)


def _powers() -> Iterator[Case]:
    for dtype in FLOATS:
        a, p = awkward(dtype, 20)[:, np.newaxis], ordinary(dtype, 5, seed=1)
        with np.errstate(all="ignore"):
            expected = reference.power(a, p)
        yield Case(f"power, {dtype}", mitchell.power, (a, p), expected)
    for dtype in DTYPES:
        a = awkward(dtype, 500)
        yield Case(f"square, {dtype}", mitchell.square, (a,), reference.square(a))


# --- Sums -----------------------------------------------------------------------------------------


def sum_bound(dtype: Dtype, magnitudes: Array, depth: int) -> Array:
    """Bound the error of `depth` products, added up and stored.

    Sums run in float32, those of float64 in float64, with unit u: a product rounds once at most,
    and depth additions give depth u of the sum of magnitudes to first order; the hundredth more
    covers the rest. The float64 reference errs likewise. Storing adds half a last place.
    """
    unit = 2.0**-53 if dtype == np.float64 else 2.0**-24
    stored = magnitudes * last_place(dtype) / 2 + smallest(dtype) * last_place(dtype)
    return 1.01 * magnitudes * (depth + 1) * (unit + 2.0**-53) + stored


def _sums(
    title: str,
    call: Any,
    define: Any,
    operands: tuple[Array, Array],
    depth: int,
    method: Any = "mitchell",
) -> Case:
    """Make a case of a sum of products: exact for integers.

    A product of "ilm" needs more bits than a float has and enters the sum by a fused multiply-add,
    which level v2 does not have.
    """
    expected, bound = define(*operands), None
    if operands[0].dtype.kind not in "iu":
        bound = sum_bound(operands[0].dtype, define(*map(np.abs, operands)), depth)
    return Case(title, call, operands, expected, bound, portable=method != "ilm")


def _matmul() -> Iterator[Case]:
    depth = 300  # two chains
    for dtype in DTYPES:
        a = ordinary(dtype, 5, depth, limit=1 << 24)
        b = ordinary(dtype, depth, 7, seed=1, limit=1 << 24)
        for method, options in methods_of(dtype):
            call = partial(mitchell.matmul, method=method)
            define = partial(reference.matmul, **options)
            yield _sums(_title(dtype, method), call, define, (a, b), depth, method)
    # Long enough for several threads.
    a, b = ordinary(FLOAT32, 2, 110, 90), ordinary(FLOAT32, 2, 90, 130, seed=1)
    yield _sums("a batch", mitchell.matmul, reference.matmul, (a, b), 90)


_CONVOLUTIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "padded": ((2, 3, 8, 11), (5, 3, 3, 2), {"padding": (2, 1)}),
    "strided, dilated": ((1, 2, 11, 12), (4, 2, 3, 2), {"stride": (2, 3), "dilation": (1, 2)}),
    "groups": ((1, 6, 5, 6), (4, 3, 2, 3), {"groups": 2}),
    "depthwise": ((2, 5, 19, 33), (5, 1, 3, 3), {"groups": 5, "padding": 1}),
}


def _convolutions() -> Iterator[Case]:
    for dtype in DTYPES:
        for name, (shape, kernel, options) in _CONVOLUTIONS.items():
            x = ordinary(dtype, *shape, limit=1 << 24)
            weight = ordinary(dtype, *kernel, seed=1, limit=1 << 24)
            call = partial(mitchell.conv2d, **options)
            define = partial(reference.conv2d, **options)
            yield _sums(f"{dtype}, {name}", call, define, (x, weight), weight[0].size)
    shape, kernel, options = _CONVOLUTIONS["padded"]
    x, weight = ordinary(FLOAT32, *shape), ordinary(FLOAT32, *kernel, seed=1)
    for method, more in methods_of(FLOAT32):
        call = partial(mitchell.conv2d, method=method, **options)
        define = partial(reference.conv2d, **options, **more)
        yield _sums(_title(FLOAT32, method), call, define, (x, weight), weight[0].size, method)


_GRADIENTS: tuple[Literal["mimic", "exact", "straight-through"], ...] = (
    "mimic",
    "exact",
    "straight-through",
)


def gradient_operands(dtype: Dtype, rows: int, depth: int, columns: int) -> tuple[Array, ...]:
    """Return grad, a and b of a product."""
    shapes = ((rows, columns), (rows, depth), (depth, columns))
    return tuple(ordinary(dtype, *shape, seed=seed) for seed, shape in enumerate(shapes))


def _gradient_bounds(operands: tuple[Array, ...]) -> tuple[Array, ...]:
    """Bound the sums of each gradient: a derivative is at most four times the other operand."""
    wide = [np.abs(x.astype(np.float64)) for x in operands]
    magnitudes = reference.matmul_backward(*wide, gradient="straight-through")
    (rows, columns), dtype = operands[0].shape, operands[0].dtype
    return tuple(
        sum_bound(dtype, 4 * m, n) for m, n in zip(magnitudes, (columns, rows), strict=True)
    )


def _backward() -> Iterator[Case]:
    for dtype in FLOATS:
        operands = gradient_operands(dtype, 9, 40, 270)
        for gradient in _GRADIENTS:
            call = partial(mitchell.matmul_backward, gradient=gradient)
            expected = reference.matmul_backward(*operands, gradient=gradient)
            bounds = _gradient_bounds(operands)
            yield Case(f"{dtype}, {gradient}", call, operands, expected, bounds, portable=False)
    operands = gradient_operands(FLOAT32, 9, 20, 30)
    for method, options in methods_of(FLOAT32):
        call = partial(mitchell.matmul_backward, method=method)
        expected = reference.matmul_backward(*operands, **options)
        bounds = _gradient_bounds(operands)
        if not isinstance(method, str):  # arbitrary products, below twice the exact ones' exponent
            bounds = tuple(4 * bound for bound in bounds)
        title = f"{_title(FLOAT32, method)}, mimic"
        yield Case(title, call, operands, expected, bounds, portable=False)


CHECKS = [
    Check("mitchell", "multiply, every method", _products),
    Check("mitchell", "divide, reciprocal", _quotients),
    Check("mitchell", "sqrt, log2, exp2", _functions),
    Check("mitchell", "power, square", _powers),
    Check("mitchell", "matmul, every method", _matmul),
    Check("mitchell", "conv2d", _convolutions),
    Check("mitchell", "matmul_backward", _backward),
]
