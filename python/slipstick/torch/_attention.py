"""Entropy-invariant attention on tensors, with gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from slipstick import AttentionStats
from slipstick._attention import _flag, _softcap, _window
from slipstick.scales import LogN, Scale
from slipstick.torch import _attention_ops, _library
from slipstick.torch._scales import DEFAULT, LearnableScale, lowered

__all__ = ["attention"]

_LOGN = LogN()
_OPEN = (int, float, torch.SymInt, torch.SymFloat)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: Scale | LearnableScale | float | Tensor = _LOGN,
    causal: bool = False,
    window: tuple[int | None, int | None] | None = None,
    key_lengths: Tensor | int | None = None,
    mask: Tensor | None = None,
    softcap: float | None = None,
    n_keys: Tensor | int | None = None,
    return_stats: bool = False,
) -> Any:
    """Compute softmax(lambda_i <q_i, k_j>) v_j with gradients for query, key, value and scale.

    The values are those of `slipstick.attention`, bit for bit; n_i, by which lambda_i grows, is the
    number of keys that query row i may attend, counted by the kernel. Tensors are on the CPU or on
    a CUDA device, where nothing waits, the gradients of scales included.

    Parameters
    ----------
    query : Tensor of shape (batch, heads, queries, dim)
        float32, float64, float16 or bfloat16, the same for all three inputs, which autocast casts.
        Inputs may lack the batch axis, or batch and heads; then so does the result.
    key : Tensor of shape (batch, kv_heads, keys, dim)
        heads is a multiple of kv_heads; query head h attends key head h // (heads / kv_heads).
    value : Tensor of shape (batch, kv_heads, keys, dim_v)
    scale : Scale, LogNScale, SSMaxScale, float or Tensor, optional
        The law from n_i to lambda_i, see `slipstick.scales`; one of this package's modules, whose
        parameters get gradients; or lambda itself, a number or a tensor that broadcasts to (batch,
        heads, queries), which gets a gradient. ``scale=dim**-0.5`` is ordinary attention.
    causal : bool, optional
        Query i sees keys up to i + keys - queries: the last query sees all keys.
    window : (left, right), optional
        Query i sees keys from i + keys - queries - left to i + keys - queries + right, both
        included; None or -1 leaves a side open.
    key_lengths : int or integer Tensor of shape (batch,), optional
        The valid keys of each sequence; those behind are neither read nor counted. This and
        `n_keys` may lie on the CPU whatever device the rest is on: their values are checked then.
    mask : Tensor, optional
        Broadcasts to (batch, heads, queries, keys). bool: True where a key may be attended.
        Floating point: added to the scores, after `softcap`; only -inf hides a key. It has no
        gradient, and one that requires it is refused.
    softcap : float, optional
        c > 0: scores become c tanh(score / c).
    n_keys : int or integer Tensor of shape (batch,) or (batch, queries), optional
        What the scale takes for n_i instead of counting.
    return_stats : bool, optional
        Return `slipstick.AttentionStats` too, whose lse and entropy have gradients.

    Returns
    -------
    Tensor of shape (batch, heads, queries, dim_v)
    stats : AttentionStats
        Only with ``return_stats=True``; float32, or float64 for float64.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit.
    NotImplementedError
        When a gradient of a gradient is asked for, or a derivative in forward mode.

    Notes
    -----
    The operators behind it are ``torch.ops.slipstick.attention``, ``attention_with_stats`` (taken
    where a gradient will be needed) and ``attention_backward``. They run under torch.compile,
    torch.export, torch.func and autocast. Where none of these, no gradient and no mode is there to
    see the call, it goes to the kernel at once.

    Source: Su Jianlin, kexue.fm/archives/8823 (2021) and 9034 (2022).

    Examples
    --------
    >>> import torch
    >>> import slipstick.torch
    >>> query, key, value = torch.randn(3, 2, 8, 128, 64)
    >>> query = query.clone().requires_grad_()
    >>> out, stats = slipstick.torch.attention(query, key, value, causal=True, return_stats=True)
    >>> (out.square().mean() - stats.entropy.mean()).backward()
    >>> query.grad.shape
    torch.Size([2, 8, 128, 64])
    """
    if type(causal) is not bool:
        causal = _flag("attention", "causal", causal)
    if type(return_stats) is not bool:
        return_stats = _flag("attention", "return_stats", return_stats)
    # Only what is given: every argument more costs in each layer of the dispatcher.
    options: tuple[Any, ...] = (True,) if causal else ()
    if (
        mask is not None
        or window is not None
        or key_lengths is not None
        or softcap is not None
        or n_keys is not None
    ):
        options = _options(scale, causal, window, key_lengths, mask, softcap, n_keys)
    elif scale is not _LOGN:
        factor, law, numbers, tensor = lowered(scale)
        if tensor is not None:
            options = (causal, factor, law, numbers, tensor)
        elif law == DEFAULT[0] and numbers == DEFAULT[1]:
            options = (causal, factor)
        else:
            options = (causal, factor, law, numbers)
    try:
        if return_stats:
            out, *stats = _with_stats(query, key, value, *options)
            return out, AttentionStats(*stats)
        result = _library.at_once(_attention_ops.kernel, query, key, value, *options)
        return _attention_ops.attention(query, key, value, *options) if result is None else result
    except Exception as error:
        failure = error
    # What the dispatcher says of tensors that it has no kernel for fills a page and names none.
    _attention_ops.check(query, key, value, options)
    raise failure


def _with_stats(*args: Any) -> Any:
    result = _library.at_once(_attention_ops.kernel_with_stats, *args)
    return _attention_ops.attention_with_stats(*args) if result is None else result


def _options(
    scale: Any,
    causal: bool,
    window: Any,
    key_lengths: Any,
    mask: Any,
    softcap: Any,
    n_keys: Any,
) -> tuple[Any, ...]:
    """Return all options as the operator takes them."""
    factor, law, numbers, tensor = lowered(scale)
    left, right = _window("attention", window)
    if isinstance(mask, Tensor) and mask.requires_grad and torch.is_grad_enabled():
        raise ValueError(
            "attention: `mask` must not require a gradient, of which it has none, got one that does"
        )
    cap: Any = softcap
    if torch.compiler.is_compiling() and isinstance(softcap, _OPEN):
        cap = cap * 1.0  # may be left open; the kernel checks the number
    else:
        cap = _softcap("attention", softcap)
    lengths = _integers("key_lengths", key_lengths)
    counts = _integers("n_keys", n_keys)
    return (causal, factor, law, numbers, tensor, mask, left, right, lengths, cap, counts)


def _integers(name: str, value: Any) -> Any:
    """Return a tensor on the CPU for an int or a sequence of ints; tensors pass."""
    if value is None or isinstance(value, Tensor):
        return value
    if isinstance(value, (int, torch.SymInt)) and not isinstance(value, bool):
        number: Any = value
        # Not torch.tensor, which would make a constant of a size that torch.compile leaves open.
        return torch.full((), number, dtype=torch.int64, device="cpu")
    if isinstance(value, (list, tuple)) and all(type(item) is int for item in value):
        return torch.tensor(value, dtype=torch.int64, device="cpu")
    raise TypeError(
        f"attention: `{name}` must be an int, ints or a tensor of integers, got "
        f"{type(value).__name__}"
    )
