"""Keys of the lookup tables: several hashes packed into 64 bits, and the keys worth a look next."""

from __future__ import annotations

import abc
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slipstick import _cpu
from slipstick.lsh._cross_polytope import CrossPolytope, nearest, padded, vertices_in_order
from slipstick.lsh._simhash import SimHash
from slipstick.projection import project

Array = NDArray[Any]
Keys = NDArray[np.uint64]

KEY_BITS = 64
_ALTERNATIVES = 256  # of one hash, as many as the kernel tells apart
_PROBE_BYTES = 1 << 24  # of choices at once


class KeyMaker(abc.ABC):
    """Makes the keys of all tables; table t takes hashes t * n_hashes and those that follow.

    Parameters
    ----------
    n_tables, n_hashes : int
        The number of tables, and of hashes in a key.
    width : int
        The bits of one hash in a key: hash i stands at bit ``i * width``.
    alternatives : int
        The number of values of a hash.
    """

    def __init__(self, n_tables: int, n_hashes: int, width: int, alternatives: int) -> None:
        self.n_tables, self.n_hashes, self.width = n_tables, n_hashes, width
        self.alternatives = alternatives

    @abc.abstractmethod
    def keys(self, function: str, rows: Array) -> Keys:
        """Return the keys (rows, tables)."""

    @abc.abstractmethod
    def _choices(self, rows: Array, count: int) -> tuple[Array, Array]:
        """Return the `count` first values of each hash, and their penalties.

        Both (rows, tables, hashes, count), the penalties float64, increasing from 0.
        """

    def n_choices(self, n_probes: int) -> int:
        """Return how many keys of a table there are to look at, at most `n_probes`."""
        count = self._count(n_probes)
        return min(n_probes, int(count**self.n_hashes))

    def _count(self, n_probes: int) -> int:
        return min(self.alternatives, max(n_probes, 2), _ALTERNATIVES)

    def probes(self, function: str, rows: Array, n_probes: int) -> Keys:
        """Return the keys (rows, tables, probes), by increasing sum of penalties."""
        if n_probes == 1:
            return self.keys(function, rows)[..., np.newaxis]
        result = np.empty((len(rows), self.n_tables, n_probes), np.uint64)
        step = max(1, _PROBE_BYTES // (self.n_tables * self.n_hashes * n_probes * 9))
        for row in range(0, len(rows), step):
            part = slice(row, row + step)
            values, penalties = self._choices(rows[part], self._count(n_probes))
            flat = penalties.reshape(-1, *penalties.shape[2:])
            ranks = _cpu.probe_ranks(flat, n_probes).reshape(
                *penalties.shape[:2], n_probes, self.n_hashes
            )
            chosen = np.take_along_axis(values, ranks.swapaxes(2, 3), axis=3)
            result[part] = self._pack(chosen.swapaxes(2, 3))
        return result

    def _pack(self, values: Array) -> Keys:
        """Return the keys (...) of values (..., hashes)."""
        shifts = np.arange(self.n_hashes, dtype=np.uint64) * np.uint64(self.width)
        return np.asarray(np.bitwise_or.reduce(values.astype(np.uint64) << shifts, axis=-1))


class SimHashKeys(KeyMaker):
    """Bits of `SimHash`; a bit is given up at the price of its squared margin."""

    def __init__(self, n_features: int, n_tables: int, n_hashes: int, seed: int) -> None:
        super().__init__(n_tables, n_hashes, 1, 2)
        self._hasher = SimHash(n_tables * n_hashes, seed)

    def keys(self, function: str, rows: Array) -> Keys:
        return self._pack(self._bits(rows))

    def _bits(self, rows: Array) -> Array:
        codes = self._hasher.hash(rows)
        bits = np.unpackbits(codes, axis=-1, count=self._hasher.n_bits, bitorder="little")
        return bits.reshape(len(rows), self.n_tables, self.n_hashes)

    def _choices(self, rows: Array, count: int) -> tuple[Array, Array]:
        bits = self._bits(rows)
        margins = project(rows, self._hasher.n_bits, kind="gaussian", seed=self._hasher.seed)
        penalties = np.zeros((*bits.shape, 2))
        penalties[..., 1] = np.square(margins, dtype=np.float64).reshape(bits.shape)
        return np.stack([bits, 1 - bits], axis=-1), penalties


class CrossPolytopeKeys(KeyMaker):
    """Vertices of `CrossPolytope`; another vertex costs the squared difference of their reach."""

    def __init__(self, n_features: int, n_tables: int, n_hashes: int, seed: int) -> None:
        vertices = 2 * padded(n_features)
        super().__init__(n_tables, n_hashes, vertices.bit_length() - 1, vertices)
        self._hasher = CrossPolytope(n_tables * n_hashes, seed)

    def keys(self, function: str, rows: Array) -> Keys:
        values = np.empty((len(rows), self._hasher.n_hashes), np.int64)
        for part, hashes, rotated in self._hasher.rotations(function, rows):
            values[part, hashes] = nearest(rotated)
        return self._pack(values.reshape(len(rows), self.n_tables, self.n_hashes))

    def _choices(self, rows: Array, count: int) -> tuple[Array, Array]:
        shape = (len(rows), self._hasher.n_hashes, count)
        values, penalties = np.empty(shape, np.int64), np.empty(shape)
        for part, hashes, rotated in self._hasher.rotations("Index.query", rows):
            values[part, hashes], penalties[part, hashes] = vertices_in_order(rotated, count)
        split = (len(rows), self.n_tables, self.n_hashes, count)
        return values.reshape(split), penalties.reshape(split)


KINDS: dict[str, type[SimHashKeys] | type[CrossPolytopeKeys]] = {
    "simhash": SimHashKeys,
    "cross_polytope": CrossPolytopeKeys,
}


def default_hashes(kind: str, n_features: int) -> int:
    """Return the number of hashes that make keys of about 16 bits."""
    return 16 if kind == "simhash" else max(1, round(16 / (math.log2(padded(n_features)) + 1)))
