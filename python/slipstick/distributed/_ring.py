"""The ring: shards of key and value that travel from rank to rank while the ranks compute."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import starmap
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from slipstick.distributed._group import Peers

# Messages of the same two ranks that are under way together.
_SHARDS, _GRADIENTS = 0, 1


class _Travelling(NamedTuple):
    """Messages under way: what was sent has to stay alive until they have arrived."""

    step: int
    works: list[Any]
    sent: Tensor
    received: Tensor


class Ring:
    """Passes the shards of key and value round: step s brings that of rank r - s to rank r.

    Key and value travel side by side in one flat tensor, a message for each step. Every rank waits
    for the message of its predecessor, so who computes faster changes the time alone, and no
    result.

    Parameters
    ----------
    peers : Peers
    lengths : list of int
        How many keys each rank has.
    """

    def __init__(self, peers: Peers, lengths: list[int]) -> None:
        self.peers = peers
        self._lengths = lengths
        self._next = (peers.rank + 1) % peers.size
        self._previous = (peers.rank - 1) % peers.size

    def shards(self, key: Tensor, value: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield (rank, key, value) for the shards of all ranks, this rank's own first.

        The next shard is on its way while the caller works on the one it has.
        """
        size = self.peers.size
        for step in range(size):
            owner = (self.peers.rank - step) % size
            under_way = None
            if step + 1 < size:
                if step == 0:
                    packed = self.empty(owner, key, value, key.dtype)
                    for whole, part in zip(
                        self.views(packed, owner, key, value), (key, value), strict=True
                    ):
                        whole.copy_(part)
                coming = self.empty((owner - 1) % size, key, value, key.dtype)
                under_way = self._start(packed, coming, _SHARDS, step)
            yield owner, key, value
            if under_way is not None:
                packed = self._finish(under_way)
                key, value = self.views(packed, (owner - 1) % size, key, value)

    def pass_on(self, gradients: Tensor, step: int, key: Tensor, value: Tensor) -> _Travelling:
        """Send the gradients of the shard of this step along with it, for the next rank to add."""
        owner = (self.peers.rank - step - 1) % self.peers.size
        coming = self.empty(owner, key, value, gradients.dtype)
        return self._start(gradients, coming, _GRADIENTS, step)

    def arrive(self, travelling: _Travelling) -> Tensor:
        """Wait for the gradients that the predecessor has passed on."""
        return self._finish(travelling)

    def empty(self, owner: int, key: Tensor, value: Tensor, dtype: torch.dtype) -> Tensor:
        """Return a flat tensor with room for the shard of a rank."""
        numel = sum(map(math.prod, self._shapes(owner, key, value)))
        return key.new_empty(numel, dtype=dtype)

    def views(
        self, packed: Tensor, owner: int, key: Tensor, value: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the key and the value in a flat tensor that holds the shard of a rank."""
        shapes = self._shapes(owner, key, value)
        sizes = [math.prod(shape) for shape in shapes]
        parts = zip(packed.split(sizes), shapes, strict=True)
        first, second = starmap(Tensor.view, parts)
        return first, second

    def _shapes(self, owner: int, key: Tensor, value: Tensor) -> list[tuple[int, ...]]:
        length = self._lengths[owner]
        return [(*x.shape[:-2], length, x.shape[-1]) for x in (key, value)]

    def _start(self, sent: Tensor, received: Tensor, tag: int, step: int) -> _Travelling:
        group = self.peers.group
        messages = [
            dist.P2POp(act, tensor, dist.get_global_rank(group, peer), group, tag)
            for act, tensor, peer in (
                (dist.irecv, received, self._previous),
                (dist.isend, sent, self._next),
            )
            if tensor.numel()  # both sides know that there is nothing to send
        ]
        works: list[Any] = []
        if messages:
            with self.peers.lost(self._whom(), self._where(step)):
                works = dist.batch_isend_irecv(messages)
        return _Travelling(step, works, sent, received)

    def _finish(self, travelling: _Travelling) -> Tensor:
        for work in travelling.works:
            with self.peers.lost(self._whom(), self._where(travelling.step)):
                work.wait(self.peers.timeout)
        return travelling.received

    def _whom(self) -> str:
        if self._previous == self._next:
            return f"rank {self._next}"
        return f"ranks {self._previous} and {self._next}"

    def _where(self, step: int) -> str:
        return f"in step {step + 1} of {self.peers.size}"
