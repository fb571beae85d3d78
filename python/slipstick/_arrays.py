"""The frameworks whose arrays slipstick takes: how each one makes the array that a result goes into."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Empty = Callable[[tuple[int, ...], str], Any]


class Framework(NamedTuple):
    """Makes results in the framework of an array.

    Attributes
    ----------
    empty : callable
        ``empty(shape, dtype_name)`` gives an uninitialised array in memory.
    finish : callable
        Turns the filled array into what the caller gets; the identity but for frameworks whose
        arrays cannot be written to.
    """

    empty: Empty
    finish: Callable[[Any], Any]


def _itself(array: Any) -> Any:
    return array


def _numpy_empty(shape: tuple[int, ...], dtype: str) -> Any:
    if dtype == "bfloat16":
        import ml_dtypes

        return np.empty(shape, ml_dtypes.bfloat16)
    return np.empty(shape, dtype)


def _torch_empty(shape: tuple[int, ...], dtype: str) -> Any:
    torch = sys.modules["torch"]
    return torch.empty(shape, dtype=getattr(torch, dtype))


def _jax_finish(array: Any) -> Any:
    import jax

    return jax.numpy.asarray(array)


_NUMPY = Framework(_numpy_empty, _itself)
# By the first part of the name of the module that defines the array's type. jax's arrays cannot be
# written to: its results are computed in NumPy's memory and handed over.
_FRAMEWORKS = {
    "numpy": _NUMPY,
    "torch": Framework(_torch_empty, _itself),
    "jax": Framework(_numpy_empty, _jax_finish),
    "jaxlib": Framework(_numpy_empty, _jax_finish),
}


def framework_of(array: Any) -> Framework:
    """Return the framework of `array`; NumPy where it is unknown, so that DLPack arrays work too."""
    if type(array) is np.ndarray:
        return _NUMPY
    for base in type(array).__mro__:
        known = _FRAMEWORKS.get(base.__module__.partition(".")[0])
        if known is not None:
            return known
    return _NUMPY
