"""Attention from the full score matrix: Su Jianlin, kexue.fm, 2021-12-21 and 2022-04-11."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slipstick.scales import LogN, Scale

Array = NDArray[Any]


class AttentionStats(NamedTuple):
    """Per query row: log-sum-exp (natural), entropy (nats) and maximum of the final scores."""

    lse: Array
    entropy: Array
    max_logit: Array


def attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    scale: Scale | ArrayLike = LogN(),
    causal: bool = False,
    window: tuple[int | None, int | None] | None = None,
    key_lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    softcap: float | None = None,
    n_keys: ArrayLike | None = None,
    return_stats: bool = False,
) -> Array | tuple[Array, AttentionStats]:
    """Compute softmax(lambda_i q_i K^T) V from the full score matrix, in float64.

    query (batch, heads, queries, dim), key (batch, kv_heads, keys, dim), value (batch, kv_heads,
    keys, dim_v); 2-D and 3-D inputs lack leading axes, and so does the result. Query head h reads
    key head h // (heads / kv_heads). `causal` and `window` are aligned bottom-right: query i stands
    at key i + keys - queries. A row that sees no key gives 0, lse -inf, entropy 0, max_logit -inf.
    A key adds nothing to a row that does not see it, not even where its value is NaN.

    >>> q, k, v = np.zeros((3, 4)), np.zeros((5, 4)), np.arange(5.0)[:, np.newaxis]
    >>> out, stats = attention(q, k, v, return_stats=True)
    >>> np.allclose(out, 2.0), np.allclose(stats.entropy, np.log(5))
    (True, True)
    """
    query, key, value = np.asarray(query), np.asarray(key), np.asarray(value)
    missing = tuple(range(4 - query.ndim))
    wide = query.dtype == np.float64
    q, k, v = (np.expand_dims(x, missing).astype(np.float64) for x in (query, key, value))
    batch, heads, queries, dim = q.shape
    group = heads // k.shape[1]

    extra = np.zeros(()) if mask is None else np.asarray(mask)
    if extra.dtype == np.bool_:
        extra = np.where(extra, 0.0, -np.inf)
    extra = extra.astype(np.float64)
    seen = _positions_seen(batch, queries, k.shape[2], causal, window, key_lengths)
    visible = np.broadcast_to(seen & (extra != -np.inf), (batch, heads, queries, k.shape[2]))
    extra = np.broadcast_to(extra, visible.shape)

    counts = visible.sum(axis=-1)
    if n_keys is not None:
        given = np.asarray(n_keys)
        if given.ndim == 1:  # (batch,), or (queries,) where the batch axis is lacking
            given = given[:, np.newaxis] if query.ndim == 4 else given[np.newaxis, :]
        if given.ndim == 2:
            given = given[:, np.newaxis, :]
        counts = np.broadcast_to(given, counts.shape)
    factor = np.broadcast_to(_lambda(scale, counts, dim, wide), counts.shape)

    out = np.zeros((batch, heads, queries, v.shape[-1]))
    stats = np.zeros((3, batch, heads, queries))
    for at in np.ndindex(batch, heads):
        shared = (at[0], at[1] // group)
        with np.errstate(invalid="ignore", over="ignore"):  # inf and NaN propagate
            scores = factor[at][:, np.newaxis] * (q[at] @ k[shared].T)
            if softcap is not None:
                scores = softcap * np.tanh(scores / softcap)
            scores = np.where(visible[at], scores + extra[at], -np.inf)
            empty = np.logical_not(visible[at].any(axis=-1))
            weights, *row_stats = _softmax_rows(scores, empty)
            out[at] = _weighted_sum(weights, v[shared], visible[at])
        stats[(slice(None), *at)] = row_stats
    out, stats = np.squeeze(out, missing), np.squeeze(stats, tuple(i + 1 for i in missing))
    return (out, AttentionStats(*stats)) if return_stats else out


def softmax(scores: ArrayLike, *, scale: Scale | ArrayLike = LogN(), axis: int = -1) -> Array:
    """Compute the entropy-invariant softmax of given scores along `axis`, in float64.

    n is the number of entries that are not -inf, and lambda has no factor of a dimension. A row
    without such an entry gives zeros.

    >>> softmax([[0.0, 0.0, -np.inf, 0.0]]).round(4).tolist()
    [[0.3333, 0.3333, 0.0, 0.3333]]
    """
    given = np.asarray(scores)
    rows = np.moveaxis(given.astype(np.float64), axis, -1)
    visible = rows != -np.inf
    factor = _lambda(scale, visible.sum(axis=-1), None, given.dtype == np.float64)
    with np.errstate(invalid="ignore", over="ignore"):  # inf and NaN propagate
        scaled = np.where(visible, factor[..., np.newaxis] * rows, -np.inf)
        weights, *_ = _softmax_rows(scaled, np.logical_not(visible.any(axis=-1)))
    return np.moveaxis(weights, -1, axis)


def _positions_seen(
    batch: int,
    queries: int,
    keys: int,
    causal: bool,
    window: tuple[int | None, int | None] | None,
    key_lengths: ArrayLike | None,
) -> Array:
    """Tell which keys a query sees by position and length: bool (batch, 1, queries, keys)."""
    at = np.arange(queries)[:, np.newaxis] + keys - queries
    j = np.arange(keys)
    seen = np.ones((batch, 1, queries, keys), dtype=bool)
    left, right = window if window is not None else (None, None)
    if causal:
        seen &= j <= at
    if left is not None and left != -1:
        seen &= j >= at - left
    if right is not None and right != -1:
        seen &= j <= at + right
    if key_lengths is not None:
        lengths = np.broadcast_to(np.asarray(key_lengths), (batch,))
        seen &= j < lengths[:, np.newaxis, np.newaxis, np.newaxis]
    return seen


def _lambda(scale: Scale | ArrayLike, counts: Array, dim: int | None, wide: bool) -> Array:
    """Return lambda of every row: in float64, rounded once to float32 unless the input is wide."""
    if isinstance(scale, Scale):
        factor = scale.factor(counts, dim=dim)
    else:
        factor = np.asarray(scale).astype(np.float64)
    return factor if wide else factor.astype(np.float32).astype(np.float64)


def _softmax_rows(scores: Array, empty: Array) -> tuple[Array, Array, Array, Array]:
    """Softmax along the last axis with log-sum-exp, entropy and maximum of every row.

    `empty` marks the rows without a visible key: weights 0, lse -inf, entropy 0.
    """
    top = scores.max(axis=-1, initial=-np.inf)
    t = scores - np.where(empty, 0.0, top)[..., np.newaxis]
    weights = np.exp(t)
    total = np.where(empty, 1.0, weights.sum(axis=-1))
    weights = weights / total[..., np.newaxis]
    # H = -sum p ln p with ln p = t - ln(total), where 0 ln 0 = 0.
    logs = np.where(weights == 0, 0.0, t - np.log(total)[..., np.newaxis])
    entropy = np.where(empty, 0.0, -(weights * logs).sum(axis=-1))
    return weights, np.where(empty, -np.inf, top + np.log(total)), entropy, top


def _weighted_sum(weights: Array, value: Array, visible: Array) -> Array:
    """sum_j weights_ij value_j over the keys j that row i sees."""
    finite = np.isfinite(value).all(axis=-1)
    out: Array = weights[:, finite] @ value[finite]
    for j in np.flatnonzero(~finite):  # 0 * NaN is NaN, so a hidden key is left out by selection
        out += np.where(visible[:, j, np.newaxis], weights[:, j, np.newaxis] * value[j], 0.0)
    return out
