"""How a sequence is cut into shards, one a rank."""

from __future__ import annotations

import operator
from itertools import accumulate
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from slipstick._numbers import given
from slipstick.distributed._group import Peers, Same, on_cpu
from slipstick.torch import _checks

__all__ = ["shard", "unshard"]

CONTIGUOUS, ZIGZAG = "contiguous", "zigzag"


def check_layout(function: str, layout: Any) -> None:
    """Refuse what is no layout."""
    if layout not in (CONTIGUOUS, ZIGZAG):
        raise ValueError(
            f"{function}: `layout` must be 'contiguous' or 'zigzag', got {given(layout)}"
        )


def even_cuts(length: int, size: int, layout: str) -> list[tuple[int, ...]]:
    """Return the lengths of each rank's chunks as `shard` cuts them: one a rank, or two."""
    chunks = size if layout == CONTIGUOUS else 2 * size
    lengths = [length // chunks + (chunk < length % chunks) for chunk in range(chunks)]
    if layout == CONTIGUOUS:
        return [(one,) for one in lengths]
    return list(zip(lengths[:size], reversed(lengths[size:]), strict=True))


def cuts(function: str, name: str, lengths: list[int], layout: str) -> list[tuple[int, ...]]:
    """Return the lengths of each rank's chunks, given those of its shard."""
    if layout == CONTIGUOUS:
        return [(length,) for length in lengths]
    expected = even_cuts(sum(lengths), len(lengths), layout)
    for rank, (length, chunks) in enumerate(zip(lengths, expected, strict=True)):
        if length != sum(chunks):
            raise ValueError(
                f"{function}: `{name}` must have {sum(chunks)} rows on rank {rank}, as the zigzag "
                f"layout cuts {sum(lengths)}, got {length}"
            )
    return expected


def ranges(chunks: list[tuple[int, ...]]) -> list[list[tuple[int, int]]]:
    """Return each rank's chunks as (first, stop) in the whole sequence."""
    forward = [own[0] for own in chunks]
    backward = [own[1] for own in chunks[::-1] if len(own) == 2]
    stops = list(accumulate(forward + backward))
    size = len(chunks)
    return [
        [
            (stops[place] - length, stops[place])
            for place, length in zip((rank, 2 * size - 1 - rank), own, strict=False)
        ]
        for rank, own in enumerate(chunks)
    ]


def shard(x: Tensor, *, dim: int = -2, layout: str = CONTIGUOUS, group: Any = None) -> Tensor:
    """Return this rank's part of a tensor that every rank has whole.

    Parameters
    ----------
    x : Tensor
        Queries, keys or values of shape (..., length, dim), or, with another `dim`, anything that
        goes along with the sequence: tokens, positions, targets.
    dim : int, optional
        The axis of the sequence.
    layout : {"contiguous", "zigzag"}, optional
        "contiguous": rank r of W gets the r-th of W chunks. "zigzag": it gets chunks r and
        2 W - 1 - r of 2 W, so that under a causal mask all ranks have the same work. Where the
        length is no multiple, the first chunks are longer by one.
    group : ProcessGroup, optional
        By default all ranks.

    Returns
    -------
    Tensor
        A view, or a copy for "zigzag". Gradients flow back into `x`.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit. No messages are sent: ranks are not compared.

    Examples
    --------
    >>> import torch
    >>> import torch.distributed as dist
    >>> import slipstick.distributed
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> positions = slipstick.distributed.shard(torch.arange(10), dim=0, layout="zigzag")
    >>> positions.tolist()
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    >>> dist.destroy_process_group()
    """
    peers = Peers("shard", group)
    check_layout("shard", layout)
    dim = _axis("shard", x, dim)
    own = ranges(even_cuts(x.shape[dim], peers.size, layout))[peers.rank]
    return take(x, dim, own)


def unshard(x: Tensor, *, dim: int = -2, layout: str = CONTIGUOUS, group: Any = None) -> Tensor:
    """Return the whole tensor on every rank, given each rank's part.

    Parameters
    ----------
    x : Tensor
        This rank's part, as `shard` cuts it. With the contiguous layout, parts may have any
        lengths.
    dim, layout, group : optional
        As for `shard`.

    Returns
    -------
    Tensor
        It is the same on every rank, and so should be what is computed from it: the gradient of `x`
        is this rank's part of the gradient that arrives here, without a message to other ranks.

    Raises
    ------
    TypeError, ValueError
        On all ranks, for arguments that do not fit.
    RuntimeError
        For a rank that does not answer within the timeout of the group.

    Examples
    --------
    >>> import torch
    >>> import torch.distributed as dist
    >>> from slipstick.distributed import shard, unshard
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> x = torch.arange(12).reshape(6, 2)
    >>> torch.equal(unshard(shard(x, layout="zigzag"), layout="zigzag"), x)
    True
    >>> dist.destroy_process_group()
    """
    peers = Peers("unshard", group)

    def check() -> tuple[Same, int]:
        check_layout("unshard", layout)
        axis = _axis("unshard", x, dim)
        _checks.tensors("unshard", ("x",), x)
        on_cpu("unshard", "x", x)
        rest = (*x.shape[:axis], *x.shape[axis + 1 :])
        same = {
            "`dim`": str(axis),
            "`layout`": layout,
            "the dtype of `x`": str(x.dtype),
            "the shape of `x` but for `dim`": str(rest),
        }
        return same, x.shape[axis]

    lengths = peers.agree(check)
    places = ranges(cuts("unshard", "x", lengths, layout))
    whole: Tensor = _Whole.apply(x, peers, dim % x.ndim, places)  # type: ignore[no-untyped-call]
    return whole


class _Whole(torch.autograd.Function):
    """Every rank's part, put together."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, peers: Peers, dim: int, places: list[list[tuple[int, int]]]
    ) -> Tensor:
        ctx.dim, ctx.own = dim, places[peers.rank]
        shape = list(x.shape)
        shape[dim] = sum(stop - first for own in places for first, stop in own)
        whole = x.new_empty(shape)
        for rank, own in enumerate(places):
            # One broadcast a rank, because the parts may differ in length.
            if rank == peers.rank:
                part = x.contiguous()
            else:
                shape[dim] = sum(stop - first for first, stop in own)
                part = x.new_empty(shape)
            if peers.size > 1 and part.numel():
                source = dist.get_global_rank(peers.group, rank)
                with peers.lost(f"rank {rank}", "while it was to send its part"):
                    dist.broadcast(part, source, group=peers.group)
            start = 0
            for first, stop in own:
                piece = part.narrow(dim, start, stop - first)
                whole.narrow(dim, first, stop - first).copy_(piece)
                start += stop - first
        return whole

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return take(grads[0], ctx.dim, ctx.own), None, None, None


def take(x: Tensor, dim: int, own: list[tuple[int, int]]) -> Tensor:
    """Return the parts of a tensor between (first, stop), one behind the other."""
    parts = [x.narrow(dim, first, stop - first) for first, stop in own]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def _axis(function: str, x: Any, dim: Any) -> int:
    if not isinstance(x, Tensor):
        raise TypeError(f"{function}: `x` must be a torch.Tensor, got {type(x).__name__}")
    try:
        axis = operator.index(dim)
    except TypeError:
        raise TypeError(f"{function}: `dim` must be an int, got {type(dim).__name__}") from None
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(
            f"{function}: `dim` must be an axis of `x`, got {given(dim)} for shape {tuple(x.shape)}"
        )
    return axis % x.ndim
