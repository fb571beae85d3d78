"""Attention over a sequence whose shards stay on different ranks."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from slipstick import AttentionStats
from slipstick._attention import _flag
from slipstick.distributed._group import Peers, Same, on_cpu
from slipstick.distributed._layout import CONTIGUOUS, check_layout, cuts, ranges
from slipstick.distributed._passes import Attention, Law, Plan, part_of
from slipstick.distributed._ring import Ring
from slipstick.scales import LogN, Scale
from slipstick.torch import _checks, _library
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
    out, *stats = Attention.apply(*tensors, plan)  # type: ignore[no-untyped-call]
    return (out, AttentionStats(*stats)) if return_stats else out


# --- What the ranks agree on ----------------------------------------------------------------------


class _Call(NamedTuple):
    """The arguments of this rank, checked."""

    query: Tensor
    key: Tensor
    value: Tensor
    scale: Tensor | None
    law: Law


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
        law = Law(causal, factor, name, numbers)
        # All else is checked by the kernel, on no keys: it must not be refused in mid-ring.
        with torch.no_grad():
            part_of(law, query, key[..., :0, :], value[..., :0, :], tensor, None, False)
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


def _plan(peers: Peers, lengths: list[tuple[int, int]], call: _Call, layout: str) -> Plan:
    keys = [pair[1] for pair in lengths]
    ring = Ring(peers, keys)
    device = call.query.device
    if not call.law.causal:
        counts = torch.full((), sum(keys), dtype=torch.int64, device=device)
        return Plan(ring, call.law, counts, [(0, number) for number in keys])
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
    return Plan(ring, call.law, counts, visible)
