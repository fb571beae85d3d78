"""Hashing to the nearest vertex of a rotated cross-polytope."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slipstick import _cpu
from slipstick._arrays import to_numpy
from slipstick.projection import hadamard
from slipstick.projection._arguments import integer

__all__ = ["CrossPolytope"]

Array = NDArray[Any]

TAG = 0x58504C00
ROUNDS = 3
_BLOCK = 1 << 18  # numbers that are rotated at once: 1 MiB of float32


class CrossPolytope:
    """Hashes whose values are vertices: the coordinate of largest magnitude after a rotation.

    Hash h rotates a vector, padded with zeros to the next power of two m, by ``H D2 H D1 H D0``
    with H the orthonormal Walsh-Hadamard transform and D0, D1, D2 diagonals of random signs: of
    feature j, bit ``j & 127`` (1 for -1) of Philox4x32-10 at the key `seed` and the counter
    ``(3 h + round, low(j >> 7), high(j >> 7), 0x58504C00)``. Unit vectors at the distance tau have
    the same value with the probability ``m ** -(tau**2 / (4 - tau**2))``, up to a factor
    polynomial in ln m: for large m the best exponent that there is (Andoni, Indyk, Laarhoven,
    Razenshteyn and Schmidt 2015).

    Parameters
    ----------
    n_hashes : int
        From 1 to 2**30. More append and change none.
    seed : int
        From 0 to 2**64 - 1.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from slipstick import lsh
    >>> hasher = lsh.CrossPolytope(4, seed=7)
    >>> x = np.cos(np.arange(24.0).reshape(2, 12))
    >>> values = hasher.hash(x)
    >>> values.shape
    (2, 4)
    >>> bool(np.all(hasher.hash(-x) == values ^ 1))  # the opposite vertex
    True
    """

    def __init__(self, n_hashes: int, seed: int = 0) -> None:
        self._n_hashes = integer("CrossPolytope", "n_hashes", n_hashes, 1, 30)
        self._seed = integer("CrossPolytope", "seed", seed, 0, 64)
        self._signs: dict[int, Array] = {}

    @property
    def n_hashes(self) -> int:
        """The number of hashes."""
        return self._n_hashes

    @property
    def seed(self) -> int:
        """The seed of the signs."""
        return self._seed

    def hash(self, x: Any) -> NDArray[np.int32]:
        """Return the vertices nearest to vectors.

        Parameters
        ----------
        x : array of shape (..., n_features)
            Real numbers; at most 2**30 features. Rotated in float32, float64 and integers in
            float64.

        Returns
        -------
        ndarray of int32, shape (..., n_hashes)
            ``2 i`` for the vertex ``+e_i``, ``2 i + 1`` for ``-e_i``; of equals the least. The same
            for every thread count, instruction set and batch.

        Raises
        ------
        TypeError, ValueError
            For arrays that do not fit, and for a row with a NaN or an infinity.
        """
        rows, shape = as_rows("CrossPolytope.hash", x)
        values = np.empty((len(rows), self._n_hashes), np.int32)
        for part, hashes, rotated in self.rotations("CrossPolytope.hash", rows):
            values[part, hashes] = nearest(rotated)
        return values.reshape(*shape[:-1], self._n_hashes)

    def rotations(self, function: str, rows: Array) -> Iterator[tuple[slice, slice, Array]]:
        """Yield (rows, hashes, rotated vectors (rows, hashes, m)) until all have come."""
        width = padded(rows.shape[1])
        signs = self._diagonals(width)
        hashes_at_once = max(1, min(self._n_hashes, _BLOCK // width))
        rows_at_once = max(1, _BLOCK // (width * hashes_at_once))
        for row in range(0, len(rows), rows_at_once):
            part = slice(row, min(row + rows_at_once, len(rows)))
            x = np.zeros((part.stop - row, 1, width), rows.dtype)
            x[:, 0, : rows.shape[1]] = rows[part]
            unfit = np.flatnonzero(~np.isfinite(x).all(axis=(1, 2)))
            if len(unfit):
                raise ValueError(
                    f"{function}: `x` must be finite, got row {row + unfit[0]} that is not"
                )
            # To a largest coordinate below 1, by a power of two: nothing overflows, and neither the
            # nearest vertices nor the order of the others change.
            x = np.ldexp(x, -np.frexp(np.abs(x).max(axis=2, keepdims=True))[1])
            for first in range(0, self._n_hashes, hashes_at_once):
                hashes = slice(first, min(first + hashes_at_once, self._n_hashes))
                rotated = np.multiply(x, signs[hashes, 0], dtype=rows.dtype)
                hadamard(rotated, out=rotated)
                for diagonal in range(1, ROUNDS):
                    rotated *= signs[hashes, diagonal]
                    hadamard(rotated, out=rotated)
                yield part, hashes, rotated

    def _diagonals(self, width: int) -> Array:
        """Return the signs (n_hashes, rounds, width), float32; kept, they are made once a width."""
        if width not in self._signs:
            words = [
                _cpu.philox4x32(number, group & 0xFFFFFFFF, group >> 32, TAG, self._seed)
                for number in range(ROUNDS * self._n_hashes)
                for group in range(-(-width // 128))
            ]
            bits = np.unpackbits(np.array(words, "<u4").view(np.uint8), bitorder="little")
            bits = bits.reshape(self._n_hashes, ROUNDS, -1)[..., :width]
            self._signs[width] = 1 - 2 * bits.astype(np.float32)
        return self._signs[width]

    def __getstate__(self) -> tuple[int, int]:
        return self._n_hashes, self._seed

    def __setstate__(self, state: tuple[int, int]) -> None:
        self._n_hashes, self._seed = state
        self._signs = {}

    def __repr__(self) -> str:
        return f"CrossPolytope(n_hashes={self._n_hashes}, seed={self._seed})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CrossPolytope):
            return NotImplemented
        return (self._n_hashes, self._seed) == (other._n_hashes, other._seed)

    def __hash__(self) -> int:
        return hash((CrossPolytope, self._n_hashes, self._seed))


def padded(n_features: int) -> int:
    """Return the least power of two that is not below `n_features`."""
    return 1 << max(0, n_features - 1).bit_length()


def as_rows(function: str, x: Any) -> tuple[Array, tuple[int, ...]]:
    """Return the vectors of an array as rows of float32 or float64, and the array's shape."""
    array = to_numpy(function, "x", x)
    if array.dtype.name == "bfloat16" or array.dtype == np.float16:
        array = array.astype(np.float32)
    elif array.dtype.kind in "biu":
        array = array.astype(np.float64)
    if array.dtype not in (np.float32, np.float64):
        raise TypeError(f"{function}: `x` must have a real numeric dtype, got {array.dtype}")
    if array.ndim == 0 or not 1 <= array.shape[-1] <= 1 << 30:
        raise ValueError(
            f"{function}: `x` must have from 1 to 2**30 features in its last axis, got shape "
            f"{array.shape}"
        )
    return array.reshape(math.prod(array.shape[:-1]), array.shape[-1]), array.shape


