"""Gradients of entropy-invariant attention."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from slipstick._arrays import Framework, framework_of
from slipstick._attention import (
    _LOGN,
    AttentionStats,
    _columns,
    _flag,
    _integers,
    _lowered,
    _softcap,
    _window,
)
from slipstick._numbers import is_number
from slipstick.scales import Scale, SSMax, Su

__all__ = ["AttentionGrads", "attention_backward"]

_NAME = "attention_backward"


class AttentionGrads(NamedTuple):
    """What `attention_backward` returns.

    Attributes
    ----------
    query, key, value : array
        Gradients of the inputs, of their shapes and dtype.
    scale : float, array, tuple or None
        ``Su``: that of kappa, a float. ``SSMax``: those of s and b, a pair; each a float, or a
        float64 NumPy array where the parameter has one entry a head. A number or an array as scale:
        that of lambda, added up to the argument's shape; a float, or an array of the argument's
        dtype and framework. Other scales: None. For inputs on a CUDA device each is an array there,
        of shape () instead of a float and in the framework of `query`: to read one would wait.
    """

    query: Any
    key: Any
    value: Any
    scale: Any


def attention_backward(
    grad_out: Any,
    query: Any,
    key: Any,
    value: Any,
    out: Any,
    stats: AttentionStats,
    *,
    grad_lse: Any = None,
    grad_entropy: Any = None,
    scale: Scale | float | Any = _LOGN,
    causal: bool = False,
    window: tuple[int | None, int | None] | None = None,
    key_lengths: Any = None,
    mask: Any = None,
    softcap: float | None = None,
    n_keys: Any = None,
) -> AttentionGrads:
    """Compute the gradients of `slipstick.attention` in its inputs and in its scale.

    Parameters
    ----------
    grad_out : array of shape (batch, heads, queries, dim_v)
        The gradient that arrives at `out`; of the dtype of the inputs.
    query, key, value : array
        What `attention` was given.
    out : array of shape (batch, heads, queries, dim_v)
    stats : AttentionStats
        What ``attention(..., return_stats=True)`` returned; `max_logit` is not looked at. With
        those of all keys (`merge_attention`) and some of the keys, the gradients are those keys'
        own, and their share of those of query and scale.
    grad_lse, grad_entropy : array of shape (batch, heads, queries), optional
        The gradients that arrive at the statistics, of their dtype.
    scale, causal, window, key_lengths, mask, softcap, n_keys : optional
        As `attention` was given them.

    Returns
    -------
    AttentionGrads
        Gradients of query, key and value, in the framework of `query`, and of the scale. Sums are
        float32, or float64 for float64, and rounded once; those of the scale float64 from row to
        row. A key has no gradient from rows that do not see it, nor has a row without a key. A mask
        gets none.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit.

    Notes
    -----
    With p_ij = e^(s_ij - lse_i), x = lambda_i <q_i, k_j> and u = ln p:

        dS_ij = p_ij (<dO_i, v_j> - dH_i u_ij - (<dO_i, o_i> - dL_i + dH_i H_i))
        dR_ij = dS_ij, times 1 - tanh(x_ij / c)^2 under a soft cap c
        dV_j = sum_i p_ij dO_i         dK_j = sum_i dR_ij lambda_i q_i
        dQ_i = lambda_i sum_j dR_ij k_j         dlambda_i = <q_i, sum_j dR_ij k_j>

    Scores are computed again, so memory beyond inputs and results grows linearly with their length.
    Results do not depend on the number of threads, and those of a sequence not on the rest of the
    batch. On a CUDA device too no sum depends on which block comes first; what differs there is
    said of `attention`.

    Examples
    --------
    >>> import numpy as np
    >>> import slipstick
    >>> rng = np.random.default_rng(0)
    >>> query, key, value, grad_out = rng.standard_normal((4, 2, 8, 128, 64), dtype=np.float32)
    >>> options = {"scale": slipstick.scales.SSMax(0.2), "causal": True}
    >>> out, stats = slipstick.attention(query, key, value, return_stats=True, **options)
    >>> grads = slipstick.attention_backward(grad_out, query, key, value, out, stats, **options)
    >>> grads.key.shape
    (2, 8, 128, 64)
    >>> d_s, d_b = grads.scale
    """
    law, values = _lowered(_NAME, scale, query)
    left, right = _window(_NAME, window)
    lse, entropy = _row_statistics(stats)
    framework = framework_of(_NAME, query)
    learns = not isinstance(scale, Scale) or isinstance(scale, (Su, SSMax))
    scale_framework = framework_of(_NAME, values)
    if framework.number is not float:  # on a device, wherever the scale came from
        scale_framework = framework
    *grads, grad_scale = framework.kernels.attention_backward(
        grad_out,
        query,
        key,
        value,
        out,
        lse,
        entropy,
        grad_lse,
        grad_entropy,
        law,
        values,
        _flag(_NAME, "causal", causal),
        left,
        right,
        _integers(_NAME, "key_lengths", key_lengths),
        mask,
        _softcap(_NAME, softcap),
        _integers(_NAME, "n_keys", n_keys),
        learns,
        framework.empty,
        scale_framework.empty,
    )
    d_query, d_key, d_value = map(framework.finish, grads)
    if not isinstance(scale, Scale):
        finish = framework.number if is_number(scale) else scale_framework.finish
        grad_scale = finish(grad_scale)
    elif learns:
        grad_scale = _of_parameters(scale, grad_scale, _columns(_NAME, query), framework)
    return AttentionGrads(d_query, d_key, d_value, grad_scale)


def _row_statistics(stats: Any) -> tuple[Any, Any]:
    try:
        lse, entropy, _ = stats
    except (TypeError, ValueError):
        kind = type(stats).__name__
        raise TypeError(
            f"{_NAME}: `stats` must be the AttentionStats that attention returned, got {kind}"
        ) from None
    return lse, entropy


def _of_parameters(scale: Scale, sums: Any, dim: int, framework: Framework) -> Any:
    """Carry the sums over rows of dlambda ln n and of dlambda, (heads, 2), on to parameters."""
    dim, number = max(dim, 1), framework.number
    if isinstance(scale, Su):
        return number(sums[:, 0].sum()) / dim
    assert isinstance(scale, SSMax)
    parts = ((scale.s, sums[:, 0]), (scale.b, sums[:, 1]))
    return tuple(
        (part if isinstance(given, tuple) else number(part.sum())) / math.sqrt(dim)
        for given, part in parts
    )
