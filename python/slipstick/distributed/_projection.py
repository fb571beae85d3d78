"""Random projection of vectors whose features lie on different ranks."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

import slipstick.torch
from slipstick._numbers import given
from slipstick.distributed._group import Peers, Same, on_cpu
from slipstick.projection._arguments import integer
from slipstick.torch import _checks

__all__ = ["project"]

_NAME = "project"


def project(
    x: Tensor,
    n_components: int,
    *,
    kind: str = "rademacher",
    seed: int = 0,
    density: float | None = None,
    first_feature: int = 0,
    group: Any = None,
) -> Tensor:
    """Project vectors whose features are spread over the ranks, onto random directions.

    Each rank projects its own features, by the columns of the random matrix that belong to them,
    and the results are added up over the ranks. No part of the matrix is sent.

    Parameters
    ----------
    x : Tensor of shape (..., n_features)
        The features of this rank, which follow those of the ranks before it; each rank may have
        another number of them. Otherwise as for `slipstick.torch.project`.
    n_components, kind, seed : optional
        As for `slipstick.projection.project`.
    density : float, optional
        The same; for "sparse", None means ``1 / sqrt(d)`` of the features of all ranks.
    first_feature : int, optional
        The global index of the first feature of rank 0.
    group : ProcessGroup, optional
        By default all ranks. It needs a backend for the CPU, such as gloo.

    Returns
    -------
    Tensor of shape (..., n_components)
        That of the whole vectors, to rounding; of the dtype of `x`, float64 for integers. 16 bits
        are rounded to once, after the sum. It is the same on every rank, to the last bit, and so
        should be what is computed from it: the gradient of `x` is taken from the gradient that
        arrives here, without a message to other ranks.

    Raises
    ------
    TypeError, ValueError
        On all ranks with the same words, for arguments that do not fit, or that differ between
        ranks where they must not.
    RuntimeError
        For a rank that does not answer, at the latest after the timeout of the group.

    Notes
    -----
    The sum over the ranks is taken in their order, ((p0 + p1) + p2) + ..., for every element, with
    the messages of an `all_reduce` (each rank adds up a part of the elements and sends it to the
    others). `all_reduce` itself would leave the order to the backend: gloo's depends on the place
    of an element, NCCL's on sizes and the network. So the bits depend on how the features are cut,
    and on nothing else; one rank gives those of `slipstick.torch.project`.

    Examples
    --------
    >>> import torch
    >>> import torch.distributed as dist
    >>> import slipstick.distributed
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> x = torch.randn(3, 1000)
    >>> slipstick.distributed.project(x, 64, seed=7).shape
    torch.Size([3, 64])
    >>> dist.destroy_process_group()
    """
    peers = Peers(_NAME, group)
    law: dict[str, Any] = {"kind": kind, "seed": seed}

    def check() -> tuple[Same, int]:
        _checks.tensors(_NAME, ("x",), x)
        on_cpu(_NAME, "x", x)
        # On no vectors: the rest of the arguments is checked before the first message.
        nothing = x.detach()[None][:0]
        slipstick.torch.project(
            nothing, n_components, density=density, first_feature=first_feature, **law
        )
        same = {
            "the dtype of `x`": str(x.dtype),
            "the shape of `x` but for its features": str(tuple(x.shape[:-1])),
            "`n_components`": given(n_components, str),
            "`kind`": kind,
            "`seed`": given(seed, str),
            "`density`": given(density, str),
            "`first_feature`": given(first_feature, str),
        }
        return same, x.shape[-1]

    widths = peers.agree(check)
    total = sum(widths)
    start = integer(_NAME, "first_feature", first_feature, 0, 64)
    if start + total > 1 << 64:
        raise ValueError(
            f"{_NAME}: `first_feature` must be at most 2**64 - {total} for {total} features on all "
            f"ranks, got {start}"
        )
    if kind == "sparse" and density is None:
        density = 1 / math.sqrt(total)
    narrow = x.dtype in (torch.float16, torch.bfloat16)
    partial = slipstick.torch.project(
        x.float() if narrow and peers.size > 1 else x,
        n_components,
        density=density,
        first_feature=start + sum(widths[: peers.rank]),
        **law,
    )
    whole: Tensor = _Sum.apply(partial, peers)  # type: ignore[no-untyped-call]
    return whole.to(x.dtype) if narrow else whole


class _Sum(torch.autograd.Function):
    """The sum over the ranks, of which every rank goes on with the same."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, peers: Peers) -> Tensor:
        return peers.sum(x).view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0], None
