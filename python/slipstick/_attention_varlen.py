"""Entropy-invariant attention of packed sequences."""

from __future__ import annotations

from typing import Any

from slipstick._arrays import framework_of
from slipstick._attention import (
    _LOGN,
    AttentionStats,
    _flag,
    _integers,
    _lowered,
    _softcap,
    _window,
)
from slipstick.scales import Scale

__all__ = ["attention_varlen"]


def attention_varlen(
    query: Any,
    key: Any,
    value: Any,
    cu_seqlens_q: Any,
    cu_seqlens_k: Any,
    *,
    scale: Scale | float | Any = _LOGN,
    causal: bool = False,
    window: tuple[int | None, int | None] | None = None,
    softcap: float | None = None,
    n_keys: Any = None,
    return_stats: bool = False,
    out: Any = None,
) -> Any:
    """Compute `attention` of sequences of different lengths, packed one after another.

    Equal, bit for bit, to a loop over the sequences: each counts its own keys, and causal order and
    windows are aligned at its own last token.

    Parameters
    ----------
    query : array of shape (queries, heads, dim)
        The query tokens of all sequences. float32, float64, float16 or bfloat16, the same for all
        three inputs.
    key : array of shape (keys, kv_heads, dim)
        heads is a multiple of kv_heads; query head h attends key head h // (heads / kv_heads).
    value : array of shape (keys, kv_heads, dim_v)
    cu_seqlens_q, cu_seqlens_k : integer arrays of shape (sequences + 1,)
        Where each sequence begins among the queries and among the keys, and where the last one
        ends: 0 first, never falling, the number of tokens last. A sequence may have no queries or
        no keys.
    scale : Scale, float or array, optional
        The law from n_i to lambda_i, see `slipstick.scales`; or lambda itself, a number or an array
        that broadcasts to (heads, queries).
    causal : bool, optional
        Query i of a sequence sees its keys up to i + keys - queries, with the numbers of that
        sequence: its last query sees all its keys.
    window : (left, right), optional
        Query i of a sequence sees its keys from i + keys - queries - left to i + keys - queries +
        right, both included; None or -1 leaves a side open.
    softcap : float, optional
        c > 0: scores become c tanh(score / c).
    n_keys : int or integer array of shape (sequences,) or (queries,), optional
        What the scale takes for n_i instead of counting: one number a sequence or one a query.
        Where there are as many sequences as queries, one a query has the shape (1, queries).
    return_stats : bool, optional
        Return `AttentionStats` too.
    out : array, optional
        Where to write; of the result's shape and dtype, sharing no memory with an input.

    Returns
    -------
    array of shape (queries, heads, dim_v)
        In the framework of `query`, or `out`; of the inputs' dtype. Sums are float32, or float64
        for float64. A row without a visible key is 0.
    stats : AttentionStats
        Each of shape (heads, queries). Only with ``return_stats=True``.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit; nothing is written then.

    Notes
    -----
    All sequences and heads are computed at once. Memory beyond inputs and result grows linearly
    with tokens. On a CUDA device, see `attention`; `cu_seqlens_q` and `cu_seqlens_k` that lie there
    cannot be refused for their values, and if they do not fit, all rows become NaN (0 where `key`
    has no tokens).

    Examples
    --------
    >>> import numpy as np
    >>> import slipstick
    >>> rng = np.random.default_rng(0)
    >>> query, key, value = rng.standard_normal((3, 100, 8, 64), dtype=np.float32)
    >>> starts = np.array([0, 70, 70, 100])  # 70, 0 and 30 tokens
    >>> out = slipstick.attention_varlen(query, key, value, starts, starts, causal=True)
    >>> last = (x[70:].swapaxes(0, 1) for x in (query, key, value))  # (heads, tokens, dim)
    >>> bool((out[70:].swapaxes(0, 1) == slipstick.attention(*last, causal=True)).all())
    True
    """
    name = "attention_varlen"
    law, values = _lowered(name, scale, query)
    left, right = _window(name, window)
    framework = framework_of(name, query)
    finish = framework_of(name, query, out).finish
    result, *stats = framework.kernels.attention_varlen(
        query,
        key,
        value,
        _bounds("cu_seqlens_q", cu_seqlens_q),
        _bounds("cu_seqlens_k", cu_seqlens_k),
        law,
        values,
        _flag(name, "causal", causal),
        left,
        right,
        _softcap(name, softcap),
        _integers(name, "n_keys", n_keys),
        _flag(name, "return_stats", return_stats),
        out,
        framework.empty,
    )
    if return_stats:
        return finish(result), AttentionStats(*map(framework.finish, stats))
    return finish(result)


def _bounds(argument: str, bounds: Any) -> Any:
    if bounds is None:
        raise TypeError(f"attention_varlen: `{argument}` must be an array of integers, got None")
    return _integers("attention_varlen", argument, bounds)
