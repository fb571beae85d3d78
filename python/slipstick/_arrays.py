"""The frameworks whose arrays slipstick takes, and how each one makes an array for a result."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slipstick import _cpu
from slipstick._backend import cuda_kernels

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
    kernels : module
        The compiled module for where the array is.
    number : callable
        Makes a number of an array of shape (). One on a device stays what it is: to read it would
        wait.
    """

    empty: Empty
    finish: Callable[[Any], Any]
    mutable: bool = True
    kernels: Any = _cpu
    number: Callable[[Any], Any] = float


class Place(NamedTuple):
    """Where an array on a device is, and how its framework makes another one there."""

    empty: Empty
    device: int
    stream: Callable[[], int]  # gives the framework's current one on the device, a cudaStream_t


class DeviceMemory:
    """Makes results and scratch memory on a device, for a call that runs in a stream's order."""

    __slots__ = ("_empty", "_function", "device", "stream")

    def __init__(self, function: str, place: Place) -> None:
        self._function = function
        self._empty, self.device = place.empty, place.device
        self.stream = place.stream()

    def __call__(self, shape: tuple[int, ...], dtype: str) -> Any:
        try:
            return self._empty(shape, dtype)
        except (RuntimeError, MemoryError) as error:
            size = 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize
            raise RuntimeError(
                f"{self._function}: CUDA device {self.device} must have memory for "
                f"{size * math.prod(shape)} bytes more, got: {_first_line(error)}"
            ) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _itself(array: Any) -> Any:
    return array


def _numpy_dtype(name: str) -> Any:
    if name == "bfloat16":
        import ml_dtypes

        return ml_dtypes.bfloat16
    return name


def _numpy_empty(shape: tuple[int, ...], dtype: str) -> Any:
    return np.empty(shape, _numpy_dtype(dtype))


def _torch_empty(shape: tuple[int, ...], dtype: str) -> Any:
    torch = sys.modules["torch"]
    try:
        # On the CPU, whatever torch's default device is.
        return torch.empty(shape, dtype=getattr(torch, dtype), device="cpu")
    except RuntimeError as error:
        raise MemoryError(f"torch has no memory for a {dtype} result of shape {shape}") from error


def _torch_place(array: Any) -> Place | None:
    """Return where a tensor is, None on the CPU."""
    if not getattr(array, "is_cuda", False):
        return None
    torch = sys.modules["torch"]
    device = array.device

    def empty(shape: tuple[int, ...], dtype: str) -> Any:
        return torch.empty(shape, dtype=getattr(torch, dtype), device=device)

    return Place(empty, device.index, lambda: torch.cuda.current_stream(device).cuda_stream)


def _cupy_place(array: Any) -> Place | None:
    cupy = sys.modules["cupy"]

    def empty(shape: tuple[int, ...], dtype: str) -> Any:
        with array.device:
            return cupy.empty(shape, _numpy_dtype(dtype))

    device = array.device.id
    return Place(empty, device, lambda: cupy.cuda.get_current_stream(device).ptr)


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
    "cupy": _NUMPY,  # never on the CPU: its place decides
    "jax": _JAX,
    "jaxlib": _JAX,
}
# Of the frameworks whose arrays may be on a CUDA device: where one is.
_PLACES: dict[str, Callable[[Any], Place | None]] = {"torch": _torch_place, "cupy": _cupy_place}


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


def _framework(function: str, array: Any) -> Framework:
    if type(array) is np.ndarray:
        return _NUMPY
    for base in type(array).__mro__:
        name = str(base.__module__).partition(".")[0]
        known = _FRAMEWORKS.get(name)
        if known is not None:
            place = _PLACES[name](array) if name in _PLACES else None
            return known if place is None else _on_device(function, place)
    return _NUMPY  # any other array that offers DLPack


def _on_device(function: str, place: Place) -> Framework:
    kernels = cuda_kernels()
    if kernels is None:
        raise ValueError(
            f"{function}: arrays must be on the CPU, since this build of slipstick has no CUDA "
            f"module, got one on CUDA device {place.device}"
        )
    memory = DeviceMemory(function, place)
    return Framework(memory, _itself, kernels=kernels, number=_itself)


def framework_of(function: str, array: Any, out: Any = None) -> Framework:
    """Return the framework that the result of `function` belongs to: that of its first array.

    Raises
    ------
    ValueError
        If `out` belongs to a framework whose arrays must not be written to, or `array` is on a
        CUDA device in a build without CUDA.
    """
    framework = _framework(function, array)
    if out is None:
        return framework
    if not _framework(function, out).mutable:
        kind = type(out).__name__
        raise ValueError(f"{function}: `out` must be writable, got an immutable {kind}")
    return framework._replace(finish=_itself)  # `out` is returned as it is
