"""A matrix seen through its products with tall blocks: dense or sparse, its columns centred or not.

With the means mu of the columns, ``(A - 1 mu^T) P = A P - 1 (mu^T P)`` and
``(A - 1 mu^T)^T Q = A^T Q - mu (1^T Q)``: centring needs no copy of A.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slipstick.projection._products import multiply
from slipstick.projection._sparse_input import is_sparse

Array = NDArray[Any]

CHUNK_BYTES = 1 << 24  # of rows that are converted at once


class OfArray(ABC):
    """Products with an array in memory or mapped from a file, or with a sparse one."""

    def __init__(self, array: Any, dtype: np.dtype[Any], center: bool) -> None:
        self.shape = (int(array.shape[0]), int(array.shape[1]))
        self.dtype = dtype
        self._array = array
        self.means = self._column_means() if center else None

    def times(self, right: Array) -> Array:
        """Return the product with (columns, width)."""
        product = self._times(right)
        if self.means is not None:
            product -= self.means @ right
        return product

    def transposed_times(self, left: Array) -> Array:
        """Return the transpose's product with (rows, width)."""
        product = self._transposed_times(left)
        if self.means is not None:
            product -= np.outer(self.means, left.sum(axis=0))
        return product

    def settle(self, left: Array) -> Array:
        """Return what is computed already."""
        return left

    @abstractmethod
    def _column_means(self) -> Array:
        """Return the mean of each column."""

    @abstractmethod
    def _times(self, right: Array) -> Array:
        """Return the product, not centred."""

    @abstractmethod
    def _transposed_times(self, left: Array) -> Array:
        """Return the transpose's product, not centred."""


class Sparse(OfArray):
    """SciPy's products, by its CSR and CSC loops."""

    def __init__(self, array: Any, dtype: np.dtype[Any], center: bool) -> None:
        if array.format == "coo":
            array = array.tocsr()
        super().__init__(array.astype(dtype, copy=False), dtype, center)

    def _column_means(self) -> Array:
        ones = np.ones(self.shape[0])
        return np.asarray((ones @ self._array) / self.shape[0]).astype(self.dtype)

    def _times(self, right: Array) -> Array:
        return np.asarray(self._array @ right)

    def _transposed_times(self, left: Array) -> Array:
        return np.asarray(self._array.T @ left)


class Dense(OfArray):
    """Products that read rows in place; those to be converted or straightened go in chunks."""

    def __init__(self, array: Array, dtype: np.dtype[Any], center: bool) -> None:
        strides = array.strides
        item = array.itemsize
        # What the kernels read in place: one axis contiguous, the other with a longer stride.
        straight = (strides[1] == item and strides[0] >= item * array.shape[1]) or (
            strides[0] == item and strides[1] >= item * array.shape[0]
        )
        self._whole = straight and array.dtype == dtype and array.flags.aligned
        size = dtype.itemsize * array.shape[1]
        self._step = array.shape[0] if self._whole else max(1, CHUNK_BYTES // size)
        super().__init__(array, dtype, center)

    def _chunks(self) -> Any:
        for first in range(0, self.shape[0], self._step):
            part = slice(first, first + self._step)
            rows = np.asarray(self._array[part])
            yield part, rows if self._whole else np.require(rows, self.dtype, ["C", "A"])

    def _column_means(self) -> Array:
        total = sum(rows.sum(axis=0, dtype=np.float64) for _, rows in self._chunks())
        return np.asarray(total / self.shape[0]).astype(self.dtype)

    def _times(self, right: Array) -> Array:
        product = np.empty((self.shape[0], right.shape[1]), self.dtype)
        for part, rows in self._chunks():
            multiply(rows, right, product[part])
        return product

    def _transposed_times(self, left: Array) -> Array:
        product = np.empty((self.shape[1], left.shape[1]), self.dtype)
        more = np.empty_like(product) if self._step < self.shape[0] else product
        for part, rows in self._chunks():
            if part.start == 0:
                multiply(rows.T, left[part], product)
            else:
                multiply(rows.T, left[part], more)
                product += more
        return product


def of_array(array: Any, dtype: np.dtype[Any], center: bool) -> OfArray:
    """Return the products of an array of NumPy, or of a sparse one of SciPy."""
    if is_sparse(array):
        return Sparse(array, dtype, center)
    return Dense(np.asarray(array), dtype, center)
