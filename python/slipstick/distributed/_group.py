"""The ranks that call a function together: agreement before the work, and sums in their order."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.constants import default_pg_timeout

from slipstick._numbers import given

# What a rank tells the others before the work: what has to be the same on all ranks, by its name in
# a sentence, and what is its own.
Same = dict[str, str]
Check = Callable[[], tuple[Same, Any]]


class _Refusal(NamedTuple):
    """What a rank tells the others instead when its arguments do not fit."""

    kind: str
    message: str


class Peers:
    """The ranks of a process group, in one call of one function.

    Attributes
    ----------
    function : str
        The name that errors begin with.
    group : ProcessGroup
    rank, size : int
        Of this process in the group, and how many there are.
    timeout : timedelta
        How long the group waits for a message.
    """

    def __init__(self, function: str, group: Any) -> None:
        if group is None:
            if not dist.is_initialized():
                raise ValueError(
                    f"{function}: `group` must be a process group, got None before "
                    "torch.distributed.init_process_group, which makes the default one"
                )
            group = dist.group.WORLD
        if group == dist.GroupMember.NON_GROUP_MEMBER:
            raise ValueError(
                f"{function}: `group` must have this process as a member, got one without it"
            )
        if not isinstance(group, dist.ProcessGroup):
            raise TypeError(
                f"{function}: `group` must be None or a torch.distributed.ProcessGroup, got "
                f"{type(group).__name__}"
            )
        backends = dist.get_backend_config(group)
        if "cpu" not in [pair.partition(":")[0] for pair in backends.split(",")]:
            raise ValueError(
                f"{function}: `group` must have a backend for the CPU, such as gloo, got {backends}"
            )
        self.function = function
        self.group = group
        self.rank = group.rank()
        self.size = group.size()
        # Collectives know it; a message from rank to rank is waited for without an end, unless
        # the wait is told of one.
        options = getattr(group._get_backend(torch.device("cpu")), "options", None)
        self.timeout: timedelta = getattr(options, "_timeout", default_pg_timeout)

    @contextmanager
    def lost(self, whom: str, where: str) -> Iterator[None]:
        """Say who did not answer, in place of the backend's words about sockets."""
        try:
            yield
        except RuntimeError as error:
            # The first sentence, without the line of the source that it comes from.
            reason = re.sub(r"^\[[^]]*\]\s*", "", str(error)).partition(". ")[0].partition("\n")[0]
            raise RuntimeError(
                f"{self.function}: {whom} must take part until the end, got no answer on rank "
                f"{self.rank} {where}: {reason}"
            ) from error

    def agree(self, check: Check) -> list[Any]:
        """Check the arguments on every rank, and return what each rank calls its own.

        All ranks take part, whatever their arguments: were one to leave with an error, the others
        would wait for it.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            The same on all ranks: what `check` raised on the first of them where it raised, or that
            something differs between two ranks.
        """
        told: Any
        failure: Exception | None = None
        try:
            told = check()
        except Exception as error:
            failure = error
            told = _refusal(self.function, error)
        if self.size == 1:
            if failure is not None:
                raise failure
            return [told[1]]
        everyone: list[Any] = [None] * self.size
        with self.lost("every rank", "before the work"):
            dist.all_gather_object(everyone, told, group=self.group)
        for rank, other in enumerate(everyone):
            if isinstance(other, _Refusal):
                raise _ERRORS[other.kind](f"{other.message}, on rank {rank}") from failure
        first = everyone[0][0]
        for rank, (same, _) in enumerate(everyone):
            for name, value in first.items():
                if same[name] != value:
                    raise ValueError(
                        f"{self.function}: {name} must be the same on all ranks, got {value} on "
                        f"rank 0 and {same[name]} on rank {rank}"
                    )
        return [own for _, own in everyone]

    def sum(self, x: Tensor) -> Tensor:
        """Return the sum of a tensor over the ranks, on each of them, added in their order.

        It sends what `all_reduce` sends: each rank adds up one part of the elements and passes it
        to the others. `all_reduce` itself leaves the order of the sum to the backend, which may
        choose it by size, by the network, and another one for each element.
        """
        if self.size == 1 or x.numel() == 0:
            return x
        length = -(-x.numel() // self.size)
        sent = x.new_zeros(self.size * length)
        sent[: x.numel()] = x.reshape(-1)
        received = torch.empty_like(sent)
        with self.lost("every rank", "in the sum over the ranks"):
            dist.all_to_all_single(received, sent, group=self.group)
            first, *rest = received.view(self.size, length)
            for part in rest:
                first += part
            dist.all_gather(list(sent.view(self.size, length)), first, group=self.group)
        return sent[: x.numel()].view(x.shape)


_ERRORS = {"TypeError": TypeError, "ValueError": ValueError, "RuntimeError": RuntimeError}


def _refusal(function: str, error: Exception) -> _Refusal:
    for kind in (TypeError, ValueError):
        if isinstance(error, kind):
            return _Refusal(kind.__name__, str(error))
    words = f"{function}: arguments must be such that they can be checked, got {given(error)}"
    return _Refusal("RuntimeError", words)


def on_cpu(function: str, name: str, x: Tensor) -> None:
    """Refuse a tensor that has a shape alone; those of other devices have been refused before."""
    if x.device.type != "cpu":
        raise ValueError(f"{function}: `{name}` must be on the CPU, got device {x.device}")
