"""Processes that call `slipstick.distributed` together, and what the tests have them do."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
import warnings
from datetime import timedelta
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist

import slipstick
import slipstick.distributed as ring
from slipstick.distributed import _passes


class Ranks:
    """A few processes in one group, which run functions of this module until they are closed.

    They are forked from a server that has torch imported: it takes its seconds once.
    """

    def __init__(self, size, store):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch", "slipstick.distributed"])
        self.pipes = []
        self.processes = []
        for rank in range(size):
            ours, theirs = context.Pipe()
            arguments = (rank, size, str(store), theirs)
            process = context.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)

    def run(self, function, *args, world=None, but=None):
        """Return what the function gives on each rank of a group of the first `world` ranks.

        The first argument of the function is that group. What it raises is returned, not raised. No
        answer is awaited from the rank `but`.
        """
        world = world or len(self.pipes)
        for pipe in self.pipes[:world]:
            pipe.send((function, args, world))
        results = []
        for rank, pipe in enumerate(self.pipes[:world]):
            if rank == but:
                continue
            if not pipe.poll(120):
                raise TimeoutError(f"rank {rank} of {world} hangs in {function.__name__}{args}")
            results.append(pipe.recv())
        return results

    def values(self, function, *args, world=None):
        """Return what the function gives on each rank, none of which may raise."""
        results = self.run(function, *args, world=world)
        for result in results:
            if isinstance(result, Exception):
                raise result
        return results

    def close(self):
        for process, pipe in zip(self.processes, self.pipes, strict=True):
            process.kill()
            process.join()
            pipe.close()


def _serve(rank, size, store, pipe):
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    slipstick.set_num_threads(1)
    if sys.platform == "linux":
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # whatever the machine's own name leads to
    dist.init_process_group(
        "gloo",
        store=dist.FileStore(store, size),
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=60),
    )
    groups = {world: dist.new_group(list(range(world))) for world in range(1, size + 1)}
    while True:
        function, args, world = pipe.recv()
        try:
            result = function(groups[world], *args)
        except Exception as error:
            result = error
        pipe.send(result)


# --- What a rank does -----------------------------------------------------------------------------


def attend(group, arrays, upstream, options, scale=None, delay=0.0):
    """Return NumPy's arrays of this rank: the result, its statistics, and all gradients.

    arrays, upstream: for each rank, those of query, key and value, and those of the gradients that
    arrive at out, lse and entropy. scale: an array for each rank, or a module's description.
    """
    rank = group.rank()
    tensors = [torch.tensor(x) for x in arrays[rank]]
    if rank == group.size() - 1:  # of any strides
        tensors = [x.mT.contiguous().mT for x in tensors]
    tensors = [x.requires_grad_() for x in tensors]
    leaves = list(tensors)
    if isinstance(scale, Learnable):
        module = _tensor(scale).double()
        options = {**options, "scale": module}
        leaves += module.parameters()
    elif scale is not None:
        leaves.append(torch.tensor(scale[rank], requires_grad=True))
        options = {**options, "scale": leaves[-1]}
    if delay:
        time.sleep(delay * (rank % 2))
    out, stats = ring.ring_attention(*tensors, group=group, return_stats=True, **options)
    results = (out, stats.lse, stats.entropy)
    if delay:
        time.sleep(delay * ((rank + 1) % 2))
    gradients = [torch.tensor(x) for x in upstream[rank]]
    grads = torch.autograd.grad(results, leaves, gradients)
    assert not stats.max_logit.requires_grad
    return [x.detach().numpy() for x in (*results, stats.max_logit, *grads)]


class As(NamedTuple):
    """An array that becomes a tensor by a method of torch.Tensor, such as `half`; and no tensor."""

    array: Any
    method: str
    args: tuple[Any, ...] = ()


def _tensor(x):
    if isinstance(x, As):
        return getattr(torch.tensor(x.array), x.method)(*x.args)
    if isinstance(x, Learnable):
        return slipstick.torch.SSMaxScale(**x._asdict())
    return torch.tensor(x) if isinstance(x, np.ndarray) else x


class Learnable(NamedTuple):
    """A scale with parameters."""

    s: float
    b: float | None = None
    heads: int | None = None


def call(group, function, args, options):
    """Call a function of the package with this rank's arguments; the shape of its result.

    args, options: for each rank; arrays become tensors.
    """
    rank = group.rank()
    given = {name: _tensor(x) for name, x in options[rank].items()}
    return getattr(ring, function)(*map(_tensor, args[rank]), **{"group": group, **given}).shape


def narrow(group, arrays, dtype, causal):
    """Return out and the gradients of 16-bit inputs, in float32."""
    dtype = getattr(torch, dtype)
    tensors = [torch.tensor(x).to(dtype).requires_grad_() for x in arrays[group.rank()]]
    out = ring.ring_attention(*tensors, group=group, causal=causal, layout="zigzag")
    grads = torch.autograd.grad(out.float().square().sum(), tensors)
    assert all(x.dtype == dtype for x in (out, *grads))
    return [x.detach().float().numpy() for x in (out, *grads)]


def autocast(group, arrays):
    """Return the result under autocast, which computes in bfloat16, and that of bfloat16."""
    tensors = [torch.tensor(x, requires_grad=True) for x in arrays[group.rank()]]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = ring.ring_attention(*tensors, group=group)
    grads = torch.autograd.grad(out.float().sum(), tensors)
    assert all(x.dtype == torch.float32 for x in grads)
    plain = ring.ring_attention(*(x.detach().bfloat16() for x in tensors), group=group)
    return out.dtype == torch.bfloat16, torch.equal(out, plain)


def some(group, arrays, needing):
    """Return the gradients where not all inputs require one."""
    tensors = [
        torch.tensor(x, requires_grad=name in needing)
        for name, x in zip(("query", "key", "value"), arrays[group.rank()], strict=True)
    ]
    out = ring.ring_attention(*tensors, group=group, causal=True)
    if needing == ("query", "value"):  # out may go unused where its statistics do not
        _, stats = ring.ring_attention(*tensors, group=group, causal=True, return_stats=True)
        unused = torch.autograd.grad(stats.entropy.sum(), tensors[::2])
        assert unused[0].any()
        assert not unused[1].any()
    if needing:
        out.square().sum().backward()
    with torch.no_grad():
        assert torch.equal(ring.ring_attention(*tensors, group=group, causal=True), out)
    with torch.inference_mode():
        assert torch.equal(ring.ring_attention(*tensors, group=group, causal=True), out)
    return [None if x.grad is None else x.grad.numpy() for x in tensors]


def second_derivative(group, arrays):
    tensors = [torch.tensor(x, requires_grad=True) for x in arrays[group.rank()]]
    out = ring.ring_attention(*tensors, group=group)
    (grad,) = torch.autograd.grad(out.square().sum(), tensors[0], create_graph=True)
    grad.sum().backward()


def compiled(group, arrays):
    """Tell whether a compiled function that calls the ring gives what it gives otherwise."""
    tensors = [torch.tensor(x, requires_grad=True) for x in arrays[group.rank()]]

    def run(*tensors):
        return ring.ring_attention(*(x * 2 for x in tensors), causal=True, group=group).sum()

    # What torch itself warns of while it compiles is not looked at here.
    with warnings.catch_warnings(action="ignore"):
        total = torch.compile(run, backend="eager")(*tensors)
        grads = torch.autograd.grad(total, tensors)
    expected = run(*tensors)
    wanted = torch.autograd.grad(expected, tensors)
    return torch.equal(total, expected) and all(map(torch.equal, grads, wanted))


def cut_and_join(group, length, layout):
    """Return this rank's positions, whether joining undoes the cut, and the gradient of both."""
    x = torch.arange(2.0 * length).reshape(2, length, 1).requires_grad_()
    own = ring.shard(x, layout=layout, group=group)
    whole = ring.unshard(own, layout=layout, group=group)
    (grad,) = torch.autograd.grad((whole * x.detach()).sum(), x)
    positions = ring.shard(torch.arange(length), dim=0, layout=layout, group=group)
    return positions.numpy(), torch.equal(whole, x), grad.numpy()


