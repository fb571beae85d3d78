"""The operators of attention: kernels, shapes, gradients and the rules of autocast and vmap."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

import slipstick
from slipstick._arrays import framework_of
from slipstick._attention import _kernel, _lower, _lowered, _window
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
_LAW, _SCALE, _MASK = 2, 4, 5
_TENSORS = {_SCALE: "scale", _MASK: "mask", 8: "key_lengths", 10: "n_keys"}

Four = tuple[Tensor, Tensor, Tensor, Tensor]

_below_autograd = torch._C._AutoDispatchBelowAutograd
_empty = framework_of("attention", torch.empty(0, device="cpu")).empty


def _given(
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
) -> dict[str, Any]:
    """Return the operator's options as the options of `slipstick.attention`."""
    return {
        "scale": scale_from(factor, law, numbers, scale),
        "causal": causal,
        "mask": mask,
        "window": None if left == right == -1 else (left, right),
        "key_lengths": key_lengths,
        "softcap": softcap or None,
        "n_keys": n_keys,
    }


# Kernels see no tensor that requires a gradient while gradients are on, which slipstick's functions
# refuse: the autograd rules run them without gradients, or where none is required.


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
    """Run the kernel, past `slipstick.attention`, whose checks the operator's types have made."""
    if left < -1 or right < -1:
        _window("attention", (left, right))
    if factor is not None:
        kind, values = "given", np.asarray(factor)
    elif scale is None:
        shape = query.shape
        kind, values = _lambda_of(law, tuple(numbers), shape[-1] if shape else 1)
    else:
        kind, values = _lowered("attention", scale_from(None, law, numbers, scale), query)
    result: Four = _kernel(
        query,
        key,
        value,
        kind,
        values,
        causal,
        left,
        right,
        key_lengths,
        mask,
        softcap,
        n_keys,
        with_stats,
        None,
        _empty,
    )
    return result


@lru_cache(maxsize=256)
def _lambda_of(law: str, numbers: tuple[float, ...], dim: int) -> tuple[str, Any]:
    return _lower(scale_of(law, numbers), max(dim, 1))


def kernel(*args: Any) -> Any:
    """Run the operator `attention` on the CPU."""
    return _forward(False, *args)[0]


def kernel_with_stats(*args: Any) -> Four:
    """Run the operator `attention_with_stats` on the CPU."""
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
    *options: Any,
) -> Four:
    grads = slipstick.attention_backward(
        grad_out,
        query,
        key,
        value,
        out,
        slipstick.AttentionStats(lse, entropy, None),
        grad_lse=grad_lse,
        grad_entropy=grad_entropy,
        **_given(*options),
    )
    scale = options[_SCALE] if len(options) > _SCALE else None
    if scale is None:
        learned = lse.new_empty(0)
    elif options[_LAW] == GIVEN:
        learned = grads.scale
    else:
        parts = [
            torch.as_tensor(part, dtype=torch.float64, device=scale.device) for part in grads.scale
        ]
        learned = torch.stack(parts, -1).reshape(scale.shape).to(scale.dtype)
    return grads.query, grads.key, grads.value, learned


def check(query: Any, key: Any, value: Any, options: tuple[Any, ...]) -> None:
    """Refuse what is no tensor with a kernel, by its name."""
    given = {"query": query, "key": key, "value": value}
    for place, name in _TENSORS.items():
        if place < len(options) and options[place] is not None:
            given[name] = options[place]
    _checks.tensors("attention", tuple(given), *given.values())


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
    "attention", f"({_INPUTS}, {_OPTIONS}) -> Tensor", kernel=kernel, fake=_fake_out
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
