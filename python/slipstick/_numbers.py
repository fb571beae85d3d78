"""Numbers as callers give them."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any, TypeGuard


def is_number(value: object) -> TypeGuard[Any]:
    """Tell whether `value` is a real number of Python's or NumPy's; a bool is none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def to_float(value: Any) -> float:
    """Return a number as a float, infinite where it is an int beyond their range."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def given(value: object, show: Callable[[Any], str] = repr) -> str:
    """Return what an error message shows of a value: its repr, or str, on one line, cut if long."""
    try:
        text = " ".join(show(value).split())
        return text if len(text) <= 200 else f"{text[:197]}..."
    except ValueError:  # an int of more than 4300 digits, which Python does not print
        return f"{type(value).__name__} of too many digits"
