"""Attention of packed sequences: a loop over them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from slipstick.reference._attention import Array, AttentionStats, attention
from slipstick.scales import LogN, Scale


def attention_varlen(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    cu_seqlens_q: ArrayLike,
    cu_seqlens_k: ArrayLike,
    *,
    scale: Scale | ArrayLike = LogN(),
    n_keys: ArrayLike | None = None,
    return_stats: bool = False,
    **options: Any,
) -> Array | tuple[Array, AttentionStats]:
    """Compute `attention` of each sequence, in float64: tokens first, statistics (heads, tokens).

    query (queries, heads, dim), key (keys, kv_heads, dim), value (keys, kv_heads, dim_v); sequence
    s has the queries from cu_seqlens_q[s] to cu_seqlens_q[s + 1], and its keys likewise. `n_keys`:
    one number, one a sequence, or one a query; of shape (1, queries) it is always one a query.
    `options`: causal, window, softcap.

    >>> q, k, v = np.zeros((2, 1, 4)), np.zeros((5, 1, 4)), np.arange(5.0).reshape(5, 1, 1)
    >>> attention_varlen(q, k, v, [0, 1, 2], [0, 2, 5])[:, 0, 0].tolist()
    [0.5, 3.0]
    """
    query, key, value = np.asarray(query), np.asarray(key), np.asarray(value)
    queries, heads, _ = query.shape
    bounds = (np.asarray(x).tolist() for x in (cu_seqlens_q, cu_seqlens_k))
    ranges = [list(itertools.pairwise(x)) for x in bounds]
    counts = None if n_keys is None else np.asarray(n_keys)
    if counts is not None:
        if counts.shape == (len(ranges[0]),):
            counts = np.repeat(counts, [stop - start for start, stop in ranges[0]])
        counts = np.broadcast_to(counts, (1, queries))[0]
    if not isinstance(scale, Scale):
        scale = np.broadcast_to(np.asarray(scale), (heads, queries))

    out = np.zeros((queries, heads, value.shape[2]))
    stats = np.zeros((3, heads, queries))
    for (start, stop), (first, last) in zip(*ranges, strict=True):
        one = slice(start, stop)
        part, part_stats = attention(
            query[one].swapaxes(0, 1),
            key[first:last].swapaxes(0, 1),
            value[first:last].swapaxes(0, 1),
            scale=scale if isinstance(scale, Scale) else scale[:, one],
            n_keys=None if counts is None else counts[one],
            return_stats=True,
            **options,
        )
        out[one] = part.swapaxes(0, 1)
        stats[:, :, one] = part_stats
    return (out, AttentionStats(*stats)) if return_stats else out