def project(group, arrays, n_components, law, dtype=None):
    """Return the projection of features that are spread over the ranks, and a gradient."""
    x = torch.tensor(arrays[group.rank()])
    if dtype is not None:
        x = x.to(getattr(torch, dtype))
    if not x.is_floating_point():
        return ring.project(x, n_components, group=group, **law).numpy(), None
    x.requires_grad_()
    y = ring.project(x, n_components, group=group, **law)
    (grad,) = torch.autograd.grad(y.square().sum() / 2, x)
    return y.detach().double().numpy(), grad.double().numpy()


def gloo_sums(group, size):
    """Return the sum of tensors over the ranks, and those tensors."""
    generator = torch.Generator().manual_seed(group.rank())
    x = torch.randn(size, generator=generator)
    return ring._projection.Peers("project", group).sum(x).numpy(), x.numpy()


def fail(group, error):
    """Have rank 1 raise an error while the ranks agree."""

    def check():
        if group.rank() == 1:
            raise error
        return {}, None

    ring._projection.Peers("project", group).agree(check)


def no_backend(group):
    """Call with a group that has no backend for the CPU."""
    other = dist.new_group(list(range(group.size())), backend="cuda:gloo")
    x = torch.ones(1, 1, 2, 4)
    return ring.ring_attention(x, x, x, group=other)


def some_of_the_processes(group, x):
    """Attend on ranks 1 and 3, and put the result together there; the others are no members."""
    pair = dist.new_group([1, 3])
    own = (
        x if pair == dist.GroupMember.NON_GROUP_MEMBER else ring.shard(torch.tensor(x), group=pair)
    )
    out = ring.ring_attention(own, own, own, causal=True, group=pair)
    return ring.unshard(out, group=pair).numpy()


def lose(group, what, who, how, timeout):
    """Have one rank die, or sleep, in the middle of a call; what the others raise, and when."""
    group = dist.new_group(timeout=timedelta(seconds=timeout))
    # Which call of which function the rank does not survive: of attention that of the second shard.
    owner, name, last = {
        "agreement": (dist, "all_gather_object", 1),
        "forward": (_passes, "part_of", 2),
        "backward": (_passes._attention_ops, "attention_backward", 2),
        "unshard": (dist, "broadcast", 1),
        "project": (dist, "all_to_all_single", 1),
    }[what]
    function, calls = getattr(owner, name), 0

    def guarded(*args, **kwargs):
        nonlocal calls
        calls += 1
        if group.rank() == who and calls == last:
            if how == "dies":
                os._exit(1)
            time.sleep(600)
        return function(*args, **kwargs)

    setattr(owner, name, guarded)
    x = torch.ones(1, 2, 16, 4, requires_grad=True)
    start = time.monotonic()
    try:
        if what == "unshard":
            ring.unshard(x, group=group)
        elif what == "project":
            ring.project(x, 4, group=group)
        else:
            ring.ring_attention(x, x, x, group=group).sum().backward()
    except RuntimeError as error:
        return str(error), time.monotonic() - start
    return "nothing", time.monotonic() - start


def draw(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)
