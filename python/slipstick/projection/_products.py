"""Products with arrays of few columns, by the kernels made for them.

NumPy's would do, but its threads wait for work at full speed for milliseconds after each, on the
cores that the next product needs: between two passes over a matrix that doubles the time of one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from slipstick import _cpu
from slipstick._runtime import get_isa

Array = NDArray[Any]
Tall = Any  # an array of few columns: NumPy's, or Dask's in chunks of rows


def multiply(a: Array, few: Array, out: Array) -> None:
    """Write ``a @ few``, a product with few columns; one of the axes of `a` is contiguous."""
    if get_isa() == "v2":  # without fma our own kernel is half as fast as NumPy's
        np.matmul(a, few, out=out)
    elif a.strides[1] == a.itemsize or a.shape[1] == 1:
        _cpu.skinny_times(a, few, out)
    else:
        _cpu.skinny_transposed(a.T, few, out)


def times(tall: Tall, small: Array) -> Tall:
    """Return ``tall @ small``, of the dtype of `tall`."""
    small = small.astype(tall.dtype, copy=False)
    if not isinstance(tall, np.ndarray):
        return tall @ small
    product = np.empty((tall.shape[0], small.shape[1]), tall.dtype)
    multiply(_straight(tall), small, product)
    return product


def inner(left: Tall, right: Tall) -> Array:
    """Return ``left.T @ right`` as an array of NumPy."""
    if not isinstance(left, np.ndarray):
        return np.asarray(left.T @ right)
    product = np.empty((left.shape[1], right.shape[1]), left.dtype)
    multiply(_straight(left).T, _straight(right), product)
    return product


def _straight(tall: Array) -> Array:
    """Return the array, copied where it is not contiguous or, off a wire, not aligned."""
    return np.require(tall, requirements=["C", "A"])
