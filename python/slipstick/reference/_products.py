"""Matrix products and convolutions with approximate products and exact sums, and gradients."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slipstick.reference._formats import FORMATS, PRODUCT_DTYPES, fields, offset_units
from slipstick.reference._gain import gain
from slipstick.reference._methods import CARRYING, REAL_PRODUCTS, leading, lmul_l
from slipstick.reference._mitchell import float_product, multiply

Array = NDArray[Any]


def _entering(a: Array, b: Array, **options: Any) -> Array:
    """Return products as they enter a sum: Python ints, or float64.

    Those of the real-product methods are neither rounded to the dtype nor flushed nor infinite
    beyond its range; float64's own are rounded once, to float64.
    """
    if a.dtype.name in PRODUCT_DTYPES:
        return multiply(a, b, **options).astype(object)
    method = options.get("method", "mitchell")
    if method not in REAL_PRODUCTS:
        return multiply(a, b, **options).astype(np.float64)
    a, b = np.broadcast_arrays(a, b)
    p = float_product(a, b, method, width=options.get("width"))
    with np.errstate(over="ignore", under="ignore"):
        magnitude = np.ldexp(p.value.astype(np.float64), (p.exponent - p.unit).astype(np.int32))
    magnitude = np.where(p.zero, 0.0, np.where(p.inf, np.inf, magnitude))
    return np.where(p.nan, np.nan, np.where(p.sign == 1, -magnitude, magnitude))


def _as_matrices(a: Array, b: Array) -> tuple[Array, Array]:
    return a[np.newaxis, :] if a.ndim == 1 else a, b[:, np.newaxis] if b.ndim == 1 else b


def matmul(
    a: ArrayLike,
    b: ArrayLike,
    *,
    bias: float = 0.0,
    correction: Literal["gain"] | float | None = None,
    **options: Any,
) -> Array:
    """Multiply (..., m, k) by (..., k, n) with a method's products, summed in float64.

    Shapes follow numpy.matmul, options are those of `multiply`. Products of the methods defined by
    real products ("lmul-formula", "ilm", "drum") enter the sum unrounded. `correction` multiplies
    the result: "gain" by 1 / gain of the method, a float by itself. Integers are summed exactly, to
    int32 or uint32 for 8-bit operands, else to int64 or uint64; with a correction the result is
    float64.

    >>> matmul(np.float32([[3, 1]]), np.float32([[3], [2]])).tolist()
    [[10.0]]
    """
    a, b = np.asarray(a), np.asarray(b)
    left, right = _as_matrices(a, b)
    products = _entering(
        left[..., :, :, np.newaxis], right[..., np.newaxis, :, :], bias=bias, **options
    )
    with np.errstate(invalid="ignore"):  # inf - inf is a NaN in the result, not a warning
        result = products.sum(axis=-2)
    if a.dtype.name in PRODUCT_DTYPES:
        result = np.asarray(result).astype(f"{a.dtype.kind}{4 if a.dtype.itemsize == 1 else 8}")
    if a.ndim == 1:
        result = result[..., 0, :]
    if b.ndim == 1:
        result = result[..., 0]
    if correction is None:
        return np.asarray(result)
    if correction != "gain":
        factor = float(correction)
    else:
        own = {name: options[name] for name in ("method", "width", "table") if name in options}
        factor = 1 / gain(bias, fraction=FORMATS[a.dtype.name].fraction, **own)
    return np.asarray(result.astype(np.float64) * factor)


def derivative(
    a: ArrayLike,
    b: ArrayLike,
    *,
    method: str = "mitchell",
    bias: float = 0.0,
    width: int | None = None,
    **_: Any,
) -> Array:
    """Return dP/da of the piecewise linear product P, right-continuous in abs(a), as float64.

    Mitchell's kind: the pattern ``(|b|bits + mantissa(a) + offset) & exponent mask``, with the sign
    of b, which covers the second carry that an offset can bring. "lmul-formula": the leading power
    of two of b. "ilm": b less what remains when its width + 1 leading ones are removed. A zero or
    subnormal a has mantissa 0, such a b gives 0, a NaN or an infinity in a or b gives NaN. Methods
    that drop bits of their operands have no such derivative: ValueError.

    >>> derivative(np.float32([1.25, 1.75]), np.float32(-3.0)).tolist()
    [-2.0, -4.0]
    """
    a, b = np.broadcast_arrays(a, b)
    fmt = FORMATS[a.dtype.name]
    p, q = fields(a, fmt), fields(b, fmt)
    rounded = method in ("lmul", "lmul-formula") and 0 < (width or 0) < fmt.fraction
    truncated = method == "mbm" and bool(width)
    if method in CARRYING and not rounded and not truncated:
        offset = 0
        if method == "mitchell":
            offset = offset_units(bias, fmt.fraction)
        elif method == "lmul":
            offset = 1 << (fmt.fraction - lmul_l(width or fmt.fraction))
        mantissa = np.where(p.is_zero, 0, p.fraction)
        exponent = q.exponent + ((q.fraction + mantissa + offset) >> fmt.fraction)
        value = np.where(exponent >= fmt.all_ones, np.inf, 1.0)
    elif method == "lmul-formula" and not rounded:
        value, exponent = np.ones(q.fraction.shape), q.exponent
    elif method == "ilm":
        significand = rest = q.fraction + (1 << fmt.fraction)
        for _i in range((1 if width is None else width) + 1):
            rest = rest - leading(rest)
        value = (significand - rest) / 2.0**fmt.fraction
        exponent = q.exponent
    else:
        raise ValueError(f"derivative: {method!r} drops bits, so it is zero almost everywhere")
    exponent = np.minimum(exponent, fmt.all_ones - 1) - fmt.bias
    value = np.ldexp(value, exponent.astype(np.int32))
    value = np.where(q.is_zero, 0.0, np.where(q.sign == 1, -value, value))
    undefined = p.is_nan | p.is_inf | q.is_nan | q.is_inf
    return np.asarray(np.where(undefined, np.nan, value))


def matmul_backward(
    grad: ArrayLike,
    a: ArrayLike,
    b: ArrayLike,
    *,
    gradient: Literal["mimic", "exact", "straight-through"] = "mimic",
    **options: Any,
) -> tuple[Array, Array]:
    """Return the gradients of sum(grad * matmul(a, b)) with respect to a and b, in float64.

    "mimic": grad_a = P(grad, b) and grad_b = P(a, grad), summed as in `matmul`, with the method of
    the options. "straight-through": the gradient of the exact product. "exact": grad times the
    `derivative`. Operands are floats of one dtype, grad has the shape of the product; gradients
    have those of a and b, summed over the axes that were broadcast.

    >>> [g.tolist() for g in matmul_backward(*np.float32([[[1.0]], [[1.5]], [[1.5]]]))]
    [[[1.5]], [[1.5]]]
    >>> matmul_backward(*np.float32([[[1.0]], [[1.5]], [[1.5]]]), gradient="exact")[0].tolist()
    [[2.0]]
    """
    grad, a, b = np.asarray(grad), np.asarray(a), np.asarray(b)
    left, right = _as_matrices(a, b)
    if b.ndim == 1:
        grad = grad[..., np.newaxis]
    if a.ndim == 1:
        grad = grad[..., np.newaxis, :]
    # Axes: batch, rows i, inner k, columns j.
    g = grad[..., :, np.newaxis, :]
    x, y = left[..., :, :, np.newaxis], right[..., np.newaxis, :, :]
    with np.errstate(invalid="ignore", over="ignore"):
        if gradient == "mimic":
            terms = _entering(g, y, **options), _entering(x, g, **options)
        elif gradient == "straight-through":
            wide = [t.astype(np.float64) for t in (g, x, y)]
            terms = wide[0] * wide[2], wide[1] * wide[0]
        else:
            g = g.astype(np.float64)
            terms = g * derivative(x, y, **options), g * derivative(y, x, **options)
        grad_a, grad_b = terms[0].sum(axis=-1), terms[1].sum(axis=-3)
    return (
        _sum_to(grad_a, left.shape).reshape(a.shape),
        _sum_to(grad_b, right.shape).reshape(b.shape),
    )


def _sum_to(x: Array, shape: tuple[int, ...]) -> Array:
    """Sum over the axes along which something of `shape` was broadcast."""
    x = x.sum(axis=tuple(range(x.ndim - len(shape))))
    stretched = tuple(i for i, n in enumerate(shape) if n == 1 and x.shape[i] != 1)
    return np.asarray(x.sum(axis=stretched, keepdims=True))


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def conv2d(
    x: ArrayLike,
    weight: ArrayLike,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    **options: Any,
) -> Array:
    """Correlate x (batch, channels, height, width) with weight (out, channels / groups, kh, kw).

    Padding adds zeros, which are operands like others: a table may give them a product. Sums and
    dtypes are those of `matmul`, options those of `multiply`.

    >>> conv2d(np.float32([[[[3, 1, 2]]]]), np.float32([[[[3, 2]]]])).tolist()
    [[[[10.0, 7.0]]]]
    """
    (sh, sw), (ph, pw), (dh, dw) = _pair(stride), _pair(padding), _pair(dilation)
    x, weight = np.asarray(x), np.asarray(weight)
    out, channels, kh, kw = weight.shape
    x = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    rows = (x.shape[2] - dh * (kh - 1) - 1) // sh + 1
    columns = (x.shape[3] - dw * (kw - 1) - 1) // sw + 1
    i = sh * np.arange(rows)[:, np.newaxis, np.newaxis, np.newaxis] + dh * np.arange(kh)[:, None]
    j = sw * np.arange(columns)[:, np.newaxis, np.newaxis] + dw * np.arange(kw)
    results = []
    for group in range(groups):
        part = x[:, group * channels : (group + 1) * channels]
        # (batch, channels, rows, columns, kh, kw) to (batch, places, taps)
        patches = part[:, :, i, j].transpose(0, 2, 3, 1, 4, 5)
        patches = patches.reshape(len(x), rows * columns, channels * kh * kw)
        each = out // groups
        taps = weight[group * each : (group + 1) * each].reshape(each, -1)
        product = matmul(patches, taps.T, **options)
        results.append(product.transpose(0, 2, 1).reshape(len(x), each, rows, columns))
    return np.concatenate(results, axis=1)
