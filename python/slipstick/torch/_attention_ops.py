"""The operators of attention: kernels, shapes, gradients and the rules of autocast and vmap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slipstick._arrays import Framework, framework_of
from slipstick._attention import _lower, _lowered, _window
from slipstick.torch import _checks, _library
from slipstick.torch._scales import GIVEN, NUMBERS, scale_from, scale_of

# Arguments by how often they are given: see `_library.define`.
_OPTIONS = (
    "bool causal=False, float? factor=None, str law='LogN', float[] numbers=[512.], "
    "Tensor? scale=None, Tensor? mask=None, int left=-1, int right=-1, Tensor? key_lengths=None, "
    "float softcap=0., Tensor? n_keys=None"
)
_INPUTS = "Tensor query, Tensor key, Tensor value"
# How many arguments stand before the options.
_FORWARD, _BACKWARD = 3, 9
# Places among the options.
_SCALE, _MASK = 4, 5
_TENSORS = {_SCALE: "scale", _MASK: "mask"}
_INTEGERS = {8: "key_lengths", 10: "n_keys"}  # may lie on the CPU, whatever device the rest is on

Four = tuple[Tensor, Tensor, Tensor, Tensor]

_below_autograd = torch._C._AutoDispatchBelowAutograd
_ON_CPU = framework_of("attention", torch.empty(0, device="cpu"))


def _framework(query: Tensor) -> Framework:
    """Return where the kernels of `query` are; on the CPU without the search, a microsecond."""
    return framework_of("attention", query) if query.is_cuda else _ON_CPU


# Kernels see no tensor that requires a gradient while gradients are on, which slipstick's functions
# refuse: the autograd rules run them without gradients, or where none is required. They run past
# `slipstick.attention`, whose checks the operators' types have made.


def _forward(
    with_stats: bool,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    causal: bool = False,
    factor: float | None = None,
    law: str = "LogN",
    numbers: Sequence[float] = NUMBERS,
    scale: Tensor | None = None,
    mask: Tensor | None = None,
    left: int = -1,
    right: int = -1,
    key_lengths: Tensor | None = None,
    softcap: float = 0.0,
    n_keys: Tensor | None = None,
) -> Four:
    if left < -1 or right < -1:
        _window("attention", (left, right))
    framework = _framework(query)
    result: Four = framework.kernels.attention(
        query,
        key,
        value,
        *_lambda(query, factor, law, numbers, scale),
        causal,
        left,
        right,
        key_lengths,
        mask,
        softcap,
        n_keys,
        with_stats,
        None,
        framework.empty,
    )
    return result


def _lambda(
    query: Tensor,
    factor: float | None,
    law: str,
    numbers: Sequence[float],
    scale: Tensor | None,
) -> tuple[str, Any]:
    """Return the law and its numbers, as the kernels take them."""
    if factor is not None:
        return "given", np.asarray(factor)
    if scale is None:
        return _lambda_of(law, tuple(numbers), _columns(query))
    if scale.device != query.device:
        _checks.tensors("attention", ("query", "scale"), query, scale, cuda=True)
    if scale.is_cuda and law != GIVEN:  # left there: to look at its numbers would wait
        return "affine_log", scale.to(torch.float64) / math.sqrt(_columns(query))
    return _lowered("attention", scale_from(law, scale), query)


@lru_cache(maxsize=256)
def _lambda_of(law: str, numbers: tuple[float, ...], dim: int) -> tuple[str, Any]:
    return _lower(scale_of(law, numbers), dim)


def _columns(query: Tensor) -> int:
    shape = query.shape
    return max(shape[-1], 1) if shape else 1


def kernel(*args: Any) -> Any:
    """Run the operator `attention` where its tensors are."""
    return _forward(False, *args)[0]


def kernel_with_stats(*args: Any) -> Four:
    """Run the operator `attention_with_stats` where its tensors are."""
    return _forward(True, *args)


def _attention_backward(
    grad_out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    entropy: Tensor,
    grad_lse: Tensor | None,
    grad_entropy: Tensor | None,
    causal: bool = False,
    factor: float | None = None,
    law: str = "LogN",
    numbers: Sequence[float] = NUMBERS,
    scale: Tensor | None = None,
    mask: Tensor | None = None,
    left: int = -1,
    right: int = -1,
    key_lengths: Tensor | None = None,
    softcap: float = 0.0,
    n_keys: Tensor | None = None,
) -> Four:
    if left < -1 or right < -1:
        _window("attention_backward", (left, right))
    framework = _framework(query)
    *grads, learned = framework.kernels.attention_backward(
        grad_out,
        query,
        key,
        value,
        out,
        lse,
        entropy,
        grad_lse,
        grad_entropy,
        *_lambda(query, factor, law, numbers, scale),
        causal,
        left,
        right,
        key_lengths,
        mask,
        softcap,
        n_keys,
        scale is not None,
        framework.empty,
        framework.empty,
    )
    if scale is None:
        learned = lse.new_empty(0)
    elif law != GIVEN:  # sums over rows of dlambda ln n and of dlambda, (heads, 2)
        sums = learned if len(scale) > 1 else learned.sum(0, keepdim=True)
        learned = (sums / math.sqrt(_columns(query))).to(scale.dtype)
    grad_query, grad_key, grad_value = grads
    return grad_query, grad_key, grad_value, learned


def check(query: Any, key: Any, value: Any, options: tuple[Any, ...]) -> None:
    """Refuse what is no tensor with a kernel, by its name."""
    given = {"query": query, "key": key, "value": value}
    for place, name in (_TENSORS | _INTEGERS).items():
        option = options[place] if place < len(options) else None
        on_cpu = isinstance(option, Tensor) and option.device.type == "cpu"
        if option is not None and not (on_cpu and place in _INTEGERS):
            given[name] = option
    _checks.tensors("attention", tuple(given), *given.values(), cuda=True)


def _fake_out(query: Tensor, key: Tensor, value: Tensor, *options: Any) -> Tensor:
    check(query, key, value, options)  # a tensor of the meta device brings others here with it
    if not 2 <= query.ndim <= 4 or key.ndim != query.ndim or value.ndim != query.ndim:
        shapes = ", ".join(str(tuple(x.shape)) for x in (query, key, value))
        raise ValueError(
            "attention: `query`, `key` and `value` must have the same number of axes, from 2 to 4, "
            f"got shapes {shapes}"
        )
    return query.new_empty((*query.shape[:-1], value.shape[-1]))


def _fake_with_stats(query: Tensor, key: Tensor, value: Tensor, *options: Any) -> Four:
    out = _fake_out(query, key, value)
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    lse, entropy, max_logit = (query.new_empty(query.shape[:-1], dtype=dtype) for _ in range(3))
    return out, lse, entropy, max_logit


def _fake_backward(grad_out: Tensor, query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> Four:
    options = rest[_BACKWARD - 4 :]
    scale = options[_SCALE] if len(options) > _SCALE else None
    learned = rest[1].new_empty(0) if scale is None else scale.new_empty(scale.shape)
    empty = (x.new_empty(x.shape) for x in (query, key, value))
    return next(empty), next(empty), next(empty), learned


attention = _library.define(
    "attention",
    f"({_INPUTS}, {_OPTIONS}) -> Tensor",
    kernel=kernel,
    fake=_fake_out,
)
attention_with_stats = _library.define(
    "attention_with_stats",
    f"({_INPUTS}, {_OPTIONS}) -> (Tensor, Tensor, Tensor, Tensor)",
    kernel=kernel_with_stats,
    fake=_fake_with_stats,
)
attention_backward = _library.define(
    "attention_backward",
    f"(Tensor grad_out, {_INPUTS}, Tensor out, Tensor lse, Tensor entropy, "
    f"Tensor? grad_lse, Tensor? grad_entropy, {_OPTIONS}) -> (Tensor, Tensor, Tensor, Tensor)",
    kernel=_attention_backward,
    fake=_fake_backward,
)


def _setup(ctx: Any, args: tuple[Any, ...], output: Four) -> None:
    query, key, value, *options = args
    out, lse, entropy, max_logit = output
    tensors = [option if isinstance(option, Tensor) else None for option in options]
    ctx.save_for_backward(query, key, value, out, lse, entropy, *tensors)
    ctx.options = [None if isinstance(option, Tensor) else option for option in options]
    ctx.mark_non_differentiable(max_logit)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_out: Any, grad_lse: Any, grad_entropy: Any, _: Any) -> Any:
    query, key, value, out, lse, entropy, *tensors = ctx.saved_tensors
    options = [
        option if tensor is None else tensor
        for option, tensor in zip(ctx.options, tensors, strict=True)
    ]
    of_options: list[Any] = [None] * len(options)
    if grad_out is None and grad_lse is None and grad_entropy is None:
        return None, None, None, *of_options
    rows = (query, key, value, out, lse, entropy)
    grad_out = torch.zeros_like(out) if grad_out is None else grad_out
    *grads, learned = attention_backward(grad_out, *rows, grad_lse, grad_entropy, *options)
    if len(options) > _SCALE and options[_SCALE] is not None:
        of_options[_SCALE] = learned
    return *grads, *of_options


_library.autograd("attention_with_stats", _setup, _backward, kernel=kernel_with_stats)
_library.without_gradient("attention_backward", _attention_backward)


def _attention_autograd(*args: Any) -> Any:
    """Take the operator that keeps the statistics where there is a derivative to come."""
    result = _library.at_once(kernel, *args)
    if result is not None:
        return result
    if _library.has_derivative(*args):
        return attention_with_stats(*args)[0]
    with _below_autograd():
        return attention(*args)


_library.LIBRARY.impl("attention", _attention_autograd, "Autograd")
_library.autocast("attention", _FORWARD)
_library.autocast("attention_with_stats", _FORWARD)


def _vmap(op: Any, leading: int) -> Any:
    """Return the rule of vmap: its axis joins the batch axis, where nothing but rows has one.

    `leading` arguments have rows, or are None. Results of a sequence do not depend on the rest of
    the batch, so joining changes no bit. Options with an axis of their own are left to a loop.
    """
    loop = _library.one_by_one(op)

    def rule(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> Any:
        if not _spans_the_batch(args[leading:], in_dims[leading:]):
            return loop(info, in_dims, *args)
        rank = args[1].ndim - (in_dims[1] is not None)  # of what is a key or a query everywhere
        size = info.batch_size
        rows = [
            None if x is None else _join(_library.first(x, dim, size), rank)
            for x, dim in zip(args[:leading], in_dims[:leading], strict=True)
        ]
        results = op(*rows, *args[leading:])
        if isinstance(results, Tensor):
            return _split(results, rank, size), 0
        joined = op is attention_with_stats
        *parts, last = results
        split = tuple(_split(part, rank, size) for part in parts)
        if joined:
            return (*split, _split(last, rank, size)), (0, 0, 0, 0)
        return (*split, last), (0, 0, 0, None)

    return rule


def _spans_the_batch(options: tuple[Any, ...], in_dims: tuple[int | None, ...]) -> bool:
    """Tell whether the options mean the same for any number of sequences."""
    if any(isinstance(dim, int) for dim in in_dims):  # lists of numbers have lists of None
        return False
    for place, option in enumerate(options):
        if isinstance(option, Tensor):
            # A mask of at most three axes has none for the batch; the gradient of a scale would be
            # added up over all of it.
            if place != _MASK and option.ndim:
                return False
            if place == _SCALE or (place == _MASK and option.ndim > 3):
                return False
    return True


def _join(x: Tensor, rank: int) -> Tensor:
    if rank == 4:
        return x.flatten(0, 1)
    return x.unsqueeze(1) if rank == 2 else x


def _split(x: Tensor, rank: int, size: int) -> Tensor:
    if rank == 4:
        # Not -1, which an empty tensor leaves open.
        split: Tensor = x.unflatten(0, (size, x.shape[0] // size if size else 0))
        return split
    return x.squeeze(1) if rank == 2 else x


_library.vmap("attention", _vmap(attention, _FORWARD))
_library.vmap("attention_with_stats", _vmap(attention_with_stats, _FORWARD))
_library.vmap("attention_backward", _vmap(attention_backward, _BACKWARD))
