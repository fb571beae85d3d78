"""Approximate nearest neighbours by several tables of locality-sensitive keys."""

from __future__ import annotations

import math
import os
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slipstick import _cpu
from slipstick._numbers import given
from slipstick.lsh import _file
from slipstick.lsh._cross_polytope import as_rows
from slipstick.lsh._keys import KEY_BITS, KINDS, KeyMaker, default_hashes
from slipstick.lsh._segments import Segment, joined, joined_tables, sorted_tables
from slipstick.projection._arguments import integer

__all__ = ["Index"]

Array = NDArray[Any]

METRICS = ("cosine", "euclidean")
_MAX_ROWS = 1 << 32  # of one segment, whose tables hold 32-bit numbers
_HASH_ROWS = 1 << 14  # hashed at once
_QUERY_ROWS = 1 << 12


class Config(NamedTuple):
    """What an index is made with."""

    n_features: int
    kind: str
    n_tables: int
    n_hashes: int
    seed: int
    metric: str


class Index:
    """Near neighbours in angle, found by looking into a few buckets of several tables.

    A vector has one key in each table, made of `n_hashes` hashes; near vectors tend to have the
    same. A query collects what lies under its own keys and, by the multi-probe method of Lv,
    Josephson, Wang, Charikar and Li (2007), under those keys that its near neighbours most probably
    have instead; all candidates are then compared by their exact distance. Vectors are stored as
    float32; the random matrices are not. For an exhaustive search over codes see `hamming_topk`.

    Parameters
    ----------
    n_features : int
        From 1 to 2**30.
    kind : str
        "simhash": bits of `SimHash`. "cross_polytope": vertices of `CrossPolytope`, which tell near
        from far better, and cost three Hadamard transforms each.
    n_tables : int
        More find more and cost memory, 12 bytes a vector and table. At most 1024.
    n_hashes : int, optional
        Of one key: more make smaller buckets. None makes keys of about 16 bits: 16 bits, or as many
        vertices as 16 bits hold. A key has at most 64 bits.
    seed : int
        From 0 to 2**64 - 1.
    metric : str
        What candidates are compared by. "cosine": 1 minus the cosine of the angle, and 1 for a
        vector of zeros. "euclidean": for vectors of about the same length, since the keys know
        directions alone.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit.

    Notes
    -----
    Vectors can be added at any time, to a loaded index too: they wait in segments of their own, of
    which two are joined as soon as the later is half as large as the earlier. Any number of threads
    may query an index while none adds to it. Results do not depend on threads, instruction set, or
    on how the vectors came in.

    Examples
    --------
    >>> import numpy as np
    >>> from slipstick import lsh
    >>> x = np.random.default_rng(0).standard_normal((1000, 50)).astype(np.float32)
    >>> index = lsh.Index(50, n_tables=8, n_hashes=10, seed=7)
    >>> index.add(x)
    range(0, 1000)
    >>> distances, numbers = index.query(x[:3] + 0.1, 2, n_probes=4)
    >>> numbers[:, 0]
    array([0, 1, 2])
    """

    def __init__(
        self,
        n_features: int,
        *,
        kind: str = "simhash",
        n_tables: int = 8,
        n_hashes: int | None = None,
        seed: int = 0,
        metric: str = "cosine",
    ) -> None:
        self._configure(n_features, kind, n_tables, n_hashes, seed, metric)
        self._segments: list[Segment] = []

    def _configure(
        self,
        n_features: int,
        kind: str,
        n_tables: int,
        n_hashes: int | None,
        seed: int,
        metric: str,
    ) -> None:
        n_features = integer("Index", "n_features", n_features, 1, 30)
        _check_choice("kind", kind, tuple(KINDS))
        n_tables = integer("Index", "n_tables", n_tables, 1, 10)
        if n_hashes is None:
            n_hashes = default_hashes(kind, n_features)
        n_hashes = integer("Index", "n_hashes", n_hashes, 1, 6)
        seed = integer("Index", "seed", seed, 0, 64)
        _check_choice("metric", metric, METRICS)
        self._maker: KeyMaker = KINDS[kind](n_features, n_tables, n_hashes, seed)
        if n_hashes * self._maker.width > KEY_BITS:
            raise ValueError(
                f"Index: `n_hashes` must be at most {KEY_BITS // self._maker.width} for kind "
                f"{kind!r} and {n_features} features, got {n_hashes}"
            )
        self._config = Config(n_features, kind, n_tables, n_hashes, seed, metric)

    @property
    def n_features(self) -> int:
        """The number of features of a vector."""
        return self._config.n_features

    def __len__(self) -> int:
        return sum(len(segment.vectors) for segment in self._segments)

    def __repr__(self) -> str:
        arguments = ", ".join(
            f"{name}={value!r}"
            for name, value in self._config._asdict().items()
            if name != "n_features"
        )
        return f"<Index({self.n_features}, {arguments}) of {len(self)} vectors>"

    def add(self, x: Any) -> range:
        """Append vectors.

        Parameters
        ----------
        x : array of shape (n, n_features), or (n_features,) for one vector
            Real numbers, kept as float32.

        Returns
        -------
        range
            Their numbers: they count on from the vectors that are there.

        Raises
        ------
        TypeError, ValueError
            For arrays that do not fit, and for numbers that are not finite as float32. The index is
            as before then.
        """
        vectors = self._vectors("Index.add", x)
        if vectors.ndim > 2:
            raise ValueError(f"Index.add: `x` must have one or two axes, got shape {vectors.shape}")
        vectors = np.array(np.atleast_2d(vectors))  # of our own: the caller may change `x`
        first = len(self)
        if first + len(vectors) > _MAX_ROWS:
            raise ValueError(
                f"Index.add: `x` must have at most {_MAX_ROWS - first} rows, so that there are "
                f"at most 2**32, got {len(vectors)}"
            )
        if len(vectors):
            keys = np.empty((self._config.n_tables, len(vectors)), np.uint64)
            for row in range(0, len(vectors), _HASH_ROWS):
                part = slice(row, row + _HASH_ROWS)
                keys[:, part] = self._maker.keys("Index.add", vectors[part]).T
            rows = np.broadcast_to(np.arange(len(vectors), dtype=np.uint32), keys.shape)
            segments = [*self._segments, Segment(vectors, *sorted_tables(keys, rows))]
            count = 1
            while count < len(segments):
                later = sum(len(segment.vectors) for segment in segments[-count:])
                if len(segments[-count - 1].vectors) > 2 * later:
                    break
                count += 1
            if count > 1:
                segments[-count:] = [joined(segments[-count:])]
            self._segments = segments
        return range(first, first + len(vectors))

    def query(self, x: Any, k: int = 1, *, n_probes: int = 1) -> tuple[Array, Array]:
        """Find near neighbours.

        Parameters
        ----------
        x : array of shape (..., n_features)
            Real numbers, taken as float32.
        k : int
            How many to return, at least 1.
        n_probes : int
            How many buckets of each table to look into, from 1, the query's own, to 2**16. Fewer
            are looked into where there are not as many, or where one hash alone makes the key and
            256 of its values have been tried.

        Returns
        -------
        distances : ndarray of float64, shape (..., k)
        indices : ndarray of int64, shape (..., k)
            The nearest of the candidates, sorted by (distance, index); infinity and -1 where there
            are fewer than k.

        Raises
        ------
        TypeError, ValueError
            For arguments that do not fit, and for numbers that are not finite as float32.
        """
        queries = self._vectors("Index.query", x)
        k = integer("Index.query", "k", k, 1, 32)
        n_probes = self._maker.n_choices(integer("Index.query", "n_probes", n_probes, 1, 16))
        rows = queries.reshape(math.prod(queries.shape[:-1]), self.n_features)
        distances = np.full((len(rows), k), math.inf)
        indices = np.full((len(rows), k), -1, np.int64)
        for row in range(0, len(rows), _QUERY_ROWS):
            part = slice(row, row + _QUERY_ROWS)
            if self._segments:
                distances[part], indices[part] = self._nearest(rows[part], k, n_probes)
        shape = (*queries.shape[:-1], k)
        return distances.reshape(shape), indices.reshape(shape)

    def _nearest(self, rows: Array, k: int, n_probes: int) -> tuple[Array, Array]:
        probes = self._maker.probes("Index.query", rows, n_probes)
        found, first = [], 0
        for segment in self._segments:
            begin = np.empty(probes.shape, np.int64)
            end = np.empty(probes.shape, np.int64)
            for table, keys in enumerate(segment.keys):
                begin[:, table] = np.searchsorted(keys, probes[:, table], "left")
                end[:, table] = np.searchsorted(keys, probes[:, table], "right")
            result = _cpu.rank_candidates(
                segment.vectors,
                segment.rows,
                rows,
                begin,
                end,
                self._config.metric == "euclidean",
                min(k, len(segment.vectors)),
            )
            if result is None:
                raise ValueError(
                    "Index.query: the index must be undamaged, got rows beyond its end"
                )
            distances, indices = result
            found.append((distances, np.where(indices >= 0, indices + first, -1)))
            first += len(segment.vectors)
        distances, indices = (np.concatenate(parts, axis=1) for parts in zip(*found, strict=True))
        if distances.shape[1] < k:
            missing = ((0, 0), (0, k - distances.shape[1]))
            distances = np.pad(distances, missing, constant_values=math.inf)
            indices = np.pad(indices, missing, constant_values=-1)
        if len(found) > 1:
            order = np.lexsort((indices, distances), axis=1)[:, :k]
            distances = np.take_along_axis(distances, order, axis=1)
            indices = np.take_along_axis(indices, order, axis=1)
        return distances, indices

    def _vectors(self, function: str, x: Any) -> Array:
        """Return the array as finite float32 of shape (..., n_features)."""
        rows, shape = as_rows(function, x)
        if shape[-1] != self.n_features:
            raise ValueError(
                f"{function}: `x` must have {self.n_features} features in its last axis, got shape "
                f"{shape}"
            )
        with np.errstate(over="ignore"):
            vectors = np.ascontiguousarray(rows, np.float32)
        unfit = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(unfit):
            raise ValueError(
                f"{function}: `x` must be finite as float32, got row {unfit[0]} that is not"
            )
        return vectors.reshape(shape)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index to a file, whole or not at all; a file that is there is replaced.

        Parameters
        ----------
        path : str or path
            Where. An index that was loaded from there may be saved there.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        n_tables, size = self._config.n_tables, len(self)
        if self._segments:
            keys, rows = joined_tables(self._segments)
        else:
            keys, rows = np.empty((n_tables, 0), np.uint64), np.empty((n_tables, 0), np.uint32)
        vectors = [segment.vectors for segment in self._segments]
        arrays = {
            "vectors": _file.Section("<f4", (size, self.n_features), vectors),
            "keys": _file.Section("<u8", (n_tables, size), [keys]),
            "rows": _file.Section("<u4", (n_tables, size), [rows]),
        }
        _file.write(path, self._config._asdict(), arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, verify: bool = True) -> Index:
        """Return the index of a file, whose arrays are mapped, not read into memory.

        Parameters
        ----------
        path : str or path
            A file that `save` wrote. It must not be changed in place while the index lives; saving
            another index there is no such change.
        verify : bool
            Whether to read the file once and compare its checksums. Without, only the header and
            the lengths are checked, and an index larger than memory opens at once.

        Returns
        -------
        Index
            Adding to it changes the file no more than querying does.

        Raises
        ------
        OSError
            If the file cannot be opened.
        ValueError
            If it is no index, of another version of the format, cut off or damaged.
        """
        config, arrays = _file.read("Index.load", path, verify)
        index = cls.__new__(cls)
        try:
            index._configure(**config)
            n_tables = index._config.n_tables
            size = len(arrays["vectors"])
            expected = {
                "vectors": ("<f4", (size, index.n_features)),
                "keys": ("<u8", (n_tables, size)),
                "rows": ("<u4", (n_tables, size)),
            }
            fits = all(
                arrays[name].dtype == np.dtype(dtype) and arrays[name].shape == shape
                for name, (dtype, shape) in expected.items()
            )
        except (TypeError, ValueError, KeyError):
            fits = False
        if not fits:
            raise ValueError(
                "Index.load: `path` must be an undamaged index file, got "
                f"{given(os.fspath(path))} with a header that describes no index"
            )
        index._segments = [Segment(**arrays)] if size else []
        return index


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if not isinstance(value, str):
        raise TypeError(f"Index: `{name}` must be a str, got {type(value).__name__}")
    if value not in choices:
        expected = " or ".join(repr(choice) for choice in choices)
        raise ValueError(f"Index: `{name}` must be {expected}, got {given(value)}")
