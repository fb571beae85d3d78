"""Numbers as callers give them."""

from __future__ import annotations

import math
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
