"""Attention over disjoint sets of keys, put together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from slipstick.reference._attention import Array, AttentionStats


def merge_attention(
    parts: Sequence[tuple[Array, AttentionStats]],
) -> tuple[Array, AttentionStats]:
    """Attention over all keys from (out, stats) of each set of keys, in float64.

    The parts of a row share its keys' weight as w_p = e^(lse_p - lse), so out = sum w_p out_p, and
    the entropy is sum w_p H_p - w_p ln w_p with 0 ln 0 = 0. A row that sees no key in any part
    gives 0, lse -inf, entropy 0, max_logit -inf.

    >>> some = AttentionStats(*map(np.float64, ([np.log(3.0)], [0.0], [np.log(3.0)])))
    >>> none = AttentionStats(*map(np.float64, ([-np.inf], [0.0], [-np.inf])))
    >>> out, stats = merge_attention(
    ...     [(np.ones((1, 2)), some), (np.zeros((1, 2)), none), (np.zeros((1, 2)), some)]
    ... )
    >>> out.tolist(), np.allclose(stats.lse, np.log(6)), np.allclose(stats.entropy, np.log(2))
    ([[0.5, 0.5]], True, True)
    """
    lse, entropy, max_logit = (
        np.stack([np.asarray(stats[i], dtype=np.float64) for _, stats in parts]) for i in range(3)
    )
    outs = np.stack([np.asarray(out, dtype=np.float64) for out, _ in parts])
    used = lse != -np.inf
    top = lse.max(axis=0)
    empty = top == -np.inf
    weights = np.exp(lse - np.where(empty, 0.0, top))
    total = np.where(empty, 1.0, weights.sum(axis=0))
    weights = weights / total
    logs: NDArray[np.float64] = np.log(weights, out=np.zeros_like(weights), where=weights != 0)
    rows = np.where(used[..., np.newaxis], weights[..., np.newaxis] * outs, 0.0)
    return rows.sum(axis=0), AttentionStats(
        np.where(empty, -np.inf, top + np.log(total)),
        np.where(used, weights * (entropy - logs), 0.0).sum(axis=0),
        max_logit.max(axis=0),
    )
