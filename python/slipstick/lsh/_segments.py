"""The sorted tables of an index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Segment(NamedTuple):
    """Vectors that were sorted into the tables together.

    Attributes
    ----------
    vectors : ndarray of float32, shape (n, n_features)
    keys : ndarray of uint64, shape (n_tables, n)
        Each row increasing.
    rows : ndarray of uint32, shape (n_tables, n)
        The number of the vector that has the key; of equal keys, increasing.
    """

    vectors: Array
    keys: Array
    rows: Array


def sorted_tables(keys: Array, rows: Array) -> tuple[Array, Array]:
    """Return both in the order of the keys."""
    # Stable, so that rows stay increasing; runs that are sorted already are only merged.
    order = np.argsort(keys, axis=1, kind="stable")
    return np.take_along_axis(keys, order, axis=1), np.take_along_axis(rows, order, axis=1)


def joined_tables(segments: Sequence[Segment]) -> tuple[Array, Array]:
    """Return the keys and rows of one segment of all vectors."""
    if len(segments) == 1:
        return segments[0].keys, segments[0].rows
    starts = np.cumsum([0] + [len(segment.vectors) for segment in segments], dtype=np.uint32)
    rows = [segment.rows + start for segment, start in zip(segments, starts, strict=False)]
    return sorted_tables(
        np.concatenate([segment.keys for segment in segments], axis=1),
        np.concatenate(rows, axis=1),
    )


def joined(segments: Sequence[Segment]) -> Segment:
    """Return one segment of all vectors."""
    keys, rows = joined_tables(segments)
    return Segment(np.concatenate([segment.vectors for segment in segments]), keys, rows)
