"""Entropy-invariant attention and softmax."""

from __future__ import annotations

import math
import operator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from slipstick import _cpu
from slipstick._arrays import framework_of
from slipstick._numbers import given, is_number, to_float
from slipstick.scales import LogN, Scale

__all__ = ["AttentionStats", "attention", "softmax"]

_LOGN = LogN()
_FURTHEST = 2**62  # further than any window reaches


class AttentionStats(NamedTuple):
    """What `attention` tells about each query row; float32, or float64 for float64 inputs.

    Attributes
    ----------
    lse : array of shape (batch, heads, queries)
        Natural logarithm of the sum of the exponentials of the row's scores; -inf for a row without
        a visible key.
    entropy : array of shape (batch, heads, queries)
        Entropy of the row's weights, in nats; 0 for a row without a visible key.
    max_logit : array of shape (batch, heads, queries)
        The largest score of the row; -inf for a row without a visible key.
    """

    lse: Any
    entropy: Any
    max_logit: Any


def attention(
    query: Any,
    key: Any,
    value: Any,
    *,
    scale: Scale | float | Any = _LOGN,
    causal: bool = False,
    window: tuple[int | None, int | None] | None = None,
    key_lengths: Any = None,
    mask: Any = None,
    softcap: float | None = None,
    n_keys: Any = None,
    return_stats: bool = False,
    out: Any = None,
) -> Any:
    """Compute softmax(lambda_i <q_i, k_j>) v_j, where lambda_i grows with the logarithm of n_i.

    n_i is the number of keys that query row i may attend: those that `causal`, `window`,
    `key_lengths` and `mask` together leave. It is counted inside, so a row has the same factor in
    prefill, in decoding and in a padded batch.

    Parameters
    ----------
    query : array of shape (batch, heads, queries, dim)
        float32, float64, float16 or bfloat16, the same for all three inputs. Inputs may lack the
        batch axis, or batch and heads; then so does the result.
    key : array of shape (batch, kv_heads, keys, dim)
        heads is a multiple of kv_heads; query head h attends key head h // (heads / kv_heads).
    value : array of shape (batch, kv_heads, keys, dim_v)
    scale : Scale, float or array, optional
        The law from n_i to lambda_i, see `slipstick.scales`; or lambda itself, a number or an array
        that broadcasts to (batch, heads, queries). ``scale=1 / math.sqrt(dim)`` is ordinary
        attention.
    causal : bool, optional
        Query i sees keys up to i + keys - queries: the last query sees all keys.
    window : (left, right), optional
        Query i sees keys from i + keys - queries - left to i + keys - queries + right, both
        included; None or -1 leaves a side open.
    key_lengths : int or integer array of shape (batch,), optional
        The valid keys of each sequence; those behind are neither read nor counted.
    mask : array, optional
        Broadcasts to (batch, heads, queries, keys). bool: True where a key may be attended.
        Floating point: added to the scores, after `softcap`; only -inf hides a key.
    softcap : float, optional
        c > 0: scores become c tanh(score / c).
    n_keys : int or integer array of shape (batch,) or (batch, queries), optional
        What the scale takes for n_i instead of counting. Visibility stays what it is. Inputs
        without a batch axis take an int or shape (queries,).
    return_stats : bool, optional
        Return `AttentionStats` too.
    out : array, optional
        Where to write; of the result's shape and dtype, sharing no memory with an input.

    Returns
    -------
    array of shape (batch, heads, queries, dim_v)
        In the framework of `query`, or `out`; of the inputs' dtype. Sums are float32, or float64
        for float64. A row without a visible key is 0.
    stats : AttentionStats
        Only with ``return_stats=True``.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit, a view at an address that is no multiple of its element size
        among them; nothing is written then.

    Notes
    -----
    Memory beyond inputs and result grows linearly with keys. Results do not depend on the number of
    threads, and those of a sequence not on the rest of the batch. NaN and infinities in a key or
    value reach only the rows that see it; an infinite or NaN lambda propagates.

    Arrays on a CUDA device (torch, cupy) may have up to 256 columns. `mask` and `scale`, where that
    is an array of more than a number, lie there too; `key_lengths` and `n_keys` there or on the
    host. Nothing waits for the device, so calls can be captured into graphs, and nothing that lies
    there can be refused for its values: rows whose number of keys is negative, or whose length is
    beyond the keys, become NaN, but those that see no key stay 0. Bits are the same from call to
    call, whatever the batch and the device's size; they differ from the CPU's, and from one kind of
    device to another.

    Source: Su Jianlin, kexue.fm/archives/8823 (2021) and 9034 (2022).

    Examples
    --------
    >>> import numpy as np
    >>> import slipstick
    >>> rng = np.random.default_rng(0)
    >>> query, key, value = rng.standard_normal((3, 2, 8, 512, 64), dtype=np.float32)
    >>> out, stats = slipstick.attention(query, key, value, causal=True, return_stats=True)
    >>> out.shape, stats.entropy.shape
    ((2, 8, 512, 64), (2, 8, 512))
    >>> bool((stats.entropy[..., 0] == 0).all())  # the first row sees one key
    True
    """
    law, values = _lowered("attention", scale, query)
    left, right = _window("attention", window)
    framework = framework_of("attention", query)
    finish = framework_of("attention", query, out).finish
    result, *stats = framework.kernels.attention(
        query,
        key,
        value,
        law,
        values,
        _flag("attention", "causal", causal),
        left,
        right,
        _integers("attention", "key_lengths", key_lengths),
        mask,
        _softcap("attention", softcap),
        _integers("attention", "n_keys", n_keys),
        _flag("attention", "return_stats", return_stats),
        out,
        framework.empty,
    )
    if return_stats:
        return finish(result), AttentionStats(*map(framework.finish, stats))
    return finish(result)


