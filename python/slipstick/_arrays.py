"""The frameworks whose arrays slipstick takes, and how each one makes an array for a result."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Empty = Callable[[tuple[int, ...], str], Any]


class Framework(NamedTuple):
    """Makes results in the framework of an array.

    Attributes
    ----------
    empty : callable
        ``empty(shape, dtype_name)`` gives an uninitialised array in memory.
    finish : callable
        Turns the filled array into what the caller gets.
    mutable : bool
        Whether the framework's arrays may be written to. The results of one whose arrays may not
        are computed in NumPy's memory and handed over by `finish`.
    """

    empty: Empty
    finish: Callable[[Any], Any]
    mutable: bool = True


def _itself(array: Any) -> Any:
    return array


def _numpy_empty(shape: tuple[int, ...], dtype: str) -> Any:
    if dtype == "bfloat16":
        import ml_dtypes

        return np.empty(shape, ml_dtypes.bfloat16)
    return np.empty(shape, dtype)


def _torch_empty(shape: tuple[int, ...], dtype: str) -> Any:
    torch = sys.modules["torch"]
    try:
        # On the CPU, whatever torch's default device is.
        return torch.empty(shape, dtype=getattr(torch, dtype), device="cpu")
    except RuntimeError as error:
        raise MemoryError(f"torch has no memory for a {dtype} result of shape {shape}") from error


def _jax_empty(shape: tuple[int, ...], dtype: str) -> Any:
    """Return NumPy's memory, which jax takes over, unless jax would not keep the dtype."""
    import jax

    array = _numpy_empty(shape, dtype)
    if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
        raise TypeError(
            f"slipstick: the result must have dtype {array.dtype}, which jax gives only with "
            "jax_enable_x64, got a configuration without it"
        )
    return array


def _jax_finish(array: Any) -> Any:
    import jax

    return jax.numpy.asarray(array)


_NUMPY = Framework(_numpy_empty, _itself)
_JAX = Framework(_jax_empty, _jax_finish, mutable=False)
# By the first part of the name of the module that defines the array's type.
_FRAMEWORKS = {
    "numpy": _NUMPY,
    "torch": Framework(_torch_empty, _itself),
    "jax": _JAX,
    "jaxlib": _JAX,
}


def to_numpy(function: str, argument: str, array: Any) -> NDArray[Any]:
    """Return NumPy's array of anything that has one, without a mask; TypeError otherwise."""
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(
            f"{function}: `{argument}` must be an array without a mask of its own, got a "
            "MaskedArray"
        )
    try:
        return np.asarray(array)
    except (TypeError, ValueError, RuntimeError) as error:
        kind = type(array).__name__
        message = f"{function}: `{argument}` must be what NumPy takes for an array, got {kind}"
        raise TypeError(message) from error


def _framework(array: Any) -> Framework:
    if type(array) is np.ndarray:
        return _NUMPY
    for base in type(array).__mro__:
        known = _FRAMEWORKS.get(str(base.__module__).partition(".")[0])
        if known is not None:
            return known
    return _NUMPY  # any other array that offers DLPack


def framework_of(function: str, array: Any, out: Any = None) -> Framework:
    """Return the framework that the result of `function` belongs to: that of its first array.

    Raises
    ------
    ValueError
        If `out` belongs to a framework whose arrays must not be written to.
    """
    if out is not None:
        if not _framework(out).mutable:
            kind = type(out).__name__
            raise ValueError(f"{function}: `out` must be writable, got an immutable {kind}")
        return _NUMPY  # `out` is returned as it is
    return _framework(array)
