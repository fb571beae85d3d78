"""Attention over a sequence whose shards stay on different ranks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from slipstick import AttentionStats, merge_attention
from slipstick._attention import _flag
from slipstick.distributed._group import Peers, Same, on_cpu
from slipstick.distributed._layout import CONTIGUOUS, check_layout, cuts, ranges
from slipstick.distributed._ring import Ring
from slipstick.scales import LogN, Scale
from slipstick.torch import _attention_ops, _checks, _library
from slipstick.torch._scales import GIVEN, LEARNED, LearnableScale, lowered

__all__ = ["ring_attention"]

_NAME = "ring_attention"
_LOGN = LogN()
_INPUTS = ("query", "key", "value")


def ring_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    causal: bool = False,
    scale: Scale | LearnableScale | float | Tensor = _LOGN,
    layout: str = CONTIGUOUS,
    group: Any = None,
    return_stats: bool = False,
) -> Any:
    """Compute attention over a sequence of which every rank has a shard, with gradients.

    Queries stay where they are; the shards of key and value go round a ring of ranks, each on its
    way to the next rank while this one computes with it. The results are those of
    `slipstick.torch.attention` on the whole sequence, to rounding: n_i, by which lambda_i grows, is
    the number of keys that query row i may attend in the whole sequence.

    Parameters
    ----------
    query : Tensor of shape (batch, heads, queries, dim)
        This rank's queries: float32, float64, float16 or bfloat16, the same for all three inputs,
        which autocast casts. Inputs may lack the batch axis, or batch and heads; then so does the
        result.
    key : Tensor of shape (batch, kv_heads, keys, dim)
        This rank's keys; heads is a multiple of kv_heads.
    value : Tensor of shape (batch, kv_heads, keys, dim_v)
    causal : bool, optional
        Query i of the whole sequence sees keys up to i. Each rank must have as many queries as
        keys.
    scale : Scale, LogNScale, SSMaxScale, float or Tensor, optional
        As for `slipstick.torch.attention`. A tensor of lambda is that of this rank's queries.
    layout : {"contiguous", "zigzag"}, optional
        How the sequence was cut, see `shard`. With contiguous shards, of any lengths, a causal call
        takes as long as on its last rank, which sees all keys; "zigzag" gives all ranks the same
        work. Without `causal` nothing depends on it.
    group : ProcessGroup, optional
        By default all ranks. It needs a backend for the CPU, such as gloo.
    return_stats : bool, optional
        Return `slipstick.AttentionStats` of this rank's queries too, whose lse and entropy have
        gradients.

    Returns
    -------
    Tensor of shape (batch, heads, queries, dim_v)
        For this rank's queries.
    stats : AttentionStats
        Only with ``return_stats=True``; float32, or float64 for float64.

    Raises
    ------
    TypeError, ValueError
        On all ranks with the same words, for arguments that do not fit, or that differ between
        ranks where they must not.
    RuntimeError
        For a rank that does not answer: at once where its connection breaks, at the latest after
        the timeout of the group (``init_process_group(timeout=...)``). The group cannot be used any
        more then.

    Notes
    -----
    Every rank must make the call, and run its backward pass where there is one. Gradients of
    `query`, `key` and `value` are those of the sum of all ranks' losses; so are those of the
    parameters of a learnable scale, which every rank has whole: do not add them up over ranks. That
    of a tensor of lambda is this rank's.

    The shards are merged in the order in which the ring brings them (rank r sees those of
    r, r - 1, ...), their gradients in the order of their travel, never by arrival: repeated calls
    give the same bits. Other numbers of ranks change the rounding alone. Sums are float32, or
    float64 for float64; a shard's result in 16 bits has been rounded before it is merged.

    A rank has its shard, the one that it works on, and the next one in memory; in the backward pass
    the gradients of two shards as well. torch.compile does not capture a call but runs it as it is.

    Source: H. Liu et al., "Ring attention with blockwise transformers for near-infinite context",
    arXiv 2310.01889, 2023, for the ring; `slipstick.merge_attention` for the merge.

    Examples
    --------
    >>> import torch
    >>> import torch.distributed as dist
    >>> from slipstick.distributed import ring_attention, shard
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> query, key, value = torch.randn(3, 1, 8, 128, 64)
    >>> own = [shard(x, layout="zigzag") for x in (query, key, value)]
    >>> out = ring_attention(*own, causal=True, layout="zigzag")
    >>> out.shape
    torch.Size([1, 8, 128, 64])
    >>> dist.destroy_process_group()
    """
    result: Any = _ring_attention(query, key, value, causal, scale, layout, group, return_stats)
    return result


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _ring_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    causal: Any,
    scale: Any,
    layout: Any,
    group: Any,
    return_stats: Any,
) -> Any:
    peers = Peers(_NAME, group)
    call: _Call | None = None

    def check() -> tuple[Same, tuple[int, int]]:
        nonlocal call
        call = _checked(query, key, value, causal, scale, layout)
        _flag(_NAME, "return_stats", return_stats)
        return _told(call, layout), (call.query.shape[-2], call.key.shape[-2])

    lengths = peers.agree(check)
    assert call is not None
    plan = _plan(peers, lengths, call, layout)
    tensors = (call.query, call.key, call.value, call.scale)
    out, *stats = _Attention.apply(*tensors, plan)  # type: ignore[no-untyped-call]
    return (out, AttentionStats(*stats)) if return_stats else out


# --- What the ranks agree on ----------------------------------------------------------------------


class _Law(NamedTuple):
    """How to attend; no tensor is in it, so that a graph keeps alive what it saves alone."""

    causal: bool
    factor: Any
    name: str
    numbers: list[float]


class _Call(NamedTuple):
    """The arguments of this rank, checked."""

    query: Tensor
    key: Tensor
    value: Tensor
    scale: Tensor | None
    law: _Law


def _checked(query: Any, key: Any, value: Any, causal: Any, scale: Any, layout: Any) -> _Call:
    check_layout(_NAME, layout)
    causal = _flag(_NAME, "causal", causal)
    _checks.tensors(_NAME, _INPUTS, query, key, value)
    on_cpu(_NAME, "query", query)
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        query, key, value = (_library._cast(x, dtype) for x in (query, key, value))
    if not 2 <= query.ndim <= 4 or key.ndim != query.ndim or value.ndim != query.ndim:
        shapes = ", ".join(str(tuple(x.shape)) for x in (query, key, value))
        raise ValueError(
            f"{_NAME}: `query`, `key` and `value` must have the same number of axes, from 2 to 4, "
            f"got shapes {shapes}"
        )
    if value.shape[-2] != key.shape[-2]:
        raise ValueError(
            f"{_NAME}: `value` must have {key.shape[-2]} rows like `key`, got shape "
            f"{tuple(value.shape)}"
        )
    if causal and query.shape[-2] != key.shape[-2]:
        raise ValueError(
            f"{_NAME}: `query` must have {key.shape[-2]} rows like `key` where `causal` is True, "
            f"got shape {tuple(query.shape)}"
        )
    try:
        factor, name, numbers, tensor = lowered(scale)
        if tensor is not None:
            _checks.tensors(_NAME, ("query", "scale"), query, tensor)
            if name == LEARNED:  # its gradient is then rounded once, at the end
                tensor = tensor.to(torch.float64)
        law = _Law(causal, factor, name, numbers)
        # All else is checked by the kernel, on no keys: it must not be refused in mid-ring.
        with torch.no_grad():
            _part(law, query, key[..., :0, :], value[..., :0, :], tensor, None, False)
    except (TypeError, ValueError) as error:
        words = str(error)
        if words.startswith("attention: "):
            raise type(error)(f"ring_{words}") from error
        raise
    return _Call(query, key, value, tensor, law)


def _told(call: _Call, layout: str) -> Same:
    query, key, value, tensor, law = call
    scale = "lambda as a tensor"
    if law.name == LEARNED and tensor is not None:
        scale = f"learnable, with s and b {tensor.tolist()}"
    elif law.name != GIVEN:
        scale = str(law.factor) if law.factor is not None else f"{law.name} of {law.numbers}"
    needing = []
    if torch.is_grad_enabled():
        tensors = zip((*_INPUTS, "scale"), (query, key, value, tensor), strict=True)
        needing = [name for name, x in tensors if x is not None and x.requires_grad]
    return {
        "the dtype of the tensors": str(query.dtype),
        "the shape of `query` but for its rows": str((*query.shape[:-2], query.shape[-1])),
        "the shape of `key` but for its rows": str((*key.shape[:-2], key.shape[-1])),
        "the shape of `value` but for its rows": str((*value.shape[:-2], value.shape[-1])),
        "`causal`": str(law.causal),
        "`layout`": layout,
        "`scale`": scale,
        "what needs a gradient": " and ".join(needing) or "nothing",
    }


# --- What the ring does ---------------------------------------------------------------------------


class _Plan(NamedTuple):
    """What a rank does with the shard of each rank."""

    ring: Ring
    law: _Law
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


def _plan(peers: Peers, lengths: list[tuple[int, int]], call: _Call, layout: str) -> _Plan:
    keys = [pair[1] for pair in lengths]
    ring = Ring(peers, keys)
    device = call.query.device
    if not call.law.causal:
        counts = torch.full((), sum(keys), dtype=torch.int64, device=device)
        return _Plan(ring, call.law, counts, [(0, number) for number in keys])
    chunks = cuts(_NAME, "query", keys, layout)
    own = [torch.arange(*chunk, device=device) for chunk in ranges(chunks)[peers.rank]]
    counts = torch.cat(own) + 1
    if call.query.ndim == 4:
        counts = counts.expand(call.query.shape[0], -1)
    visible: list[tuple[int, int] | None] = []
    for owner in range(peers.size):
        if owner == peers.rank:
            # The own keys stand in the order of the own rows: a diagonal, for two chunks as well.
            bounds: tuple[int, int] | None = (0, keys[owner])
        elif owner < peers.rank:
            # Of two chunks, the first lies before both of ours and the second behind them.
            bounds = (0, chunks[owner][0])
        elif layout == CONTIGUOUS:
            bounds = None
        else:
            # Both chunks lie between our first and our second.
            bounds = (chunks[peers.rank][0], keys[owner])
        visible.append(bounds)
    return _Plan(ring, call.law, counts, visible)


def _rows(scale: Tensor | None, law: _Law, first: int) -> Tensor | None:
    """Return lambda of the rows from `first` on."""
    if scale is None or law.name != GIVEN or scale.ndim == 0 or scale.shape[-1] == 1:
        return scale
    return scale[..., first:]


def _options(law: _Law, scale: Tensor | None, counts: Tensor | None, diagonal: bool) -> Any:
    """Return the options of the operators, as they want them."""
    return diagonal, law.factor, law.name, law.numbers, scale, None, -1, -1, None, 0.0, counts


def _part(
    law: _Law,
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


class _Attention(torch.autograd.Function):
    """The ring, and the ring of its backward pass."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: Tensor | None, plan: _Plan
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


def _forward(plan: _Plan, query: Tensor, key: Tensor, value: Tensor, scale: Tensor | None) -> Any:
    """Attend to every shard, and merge what they give in the order of the ring."""
    law, merged = plan.law, None
    for key_part, value_part, what in plan.parts(key, value):
        if what is None:
            continue
        first, n_keys, diagonal = what
        out, stats = _part(
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
    plan: _Plan,
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