def nearest(rotated: Array) -> Array:
    """Return the vertex nearest to each vector in the last axis."""
    index = np.abs(rotated).argmax(axis=-1)
    value = np.take_along_axis(rotated, index[..., np.newaxis], axis=-1)[..., 0]
    return np.asarray(2 * index + (value < 0))


def vertices_in_order(rotated: Array, count: int) -> tuple[Array, Array]:
    """Return the `count` nearest vertices (..., count), and how much shorter they reach, squared.

    The first is that of `nearest`; the penalty is ``(largest - coordinate)**2`` in float64.
    """
    first = nearest(rotated)[..., np.newaxis]
    reach = np.stack([rotated, -rotated], axis=-1).reshape(*rotated.shape[:-1], -1)
    reach = reach.astype(np.float64)
    largest = np.take_along_axis(reach, first, axis=-1)
    np.put_along_axis(reach, first, math.inf, axis=-1)
    vertex = np.argpartition(-reach, count - 1, axis=-1)[..., :count]
    reached = np.take_along_axis(reach, vertex, axis=-1)
    order = np.lexsort((vertex, -reached), axis=-1)
    vertex = np.take_along_axis(vertex, order, axis=-1)
    with np.errstate(invalid="ignore"):
        penalty = (largest - np.take_along_axis(reached, order, axis=-1)) ** 2
    penalty[np.isnan(penalty)] = math.inf  # infinite coordinates, beyond the float range
    penalty[..., 0] = 0
    return vertex, penalty
