"""The forward and the backward pass of ring attention on one rank."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from slipstick import AttentionStats, merge_attention
from slipstick.distributed._ring import Ring
from slipstick.torch import _attention_ops
from slipstick.torch._scales import GIVEN, LEARNED


class Law(NamedTuple):
    """How to attend; no tensor is in it, so that a graph keeps alive what it saves alone."""

    causal: bool
    factor: Any
    name: str
    numbers: list[float]


class Plan(NamedTuple):
    """What a rank does with the shard of each rank."""

    ring: Ring
    law: Law
    counts: Tensor
    # Of each rank's shard: from which of the own rows on it is visible, up to which of its keys.
    visible: list[tuple[int, int] | None]

    def parts(
        self, key: Tensor, value: Tensor
    ) -> Iterator[tuple[Tensor, Tensor, tuple[int, int, bool] | None]]:
        """Yield (key, value, what is visible of them) in the order of the ring.

        Visible are all rows from the first number on, and all keys up to the second, but the
        diagonal alone where the flag is set.
        """
        rank = self.ring.peers.rank
        for owner, key_part, value_part in self.ring.shards(key, value):
            bounds = self.visible[owner]
            what = None if bounds is None else (*bounds, self.law.causal and owner == rank)
            yield key_part, value_part, what


def _rows(scale: Tensor | None, law: Law, first: int) -> Tensor | None:
    """Return lambda of the rows from `first` on."""
    if scale is None or law.name != GIVEN or scale.ndim == 0 or scale.shape[-1] == 1:
        return scale
    return scale[..., first:]


def _options(law: Law, scale: Tensor | None, counts: Tensor | None, diagonal: bool) -> Any:
    """Return the options of the operators, as they want them."""
    return diagonal, law.factor, law.name, law.numbers, scale, None, -1, -1, None, 0.0, counts


def part_of(
    law: Law,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: Tensor | None,
    counts: Tensor | None,
    diagonal: bool,
) -> tuple[Tensor, AttentionStats]:
    """Return what some rows see of some keys."""
    out, *stats = _attention_ops.attention_with_stats(
        query, key, value, *_options(law, scale, counts, diagonal)
    )
    return out, AttentionStats(*stats)


class Attention(torch.autograd.Function):
    """The ring, and the ring of its backward pass."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: Tensor | None, plan: Plan
    ) -> Any:
        out, stats = _forward(plan, query, key, value, scale)
        ctx.save_for_backward(query, key, value, scale, out, stats.lse, stats.entropy)
        ctx.plan = plan
        ctx.mark_non_differentiable(stats.max_logit)
        ctx.set_materialize_grads(False)
        return out, *stats

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Any, grad_lse: Any, grad_entropy: Any, _: Any) -> Any:
        grads = (grad_out, grad_lse, grad_entropy)
        return *_backward(ctx.plan, ctx.needs_input_grad, grads, *ctx.saved_tensors), None


def _forward(plan: Plan, query: Tensor, key: Tensor, value: Tensor, scale: Tensor | None) -> Any:
    """Attend to every shard, and merge what they give in the order of the ring."""
    law, merged = plan.law, None
    for key_part, value_part, what in plan.parts(key, value):
        if what is None:
            continue
        first, n_keys, diagonal = what
        out, stats = part_of(
            law,
            query[..., first:, :],
            key_part[..., :n_keys, :],
            value_part[..., :n_keys, :],
            _rows(scale, law, first),
            plan.counts[..., first:] if first else plan.counts,
            diagonal,
        )
        if merged is None:  # the own shard, which concerns all rows
            merged = out, stats
            continue
        # As wide as the statistics, so that 16 bits are rounded to once, at the end.
        before, *before_stats = (merged[0].to(stats.lse.dtype), *merged[1])
        parts = (
            (before[..., first:, :], AttentionStats(*(x[..., first:] for x in before_stats))),
            (out.to(stats.lse.dtype), stats),
        )
        out, stats = merge_attention(parts)
        if first:
            before[..., first:, :] = out
            for old, new in zip(before_stats, stats, strict=True):
                old[..., first:] = new
            out, stats = before, AttentionStats(*before_stats)
        merged = out, stats
    assert merged is not None
    return merged[0].to(query.dtype), merged[1]


def _backward(
    plan: Plan,
    needed: Any,
    grads: tuple[Any, Any, Any],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: Tensor | None,
    out: Tensor,
    lse: Tensor,
    entropy: Tensor,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Add up the gradients of every shard; those of key and value travel along with them."""
    law, ring, size = plan.law, plan.ring, plan.ring.peers.size
    wide = lse.dtype
    grad_out = torch.zeros_like(out) if grads[0] is None else grads[0]
    rows = [grad_out, query, out]
    statistics = [lse, entropy, grads[1], grads[2]]
    d_query = torch.zeros_like(query, dtype=wide)
    d_scale = None if scale is None else torch.zeros_like(scale)
    travelling = None
    for step, (key_part, value_part, what) in enumerate(plan.parts(key, value)):
        owner = (ring.peers.rank - step) % size
        packed = ring.empty(owner, key, value, wide).zero_()
        d_key, d_value = ring.views(packed, owner, key, value)
        if what is not None:
            first, n_keys, diagonal = what
            own_out, own_query, own_merged = (x[..., first:, :] for x in rows)
            own = [None if x is None else x[..., first:] for x in statistics]
            counts = plan.counts[..., first:] if first else plan.counts
            part = _attention_ops.attention_backward(
                own_out,
                own_query,
                key_part[..., :n_keys, :],
                value_part[..., :n_keys, :],
                own_merged,
                *own,
                *_options(law, _rows(scale, law, first), counts, diagonal),
            )
            d_query[..., first:, :] += part[0]
            d_key[..., :n_keys, :] = part[1]
            d_value[..., :n_keys, :] = part[2]
            if d_scale is not None:
                mine = _rows(d_scale, law, first)
                assert mine is not None
                mine += part[3]
        if needed[1] or needed[2]:
            if travelling is not None:
                packed += ring.arrive(travelling)
            travelling = ring.pass_on(packed, step, key, value) if size > 1 else None
    if needed[3] and law.name == LEARNED and d_scale is not None:
        d_scale = ring.peers.sum(d_scale)
    if not (needed[1] or needed[2]):
        return d_query.to(query.dtype), None, None, d_scale
    if travelling is not None:  # the last step has sent the gradients home
        packed = ring.arrive(travelling)
    d_key, d_value = ring.views(packed, ring.peers.rank, key, value)
    return d_query.to(query.dtype), d_key.to(key.dtype), d_value.to(value.dtype), d_scale
