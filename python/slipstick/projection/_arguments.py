"""What the functions of the family check alike."""

from __future__ import annotations

import operator
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slipstick._numbers import given


def integer(function: str, name: str, value: SupportsIndex, low: int, bits: int) -> int:
    """Return `value` as an int, if it lies in [low, 2**bits) (up to 2**bits for a count)."""
    number = index(value)
    if number is None:
        raise TypeError(f"{function}: `{name}` must be an int, got {type(value).__name__}")
    last = (1 << bits) - 1 + low
    if not low <= number <= last:
        text = f"2**{bits}" if low else f"2**{bits} - 1"
        raise ValueError(
            f"{function}: `{name}` must be between {low} and {text}, got {given(number)}"
        )
    return number


def index(value: Any) -> int | None:
    """Return an int of Python, NumPy or a framework as an int; None for anything else."""
    if type(value) is int:  # the common case, for speed
        return value
    if isinstance(value, (bool, np.bool_)):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def numbers(function: str, name: str, values: ArrayLike, kinds: str, expected: str) -> NDArray[Any]:
    """Return one number or an array of them as an array, if its dtype is of these kinds."""
    message = f"{function}: `{name}` must be {expected} or an array of them, got {given(values)}"
    try:
        array = np.asarray(values)
    except ValueError:  # lists of different lengths
        raise TypeError(message) from None
    if array.dtype.kind not in kinds:
        raise TypeError(message)
    return array
