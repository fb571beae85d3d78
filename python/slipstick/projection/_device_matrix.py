"""A dense matrix on a CUDA device, seen through its products, which its framework computes there.

Tall blocks stay on the device; inner products of two, which are small, come to the host, where
NumPy factorises them.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slipstick.projection._project import block

Array = NDArray[Any]
_CHUNK_BYTES = 1 << 28  # of rows that are converted at once


class Torch:
    """What the products need of torch."""

    def __init__(self, like: Any) -> None:
        self._torch = sys.modules["torch"]
        self._device = like.device

    def current(self) -> AbstractContextManager[Any]:
        """Return what to compute in: torch does so where tensors lie."""
        return nullcontext()

    def check(self, function: str, array: Any) -> None:
        """Refuse what only the framework itself computes with."""
        if array.layout != self._torch.strided:
            raise TypeError(f"{function}: `x` must be dense on a device, got {array.layout}")
        if array.requires_grad:
            raise TypeError(
                f"{function}: `x` must not require a gradient (call .detach() first), got one that "
                "does"
            )

    def name_of(self, array: Any) -> str:
        return str(array.dtype).partition(".")[2]

    def cast(self, array: Any, dtype: np.dtype[Any]) -> Any:
        return array.to(getattr(self._torch, dtype.name))

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        kind = getattr(self._torch, dtype.name)
        return self._torch.empty(shape, dtype=kind, device=self._device)

    def upload(self, array: Array) -> Any:
        return self._torch.from_numpy(np.ascontiguousarray(array)).to(self._device)

    def download(self, array: Any) -> Array:
        return np.asarray(array.cpu().numpy())

    def extreme(self, array: Any, name: str) -> Any:
        return getattr(self._torch, f"a{name}")(array, dim=0)


class Cupy:
    """What the products need of cupy."""

    def __init__(self, like: Any) -> None:
        self._cupy = sys.modules["cupy"]
        self._device = like.device

    def current(self) -> AbstractContextManager[Any]:
        """Return what to compute in: cupy does so on the current device, wherever arrays lie."""
        device: AbstractContextManager[Any] = self._device
        return device

    def check(self, function: str, array: Any) -> None:
        """Take every array: cupy's are dense and have no gradients."""

    def name_of(self, array: Any) -> str:
        return str(array.dtype.name)

    def cast(self, array: Any, dtype: np.dtype[Any]) -> Any:
        return array.astype(dtype, copy=False)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        return self._cupy.empty(shape, dtype)

    def upload(self, array: Array) -> Any:
        return self._cupy.asarray(array)

    def download(self, array: Any) -> Array:
        return np.asarray(array.get())

    def extreme(self, array: Any, name: str) -> Any:
        return getattr(array, name)(axis=0)


def framework_for(x: Any) -> Torch | Cupy:
    """Return what computes with an array on a device; tensors may be of a subclass."""
    of_torch = any(str(base.__module__).partition(".")[0] == "torch" for base in type(x).__mro__)
    return (Torch if of_torch else Cupy)(x)


class Block:
    """A block on the device, with as much of NumPy's manners as `_krylov` asks for."""

    __array_ufunc__ = None  # NumPy leaves operators to this class

    def __init__(self, framework: Torch | Cupy, array: Any) -> None:
        self._framework = framework
        self.array = array

    shape = property(lambda self: tuple(self.array.shape))
    dtype = property(lambda self: np.dtype(self._framework.name_of(self.array)))
    T = property(lambda self: self._of(self.array.T))

    def _of(self, array: Any) -> Block:
        return Block(self._framework, array)

    def _other(self, other: Any) -> Any:
        if isinstance(other, Block):
            return other.array
        return other if np.isscalar(other) else self._framework.upload(np.asarray(other))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self._framework.download(self.array).astype(dtype or self.dtype, copy=False)

    def __getitem__(self, index: Any) -> Block:
        return self._of(self.array[index])

    def __matmul__(self, other: Any) -> Block:
        return self._of(self.array @ self._other(other))

    def __add__(self, other: Any) -> Block:
        return self._of(self.array + self._other(other))

    __radd__ = __add__

    def __sub__(self, other: Any) -> Block:
        return self._of(self.array - self._other(other))

    def __mul__(self, other: Any) -> Block:
        return self._of(self.array * self._other(other))

    def astype(self, dtype: Any, copy: bool = False) -> Block:
        return self._of(self._framework.cast(self.array, np.dtype(dtype)))

    def ldexp(self, exponent: int) -> Block:
        """Return the block times 2**exponent, in two steps that are numbers of every dtype."""
        half = exponent // 2
        return self * 2.0**half * 2.0 ** (exponent - half)

    def max(self, axis: int) -> Array:
        return self._framework.download(self._framework.extreme(self.array, "max"))

    def min(self, axis: int) -> Array:
        return self._framework.download(self._framework.extreme(self.array, "min"))


class OnDevice:
    """Products with a matrix on a device, its columns centred or not.

    Rows of another dtype are converted in chunks.
    """

    def __init__(self, x: Any, dtype: np.dtype[Any], center: bool) -> None:
        self._framework = framework_for(x)
        self._x = x
        self.shape = (int(x.shape[0]), int(x.shape[1]))
        self.dtype = dtype
        same = self._framework.name_of(x) == dtype.name
        size = self.shape[1] * dtype.itemsize
        self._step = self.shape[0] if same else max(1, _CHUNK_BYTES // size)
        self._means: Any = None
        if center:
            wide = np.dtype(np.float64)
            total = sum(self._framework.cast(rows, wide).sum(0) for _, rows in self._chunks())
            self._means = self._framework.cast(total / self.shape[0], dtype)

    def sketch(self, seed: int, width: int) -> Block:
        """Return the transposed, unscaled Gaussian matrix (columns, width) of a seed."""
        out = self._framework.empty((width, self.shape[1]), self.dtype)
        entries = block("gaussian", seed, slice(width), slice(self.shape[1]), out=out)
        return Block(self._framework, entries.T)

    def _chunks(self) -> Any:
        for first in range(0, self.shape[0], self._step):
            part = slice(first, first + self._step)
            yield part, self._framework.cast(self._x[part], self.dtype)

    def times(self, right: Any) -> Block:
        """Return the product with (columns, width)."""
        right = self.settle(right).array
        product = self._framework.empty((self.shape[0], int(right.shape[1])), self.dtype)
        for part, rows in self._chunks():
            product[part] = rows @ right
        if self._means is not None:
            product -= self._means @ right
        return Block(self._framework, product)

    def transposed_times(self, left: Any) -> Block:
        """Return the transpose's product with (rows, width)."""
        left = self.settle(left).array
        product: Any = sum(rows.T @ left[part] for part, rows in self._chunks())
        if self._means is not None:
            product = product - self._means[:, None] * left.sum(0)[None, :]
        return Block(self._framework, product)

    def settle(self, left: Any) -> Block:
        """Return a block on the device, where it was computed on the host."""
        if isinstance(left, Block):
            return left
        return Block(self._framework, self._framework.upload(np.asarray(left)))