def softmax(
    scores: Any, *, scale: Scale | float | Any = _LOGN, axis: int = -1, out: Any = None
) -> Any:
    """Compute softmax(lambda * scores) along an axis, lambda growing with the logarithm of n.

    n is the number of scores of a row that are not -inf: those are hidden, get the weight 0 and are
    not counted.

    Parameters
    ----------
    scores : array
        float32, float64, float16 or bfloat16, of any shape but ().
    scale : Scale, float or array, optional
        The law from n to lambda, see `slipstick.scales`, here without its factor of the head
        dimension: ``LogN(base)`` is ln n / ln base. Or lambda itself, a number or an array that
        broadcasts to the shape of `scores` without `axis`. A scale with one parameter a head takes
        the second-last of those axes for the heads.
    axis : int, optional
        Along which the weights add up to 1.
    out : array, optional
        Where to write; of the shape and dtype of `scores`. It may be `scores` itself.

    Returns
    -------
    array
        In the framework of `scores`, or `out`; of the dtype of `scores`. A row that is -inf
        throughout becomes 0.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit; nothing is written then.

    Notes
    -----
    Source: Su Jianlin, kexue.fm/archives/9034 (2022), which derives the factor ln n for any softmax
    whose entropy is to stay put when n changes.

    Examples
    --------
    >>> import numpy as np
    >>> import slipstick
    >>> slipstick.softmax(np.float32([0, 0, -np.inf, 0, 0]))
    array([0.25, 0.25, 0.  , 0.25, 0.25], dtype=float32)
    """
    law, values = _lowered("softmax", scale, None)
    framework = framework_of("softmax", scores, out)
    if isinstance(axis, bool):
        raise TypeError("softmax: `axis` must be an int, got bool")
    try:
        axis = operator.index(axis)
    except TypeError:
        name = type(axis).__name__
        raise TypeError(f"softmax: `axis` must be an int, got {name}") from None
    if abs(axis) > _FURTHEST:
        raise ValueError(f"softmax: `axis` must be one of the axes of `scores`, got {given(axis)}")
    result = framework.kernels.softmax(scores, law, values, axis, out, framework.empty)
    return framework.finish(result)


@lru_cache(maxsize=256)
def _lower(scale: Scale, dim: int | None) -> tuple[str, Any]:
    law, parameters = scale._lower(dim)
    return law, np.ascontiguousarray(parameters)


def _lowered(function: str, scale: Any, query: Any) -> tuple[str, Any]:
    """Return the law of `scale` and its numbers; `query` knows the head dimension, if any."""
    if isinstance(scale, Scale):
        if query is None:
            return _lower(scale, None)
        return _lower(scale, _columns(function, query))
    if is_number(scale) and not isinstance(scale, np.inexact):
        return "given", np.asarray(to_float(scale))
    if isinstance(scale, (type(None), bool, str, bytes, list, tuple, dict, type)):
        shown = given(scale) if isinstance(scale, (bool, str)) else type(scale).__name__
        if isinstance(scale, type):
            shown = f"the class {scale.__name__}"
        raise TypeError(
            f"{function}: `scale` must be an object of slipstick.scales, a number or an array, "
            f"got {shown}"
        )
    return "given", scale


def _columns(function: str, query: Any) -> int:
    """Return the head dimension; 1 for 0 columns, whose scores are 0 whatever lambda is."""
    shape = getattr(query, "shape", None)
    if not isinstance(shape, tuple):  # of an array that offers DLPack alone
        shape = _cpu.shape(function, "query", query)
    return max([1, *map(int, shape[-1:])])


def _flag(function: str, name: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{function}: `{name}` must be True or False, got {given(value)}")
    return bool(value)


def _window(function: str, window: Any) -> tuple[int, int]:
    if window is None:
        return -1, -1
    expected = f"{function}: `window` must be None or (left, right), each None or an int >= -1"
    if not isinstance(window, (tuple, list)):
        raise TypeError(f"{expected}, got {given(window)}")
    if len(window) != 2:
        raise ValueError(f"{expected}, got {given(window)}")
    sides = []
    for side in window:
        if isinstance(side, bool):
            raise TypeError(f"{expected}, got {given(window)}")
        try:
            number = -1 if side is None else operator.index(side)
        except TypeError:
            raise TypeError(f"{expected}, got {given(window)}") from None
        if number < -1:
            raise ValueError(f"{expected}, got {given(window)}")
        sides.append(min(number, _FURTHEST))
    return sides[0], sides[1]


def _softcap(function: str, softcap: Any) -> float:
    """Return the cap as a float; 0 for none."""
    if softcap is None:
        return 0.0
    expected = f"{function}: `softcap` must be None or a finite number above 0"
    if not is_number(softcap):
        raise TypeError(f"{expected}, got {given(softcap)}")
    number = to_float(softcap)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{expected}, got {given(softcap)}")
    return number


def _integers(function: str, name: str, value: Any) -> Any:
    """Return an array of integers for an int or a sequence of ints; arrays pass."""
    if value is None or hasattr(value, "__dlpack__"):
        return value
    array: Any = None
    if isinstance(value, (int, np.integer, list, tuple)) and not isinstance(value, bool):
        try:
            array = np.asarray(value)
        except (ValueError, OverflowError):  # a ragged list
            array = None
        if array is not None and array.size == 0:
            array = array.astype(np.int64)
    if array is None or array.dtype.kind not in "iu":
        raise TypeError(
            f"{function}: `{name}` must be an integer or an array of integers, of at most 64 bits, "
            f"got {given(value)}"
        )
    return array
