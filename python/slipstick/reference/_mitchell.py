"""Elementwise operations of Mitchell's family: J. N. Mitchell 1962 and those after him."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slipstick.reference._formats import (
    FORMATS,
    PRODUCT_DTYPES,
    Fields,
    Format,
    assemble,
    fields,
    offset_units,
    split,
)
from slipstick.reference._methods import DEFAULT_WIDTHS, PREPARE, REAL_PRODUCTS, VALUE, Parameters

Array = NDArray[Any]


def multiply(
    a: ArrayLike,
    b: ArrayLike,
    *,
    method: str = "mitchell",
    bias: float = 0.0,
    width: int | None = None,
    table: ArrayLike | None = None,
    mode: str = "",
) -> Array:
    """Multiply two arrays of one dtype by a method, with broadcasting.

    Of ``|a| = 2^k1 (1 + x)`` and ``|b| = 2^k2 (1 + y)`` the product is 2^(k1 + k2) V. For
    "mitchell" with s = x + y + bias V is 1 + s if s < 1, 2 s if s < 2, 4 (s - 1) otherwise.
    Integers floor the exact product, apply the sign and saturate in the next wider type. Floats
    halve V until it is below 2: bit-sum methods truncate the bits lost, those of `REAL_PRODUCTS`
    round once, to nearest even.

    `width` is bits of "lmul" and "lmul-formula" (None or 0: those of the dtype), truncate of "mbm",
    segments of "realm", iterations of "ilm", else width; None is the usual one. `table` belongs to
    "table", `mode` ("raw", "kosson-jaggi") and `bias` to "mitchell".

    Floats: a NaN, or inf * 0, gives NaN; a subnormal operand counts as zero; a result below the
    normal range is a zero, one above the finite range an infinity, with the sign of the product.

    >>> multiply(np.uint8([3, 4, 255]), np.uint8([3, 5, 255])).tolist()
    [8, 20, 65024]
    >>> float(multiply(np.float32(1.5), np.float32(-1.5)))
    -2.0
    >>> multiply(np.uint8([7]), np.uint8([7]), method="ilm", width=1).tolist()
    [48]
    """
    a, b = np.broadcast_arrays(a, b)
    # Flat, since NumPy turns arrays of Python ints into scalars where they have no axes.
    product = _multiply(a.ravel(), b.ravel(), method, bias, width, table, mode)
    return product.reshape(a.shape)


def _multiply(
    a: Array,
    b: Array,
    method: str,
    bias: float,
    width: int | None,
    table: ArrayLike | None,
    mode: str,
) -> Array:
    if method == "table":
        return _look_up(a, b, np.asarray(table))
    if method == "operand-decomposition":
        return _decompose(a, b)
    if mode == "raw":
        return _raw(a, b, bias)
    if mode == "kosson-jaggi":
        return _kosson_jaggi(a, b, bias)
    if a.dtype.name in PRODUCT_DTYPES:
        return _integer_product(a, b, method, bias, width)
    fmt = FORMATS[a.dtype.name]
    product = float_product(a, b, method, bias, width)
    value, unit = product.value, product.unit
    carries = np.where(value >= 4 << unit, 2, np.where(value >= 2 << unit, 1, 0))
    lost = carries + (unit - fmt.fraction)
    kept = value >> lost
    if method in REAL_PRODUCTS:
        twice_rest = 2 * (value - (kept << lost))
        whole = np.ones_like(value) << lost
        kept = kept + np.where(
            (twice_rest > whole) | ((twice_rest == whole) & (kept & 1 == 1)), 1, 0
        )
    fraction = kept.astype(np.int64) - (1 << fmt.fraction)  # carries where it was rounded up to 2
    return assemble(
        a.dtype,
        fmt,
        product.sign,
        product.exponent + carries.astype(np.int64) + fmt.bias,
        fraction,
        nan=product.nan,
        inf=product.inf,
        zero=product.zero,
    )


class FloatProduct(NamedTuple):
    """A product before rounding: 2^exponent value / 2^unit, and its class and sign."""

    sign: Array
    exponent: Array
    value: Array
    unit: int
    nan: Array
    inf: Array
    zero: Array


def float_product(
    a: Array, b: Array, method: str, bias: float = 0.0, width: int | None = None
) -> FloatProduct:
    """Form the exact product of a method; classes are those of the operands as given."""
    fmt = FORMATS[a.dtype.name]
    p, q = fields(a, fmt), fields(b, fmt)
    wide = method in ("ilm", "drum")
    work: type[Any] = object if wide and fmt.fraction > 30 else np.int64
    parameters = _parameters(method, fmt.fraction, bias, width, exact=False)
    exponent, value = _value(
        method,
        (p.exponent.astype(work), p.fraction.astype(work), fmt.fraction),
        (q.exponent.astype(work), q.fraction.astype(work), fmt.fraction),
        parameters,
    )
    return FloatProduct(
        p.sign ^ q.sign,
        exponent.astype(np.int64) - 2 * fmt.bias,
        value,
        parameters.unit,
        p.is_nan | q.is_nan | (p.is_inf & q.is_zero) | (p.is_zero & q.is_inf),
        p.is_inf | q.is_inf,
        p.is_zero | q.is_zero,
    )


def _parameters(method: str, m: int, bias: float, width: int | None, *, exact: bool) -> Parameters:
    """Resolve what is left to the dtype; `exact` keeps an offset as it is, else it is rounded."""
    if method in ("lmul", "lmul-formula"):
        width = width or m
    elif width is None:
        width = DEFAULT_WIDTHS.get(method, 0)
    if (method == "mbm" and width >= m) or (method == "alm-soa" and not 1 <= width <= m):
        raise ValueError(f"multiply: {method!r} has no meaning with width {width} and {m} bits")
    unit = 2 * m if method in ("ilm", "drum") else m
    if not exact:
        return Parameters(m, width, offset_units(bias, unit), unit)
    numerator, denominator = float(bias).as_integer_ratio()
    unit = max(unit, denominator.bit_length() - 1)
    return Parameters(m, width, (numerator << unit) // denominator, unit)


def _value(
    method: str, left: tuple[Array, Array, Any], right: tuple[Array, Array, Any], p: Parameters
) -> tuple[Array, Array]:
    """From (power, fraction, fraction bits present) of two operands to power and V."""
    powers, fractions = [], []
    for power, fraction, present in (left, right):
        if method in PREPARE:
            power, fraction = PREPARE[method](power, fraction, p, present)
        powers.append(power)
        # In units of 2^-unit, except for products of significands.
        fractions.append(fraction if method in ("ilm", "drum") else fraction << (p.unit - p.m))
    return powers[0] + powers[1], VALUE[method](fractions[0], fractions[1], p)


def _integer_product(a: Array, b: Array, method: str, bias: float, width: int | None) -> Array:
    dtype: np.dtype[Any] = np.dtype(PRODUCT_DTYPES[a.dtype.name])
    m = 8 * a.dtype.itemsize - 1
    parameters = _parameters(method, m, bias, width, exact=True)
    # V 2^(k1 + k2) needs unit + 2 m + 5 bits.
    work: type[Any] = np.int64 if parameters.unit + 2 * m + 5 <= 63 else object
    p, q = split(a, m, work), split(b, m, work)
    power, value = _value(
        method, (p.power, p.fraction, p.power), (q.power, q.fraction, q.power), parameters
    )
    magnitude = (value << power) >> parameters.unit
    magnitude = np.where(p.is_zero | q.is_zero, 0, magnitude)
    info = np.iinfo(dtype)
    signed = np.where(p.negative != q.negative, -magnitude, magnitude)
    return np.asarray(np.clip(signed, int(info.min), int(info.max))).astype(dtype)


def _decompose(a: Array, b: Array) -> Array:
    """Mit(A & B, A | B) + Mit(A & ~B, ~A & B), at most A B, of magnitudes."""
    if a.dtype.kind == "i":
        unsigned = np.dtype(f"u{a.dtype.itemsize}")
        left, right = (np.abs(x.astype(np.int64)).astype(unsigned) for x in (a, b))
        magnitude = _decompose(left, right).astype(object)
        signed = np.where((a < 0) != (b < 0), -magnitude, magnitude)
        return np.asarray(signed).astype(PRODUCT_DTYPES[a.dtype.name])
    return np.asarray(multiply(a & b, a | b) + multiply(a & ~b, ~a & b))


def _look_up(a: Array, b: Array, table: Array) -> Array:
    """Products of 8-bit integers, or mantissas of floats with a carry into the exponent."""
    if len(table) == 256:
        products = table[a.view(np.uint8).astype(np.intp), b.view(np.uint8).astype(np.intp)]
        return np.asarray(products).astype(PRODUCT_DTYPES[a.dtype.name])
    fmt = FORMATS[a.dtype.name]
    p, q = fields(a, fmt), fields(b, fmt)
    bits = len(table).bit_length() - 1
    below = fmt.fraction - bits
    entry = table[p.fraction >> below, q.fraction >> below].astype(np.int64)
    return assemble(
        a.dtype,
        fmt,
        p.sign ^ q.sign,
        p.exponent + q.exponent - fmt.bias + (entry >> 7),
        (entry & 0x7F) << below,
        nan=p.is_nan | q.is_nan | (p.is_inf & q.is_zero) | (p.is_zero & q.is_inf),
        inf=p.is_inf | q.is_inf,
        zero=p.is_zero | q.is_zero,
    )


def _raw(a: Array, b: Array, bias: float) -> Array:
    """Add the full patterns and subtract C, modulo 2^width."""
    fmt = FORMATS[a.dtype.name]
    c = fmt.bits(fmt.one - offset_units(bias, fmt.fraction))
    with np.errstate(over="ignore"):
        return np.asarray(a.view(fmt.bits) + b.view(fmt.bits) - c).view(a.dtype)


def _kosson_jaggi(a: Array, b: Array, bias: float) -> Array:
    """float32: decide by the true product, exact in float64; else the bare bit sum."""
    with np.errstate(invalid="ignore", over="ignore"):
        true = np.abs(a.astype(np.float64) * b.astype(np.float64))
    result = np.where(true < 1e-37, np.float32(0), _raw(a, b, bias))
    return np.asarray(np.where(true < 1e37, result, np.float32(np.nan)))


def square(a: ArrayLike, **options: Any) -> Array:
    """Return multiply(a, a)."""
    return multiply(a, a, **options)


def divide(a: ArrayLike, b: ArrayLike, *, bias: float = 0.0) -> Array:
    """Mitchell's quotient of two float arrays of one dtype, with broadcasting.

    The difference of the two bit patterns plus C, the pattern of 1.0 less the bias.
    0/0 and inf/inf give NaN, x/0 a signed infinity, x/inf a signed zero; the rest as in `multiply`.

    >>> float(divide(np.float32(3.0), np.float32(1.5)))
    2.0
    >>> float(divide(np.float32(1.0), np.float32(1.5)))
    0.75
    """
    a, b = np.broadcast_arrays(a, b)
    fmt = FORMATS[a.dtype.name]
    p, q = fields(a, fmt), fields(b, fmt)
    return assemble(
        a.dtype,
        fmt,
        p.sign ^ q.sign,
        p.exponent - q.exponent + fmt.bias,
        p.fraction - q.fraction - offset_units(bias, fmt.fraction),
        nan=p.is_nan | q.is_nan | (p.is_inf & q.is_inf) | (p.is_zero & q.is_zero),
        inf=p.is_inf | q.is_zero,
        zero=p.is_zero | q.is_inf,
    )


def reciprocal(b: ArrayLike, *, bias: float = 0.0) -> Array:
    """Return divide(1, b): the pattern 2 C - b without a bias.

    >>> float(reciprocal(np.float32(3.0)))
    0.375
    """
    b = np.asarray(b)
    return divide(np.ones((), b.dtype), b, bias=bias)


def _magnitude(p: Fields, fmt: Format) -> Array:
    return (p.exponent << fmt.fraction) | p.fraction


def sqrt(a: ArrayLike) -> Array:
    """Half the pattern plus half the pattern of 1.0, the last bit of the first dropped.

    Zeros and subnormals give zeros with their sign; other negative numbers give NaN.

    >>> float(sqrt(np.float32(2.0))), float(sqrt(np.float32(9.0)))
    (1.5, 3.125)
    """
    a = np.asarray(a)
    fmt = FORMATS[a.dtype.name]
    p = fields(a, fmt)
    negative = (p.sign == 1) & ~p.is_zero
    bits = (_magnitude(p, fmt) >> 1) + (fmt.one >> 1)
    zero = np.zeros_like(bits)
    return assemble(
        a.dtype, fmt, p.sign, zero, bits, nan=p.is_nan | negative, inf=p.is_inf, zero=p.is_zero
    )


def log2(a: ArrayLike) -> Array:
    """(bits - one) / 2^m, rounded once to nearest even.

    Zeros and subnormals give -inf; other negative numbers give NaN.

    >>> float(log2(np.float32(3.0))), float(log2(np.float32(0.75)))
    (1.5, -0.5)
    """
    a = np.asarray(a)
    fmt = FORMATS[a.dtype.name]
    p = fields(a, fmt)
    # Only float64 has patterns that float64 rounds; the division by 2^m is exact.
    value = np.ldexp((_magnitude(p, fmt) - fmt.one).astype(np.float64), -fmt.fraction)
    value = np.where((p.sign == 1) | p.is_nan, np.nan, np.where(p.is_inf, np.inf, value))
    return np.asarray(np.where(p.is_zero, -np.inf, value)).astype(a.dtype)


def exp2(x: ArrayLike) -> Array:
    """Return the number of the pattern one + floor(x 2^m), the inverse of `log2`.

    With k = floor(x) the result is 2^k (1 + x - k), its fraction truncated to m bits. Cutting bits
    off a positive fraction is a floor of the whole pattern for negative x too; rounding x 2^m
    towards zero would round the result up there. A subnormal x counts as zero.

    >>> float(exp2(np.float32(1.5))), float(exp2(np.float32(-0.5)))
    (3.0, 0.75)
    """
    x = np.asarray(x)
    fmt = FORMATS[x.dtype.name]
    p = fields(x, fmt)
    with np.errstate(invalid="ignore", over="ignore"):
        units = np.floor(x.astype(np.float64) * 2.0**fmt.fraction)  # exact: a power of two
    # Beyond 2^62 any format overflows or flushes.
    units = np.where(p.is_nan | p.is_zero, 0, np.clip(units, -(2.0**62), 2.0**62)).astype(np.int64)
    nothing = np.zeros_like(units)
    never = np.zeros(units.shape, bool)
    return assemble(
        x.dtype, fmt, nothing, nothing + fmt.bias, units, nan=p.is_nan, inf=never, zero=never
    )


def power(a: ArrayLike, p: Any) -> Array:
    """Return the number of the pattern ``one + floor(p (|a|bits - one))``, evaluated exactly.

    `p` is a Python number, which is taken as it is, or an array of the dtype of `a`, in which a
    subnormal number is zero. A negative base takes integer p alone, and an odd one gives its sign.
    Special cases are those of IEEE 754's pow, with subnormals of `a` as zeros: 1 for p = 0 and for
    a = 1, whatever the other is.

    >>> [float(power(np.float32(x), p)) for x, p in [(3.0, 2), (-3.0, 3), (np.nan, 0)]]
    [8.0, -24.0, 1.0]
    """
    a = np.asarray(a)
    fmt = FORMATS[a.dtype.name]
    if isinstance(p, (int, float)):
        exponents = np.full((), p, dtype=object)
    else:
        given = np.asarray(p)
        kept = np.where(fields(given, fmt).is_zero, 0.0, given.astype(np.float64))
        exponents = np.asarray(kept).astype(object)
    parts = fields(a, fmt)
    bits = np.where(parts.is_zero, 0, _magnitude(parts, fmt)).astype(object)
    top = fmt.exponent + fmt.fraction
    infinity, quiet = fmt.all_ones << fmt.fraction, (2 * fmt.all_ones + 1) << (fmt.fraction - 1)

    def element(sign: int, magnitude: int, p: Any) -> int:
        if p == 0 or (magnitude == fmt.one and not sign):
            return fmt.one
        if magnitude > infinity or p != p:
            return quiet
        grows = (magnitude > fmt.one) == (p > 0)
        if abs(p) == np.inf:
            return fmt.one if magnitude == fmt.one else infinity if grows else 0
        numerator, denominator = p.as_integer_ratio()
        negative = sign and denominator == 1 and numerator % 2 == 1
        if magnitude in (0, infinity):
            result = infinity if grows else 0
        elif sign and denominator != 1:
            return quiet
        else:
            result = fmt.one + numerator * (magnitude - fmt.one) // denominator
            result = 0 if result < 1 << fmt.fraction else min(result, infinity)
        return result | (1 << top if negative else 0)

    with np.errstate(invalid="ignore"):  # comparisons with NaN
        result = np.frompyfunc(element, 3, 1)(parts.sign.astype(object), bits, exponents)
    return np.asarray(result).astype(fmt.bits).view(a.dtype)
