"""Attention from the full score matrix: Su Jianlin, kexue.fm, 2021-12-21 and 2022-04-11."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slipstick.scales import LogN, Scale, SSMax, Su

Array = NDArray[Any]


class AttentionStats(NamedTuple):
    """Per query row: log-sum-exp (natural), entropy (nats) and maximum of the final scores."""

    lse: Array
    entropy: Array
    max_logit: Array


class AttentionGrads(NamedTuple):
    """Gradients of the inputs and of what the scale is made of."""

    query: Array
    key: Array
    value: Array
    scale: Any


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
    call = _lay_out(query, key, value, scale, causal, window, key_lengths, mask, n_keys)
    q, v, visible = call.query, call.value, call.visible
    out = np.zeros((*q.shape[:3], v.shape[-1]))
    stats = np.zeros((3, *q.shape[:3]))
    for at in np.ndindex(q.shape[:2]):
        shared = call.shared(at)
        with np.errstate(invalid="ignore", over="ignore"):  # inf and NaN propagate
            scores, _, _ = call.scores(at, softcap)
            empty = np.logical_not(visible[at].any(axis=-1))
            weights, *row_stats = _softmax_rows(scores, empty)
            out[at] = _weighted_sum(weights, v[shared], visible[at])
        stats[(slice(None), *at)] = row_stats
    missing = call.missing
    out, stats = np.squeeze(out, missing), np.squeeze(stats, tuple(i + 1 for i in missing))
    return (out, AttentionStats(*stats)) if return_stats else out


def attention_backward(
    grad_out: ArrayLike,
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    out: ArrayLike,
    stats: AttentionStats,
    *,
    grad_lse: ArrayLike | None = None,
    grad_entropy: ArrayLike | None = None,
    scale: Scale | ArrayLike = LogN(),
    causal: bool = False,
    window: tuple[int | None, int | None] | None = None,
    key_lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    softcap: float | None = None,
    n_keys: ArrayLike | None = None,
) -> AttentionGrads:
    """Differentiate `attention` in its inputs and its scale, in float64.

    `grad_out`, `grad_lse` and `grad_entropy` arrive at what `attention` returned: `out` and
    `stats`. The scale's gradient is dkappa for Su, (ds, db) for SSMax, that of lambda summed to the
    argument's shape for a number or an array, and None for other scales. A hidden key takes and
    gives no gradient, whatever its numbers are.

    >>> q, k, v = np.zeros((1, 1)), np.zeros((2, 1)), np.array([[1.0], [3.0]])
    >>> out, stats = attention(q, k, v, return_stats=True)
    >>> attention_backward(np.ones((1, 1)), q, k, v, out, stats).value.tolist()
    [[0.5], [0.5]]
    """
    call = _lay_out(query, key, value, scale, causal, window, key_lengths, mask, n_keys)
    q, k, v, visible = call.query, call.key, call.value, call.visible
    rows = q.shape[:3]
    d_out, o, lse, entropy = (
        np.expand_dims(np.asarray(x), call.missing).astype(np.float64)
        for x in (grad_out, out, stats.lse, stats.entropy)
    )
    d_lse, d_entropy = (
        np.zeros(rows) if x is None else np.asarray(x).astype(np.float64).reshape(rows)
        for x in (grad_lse, grad_entropy)
    )
    d_query, d_key, d_value = np.zeros(q.shape), np.zeros(k.shape), np.zeros(v.shape)
    d_factor = np.zeros(rows)
    for at in np.ndindex(q.shape[:2]):
        shared, seen, factor = call.shared(at), visible[at], call.factor[at][:, np.newaxis]
        seen = seen & (lse[at] != -np.inf)[:, np.newaxis]
        with np.errstate(invalid="ignore", over="ignore"):
            scores, products, slope = call.scores(at, softcap)
            log_weights = np.where(seen, scores - lse[at][:, np.newaxis], -np.inf)
            weights = np.exp(log_weights)
            constant = (d_out[at] * o[at]).sum(axis=-1) - d_lse[at] + d_entropy[at] * entropy[at]
            inner = d_out[at] @ v[shared].T - constant[:, np.newaxis]
            inner -= np.where(weights > 0, d_entropy[at][:, np.newaxis] * log_weights, 0.0)
            d_products = np.where(seen, weights * inner * slope, 0.0)
            d_value[shared] += _weighted_sum(weights.T, d_out[at], seen.T)
            turned = _weighted_sum(d_products, k[shared], seen)  # Qt
            d_query[at] = np.where(seen.any(axis=-1)[:, np.newaxis], factor * turned, 0.0)
            d_key[shared] += _weighted_sum(d_products.T, factor * q[at], seen.T)
            d_factor[at] = np.where(seen, d_products * products, 0.0).sum(axis=-1)
    return AttentionGrads(
        query=np.squeeze(d_query, call.missing),
        key=np.squeeze(d_key, call.missing),
        value=np.squeeze(d_value, call.missing),
        scale=_scale_gradient(scale, d_factor, call.counts, q.shape[-1]),
    )


def _scale_gradient(scale: Scale | ArrayLike, d_factor: Array, counts: Array, dim: int) -> Any:
    """Carry the gradient of lambda, (batch, heads, queries), on to what the scale is made of."""
    logs = d_factor * np.log(np.maximum(counts, 1))
    dim = max(dim, 1)
    if isinstance(scale, Su):
        return logs.sum() / dim
    if isinstance(scale, SSMax):
        pairs = ((scale.s, logs), (scale.b, d_factor))
        sums = ((given, x.sum(axis=(0, 2)) / np.sqrt(dim)) for given, x in pairs)
        return tuple(x if isinstance(given, tuple) else x.sum() for given, x in sums)
    if isinstance(scale, Scale):
        return None
    shape = np.shape(scale)
    longer = (1,) * (d_factor.ndim - len(shape)) + shape
    axes = tuple(axis for axis, size in enumerate(longer) if size == 1)
    return d_factor.sum(axis=axes, keepdims=True).reshape(shape)


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


class _Call(NamedTuple):
    """The arrays of a call with all four axes, and what each row sees."""

    query: Array
    key: Array
    value: Array
    visible: Array  # (batch, heads, queries, keys)
    bias: Array
    counts: Array  # n of every row: (batch, heads, queries)
    factor: Array  # lambda
    missing: tuple[int, ...]  # the axes that the caller's arrays lack

    def shared(self, at: tuple[int, ...]) -> tuple[int, int]:
        """Return batch and key head of a query head."""
        return at[0], at[1] // (self.query.shape[1] // self.key.shape[1])

    def scores(self, at: tuple[int, ...], softcap: float | None) -> tuple[Array, Array, Array]:
        """Return the scores s of a head, its products r, and ds / d(lambda r)."""
        products = self.query[at] @ self.key[self.shared(at)].T
        scores = self.factor[at][:, np.newaxis] * products
        slope = np.ones(scores.shape)
        if softcap is not None:
            slope = 1 - np.tanh(scores / softcap) ** 2
            scores = softcap * np.tanh(scores / softcap)
        return np.where(self.visible[at], scores + self.bias[at], -np.inf), products, slope


def _lay_out(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    scale: Scale | ArrayLike,
    causal: bool,
    window: tuple[int | None, int | None] | None,
    key_lengths: ArrayLike | None,
    mask: ArrayLike | None,
    n_keys: ArrayLike | None,
) -> _Call:
    query, key, value = np.asarray(query), np.asarray(key), np.asarray(value)
    missing = tuple(range(4 - query.ndim))
    wide = query.dtype == np.float64
    q, k, v = (np.expand_dims(x, missing).astype(np.float64) for x in (query, key, value))
    batch, heads, queries, dim = q.shape

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
    return _Call(q, k, v, visible, extra, counts, factor, missing)


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
