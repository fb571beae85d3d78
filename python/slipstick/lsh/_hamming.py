"""Distances of packed codes."""

from __future__ import annotations

from typing import Any

from slipstick._arrays import framework_of
from slipstick.projection._arguments import integer

__all__ = ["hamming_distance", "hamming_topk"]


def hamming_distance(a: Any, b: Any) -> Any:
    """Count the bits in which packed codes differ.

    Parameters
    ----------
    a, b : array of shape (..., n_bytes), uint8
        Codes, of any strides; their leading axes broadcast. All bits count: those past the last one
        in use must be equal, and are 0 in the codes of `SimHash`.

    Returns
    -------
    array of shape (...), int32
        In the framework of `a`, on its device.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from slipstick import lsh
    >>> codes = np.array([[0b0000], [0b0001], [0b0111]], np.uint8)
    >>> lsh.hamming_distance(codes[:, np.newaxis], codes)
    array([[0, 1, 3],
           [1, 0, 2],
           [3, 2, 0]], dtype=int32)
    """
    framework = framework_of("hamming_distance", a)
    return framework.finish(framework.kernels.hamming_distance(a, b, framework.empty))


def hamming_topk(queries: Any, codes: Any, k: int) -> tuple[Any, Any]:
    """Find the k nearest of packed codes to each query, exactly.

    Parameters
    ----------
    queries : array of shape (..., n_bytes), uint8
        From 1 to 2**20 bytes.
    codes : array of shape (n, n_bytes), uint8
        Of any strides, read in place; a memory map too.
    k : int
        From 1 to n; below 2**32 on a CUDA device.

    Returns
    -------
    distances : array of shape (..., k), int32
    indices : array of shape (..., k), int64
        Rows of `codes`. Both in the framework of `queries`, on its device, sorted by (distance,
        index): of codes equally far the first come first.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit.

    Notes
    -----
    All codes are compared with all queries. Memory beyond the results: up to 64 MiB of candidates a
    thread, or 16 k bytes where one query has more; 8 bytes a result, times the number of ranges
    into which the codes are split where there are fewer queries than threads can share. On a CUDA
    device a histogram of the distances gives the k-th one, and a second look collects the codes up
    to it.

    Examples
    --------
    >>> import numpy as np
    >>> from slipstick import lsh
    >>> codes = np.array([[0b0000], [0b0001], [0b0111], [0b1000]], np.uint8)
    >>> distances, indices = lsh.hamming_topk(codes[:2], codes, 3)
    >>> distances
    array([[0, 1, 1],
           [0, 1, 2]], dtype=int32)
    >>> indices
    array([[0, 1, 3],
           [1, 0, 2]])
    """
    # The kernel knows how many codes there are, and refuses a k beyond.
    k = integer("hamming_topk", "k", k, 1, 40)
    framework = framework_of("hamming_topk", queries)
    distances, indices = framework.kernels.hamming_topk(queries, codes, k, framework.empty)
    return framework.finish(distances), framework.finish(indices)
