"""The dtypes that are checked, and numbers of each that are hard on a kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

try:
    import ml_dtypes

    BFLOAT16 = [np.dtype(ml_dtypes.bfloat16)]
except ImportError:  # NumPy alone has no bfloat16
    BFLOAT16 = []

FLOATS = [np.dtype(name) for name in ("float32", "float64", "float16")] + BFLOAT16
INTEGERS = [np.dtype(f"{kind}{bits}") for kind in ("int", "uint") for bits in (8, 16, 32)]
DTYPES = FLOATS + INTEGERS

# Bits of the exponent and of the fraction.
_FIELDS = {"float16": (5, 10), "bfloat16": (8, 7), "float32": (8, 23), "float64": (11, 52)}


def last_place(dtype: np.dtype[Any]) -> float:
    """Return the distance from 1 to the next number of the format."""
    return float(2.0 ** -_FIELDS[dtype.name][1])


def smallest(dtype: np.dtype[Any]) -> float:
    """Return the smallest normal number of the format."""
    return float(2.0 ** (2 - (1 << (_FIELDS[dtype.name][0] - 1))))


def special(dtype: np.dtype[Any]) -> Array:
    """Return zeros, both sides of every edge of the format, infinities and NaN."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        near = {0, 1, 2, 3, 127, 128, limits.max - 1, limits.max, limits.max // 2}
        near |= {limits.min, limits.min + 1, limits.min // 2}
        return np.array(sorted(v for v in near if limits.min <= v <= limits.max), dtype)
    exponent, fraction = _FIELDS[dtype.name]
    normal = 1 << fraction
    one = ((1 << (exponent - 1)) - 1) << fraction
    infinity = ((1 << exponent) - 1) << fraction
    root = (infinity + one) // 2  # products around the end of the range
    patterns = [0, 1, normal - 1, normal, normal + 1, one - 1, one, one + 1, root - 1, root]
    patterns += [root + 1, 2 * one - root, 2 * one - root + 1, infinity - 1, infinity]
    patterns += [infinity + normal // 2]
    sign = 1 << (exponent + fraction)
    return np.array(patterns + [p | sign for p in patterns], f"u{dtype.itemsize}").view(dtype)


def patterns(dtype: np.dtype[Any], *shape: int, seed: int = 0) -> Array:
    """Return numbers of which all bit patterns are equally likely."""
    raw = np.random.default_rng(seed).integers(0, 256, (*shape, dtype.itemsize), dtype=np.uint8)
    return np.asarray(raw.view(dtype)[..., 0])


def awkward(dtype: np.dtype[Any], count: int) -> Array:
    """Return the special numbers and `count` of any pattern."""
    return np.concatenate([special(dtype), patterns(dtype, count)])


def ordinary(dtype: np.dtype[Any], *shape: int, seed: int = 0, limit: int = 0) -> Array:
    """Return normal numbers with some zeros, or integers, up to `limit` where it is given."""
    rng = np.random.default_rng(seed)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        high = min(info.max, limit or info.max)
        low = max(info.min, -high)
        return rng.integers(low, high, shape, dtype, endpoint=True)
    numbers = rng.standard_normal(shape)
    numbers[rng.random(shape) < 0.05] = 0
    return numbers.astype(dtype)
