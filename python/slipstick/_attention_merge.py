"""Attention over disjoint sets of keys, put together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from slipstick._arrays import framework_of
from slipstick._attention import AttentionStats

__all__ = ["merge_attention"]


def merge_attention(
    parts: Iterable[tuple[Any, AttentionStats]],
) -> tuple[Any, AttentionStats]:
    """Merge what `attention` gave for the same queries and disjoint sets of keys.

    The result is that of one call with all keys, provided every part used the same factor lambda_i:
    with a scale of `slipstick.scales`, give each call the number of keys of the whole as `n_keys`.

    Parameters
    ----------
    parts : iterable of (out, AttentionStats)
        At least one; what ``attention(..., return_stats=True)`` returns. Each out of shape
        (batch, heads, queries, dim_v), or without leading axes, all of one dtype; its statistics of
        the same shape without the last axis, float32, or float64 where out is float64. A part, or a
        row of it, may have seen no key. The tokens of `attention_varlen` come first in its result
        and last in its statistics: swap the first two axes of out, and again those of the result.

    Returns
    -------
    out : array of the shape and dtype of each part's
        In the framework of the first part. Sums are float32, or float64 for float64, over the parts
        in the order given, and rounded once; parts of 16 bits have been rounded before.
    stats : AttentionStats
        Of the whole: log-sum-exp, entropy and largest logit.

    Raises
    ------
    TypeError, ValueError
        For parts that do not fit.

    Notes
    -----
    With the shares w_p = e^(lse_p - lse), out is the sum of w_p out_p, and the entropy that of
    w_p (entropy_p - ln w_p). Bits depend on the order of the parts, not on threads.

    Examples
    --------
    >>> import numpy as np
    >>> import slipstick
    >>> rng = np.random.default_rng(0)
    >>> query, key, value = rng.standard_normal((3, 2, 8, 512, 64), dtype=np.float32)
    >>> parts = [
    ...     slipstick.attention(query, k, v, n_keys=512, return_stats=True)
    ...     for k, v in zip(np.split(key, 4, axis=2), np.split(value, 4, axis=2))
    ... ]
    >>> out, stats = slipstick.merge_attention(parts)
    >>> whole, whole_stats = slipstick.attention(query, key, value, return_stats=True)
    >>> bool(np.allclose(out, whole, atol=1e-6))
    True
    >>> bool(np.allclose(stats.entropy, whole_stats.entropy, atol=1e-5))
    True
    """
    arrays = [_arrays_of(number, part) for number, part in enumerate(_listed(parts))]
    framework = framework_of("merge_attention", arrays[0][0] if arrays else None)
    merged = framework.kernels.merge_attention(arrays, framework.empty)
    result, *stats = map(framework.finish, merged)
    return result, AttentionStats(*stats)


def _listed(parts: Any) -> list[Any]:
    if not isinstance(parts, Iterable) or hasattr(parts, "__dlpack__"):
        name = type(parts).__name__
        raise TypeError(
            "merge_attention: `parts` must be an iterable of pairs (out, AttentionStats), "
            f"got {name}"
        )
    return list(parts)


def _arrays_of(number: int, part: Any) -> tuple[Any, Any, Any, Any]:
    """Return out and the three statistics of a part."""
    expected = f"merge_attention: `parts[{number}]` must be a pair (out, AttentionStats)"
    if not isinstance(part, (tuple, list)):
        raise TypeError(f"{expected}, got {type(part).__name__}")
    if len(part) != 2:
        raise ValueError(f"{expected}, got {len(part)} entries")
    out, stats = part
    if not isinstance(stats, AttentionStats):
        raise TypeError(f"{expected}, got {type(stats).__name__} for the statistics")
    return out, *stats
