"""Attention on a CUDA device, beside torch's backends of SDPA and FlexAttention.

    python bench/python/cuda_attention.py [--only SUBSTRING] [--rounds N] [--list] [--json FILE]

Needs a build of slipstick with CUDA, torch with CUDA, ml_dtypes and threadpoolctl; a peer that
this card or this torch has not takes no part. A forward pass counts 4 batch heads queries keys dim
operations, forward and backward together 14, a causal one half of that, as share of torch's
bfloat16 matmul; decoding counts the bytes of keys and values, as share of torch's copy. "log n" is
the factor ln n / (ln 512 sqrt(dim)) of each row: slipstick counts n, the peers multiply the queries
by it in bfloat16 before the call, which is timed with it, or look it up in score_mod. "plain" is
1 / sqrt(dim). An error is the largest difference from float64 of what a contender gives for some
rows (gradients: of the queries there), of numbers of about 1.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import cuda_clock
import torch
from contest import Contender, Task, main
from cuda_attention_peers import Attention, peers, runs

import slipstick
from slipstick.scales import LogN
from slipstick.torch import SSMaxScale, attention

LENGTHS = (512, 1024, 2048, 4096, 8192, 16384, 32768)
TOKENS = 16384  # in a batch, at least one sequence; in heads of 2048 columns together
ROWS = 64  # that an error is taken from


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    """Normal numbers on the device."""
    generator = torch.Generator("cuda").manual_seed(seed)
    return torch.randn(shape, generator=generator, device="cuda").to(dtype)


def shape_of(length: int, dim: int) -> tuple[int, int, int, int]:
    return max(1, TOKENS // length), 2048 // dim, length, dim


def factors_of(query: torch.Tensor, causal: bool) -> torch.Tensor:
    """lambda of every row, (heads, queries), as float32."""
    heads, tokens, dim = query.shape[1:]
    counts = torch.arange(1, tokens + 1) if causal else torch.full((tokens,), tokens)
    factors = torch.from_numpy(LogN().factor(counts.numpy(), dim=dim))
    return factors.float().expand(heads, tokens).contiguous().to(query.device)


def kind(causal: bool) -> str:
    return "causal" if causal else "full"


# --- Errors ---------------------------------------------------------------------------------------


def exact(arrays: Any, factors: Any, causal: bool, grad: Any = None) -> tuple[Any, Any]:
    """Some rows of the last head in float64: which, and their out, or their query's gradient."""
    query, key, value = (x[-1, -1].double() for x in arrays)
    rows = torch.linspace(0, len(query) - 1, min(ROWS, len(query)), device=query.device).long()
    query = query[rows].requires_grad_()
    rates = factors[-1, rows].double() if isinstance(factors, torch.Tensor) else factors
    scores = query @ key.T * (rates[:, None] if isinstance(rates, torch.Tensor) else rates)
    if causal:
        hidden = torch.arange(len(key), device=rows.device) > rows[:, None]
        scores = scores.masked_fill(hidden, -math.inf)
    out = scores.softmax(-1) @ value
    if grad is None:
        return rows, out.detach()
    return rows, torch.autograd.grad(out, query, grad[-1, -1, rows].double())[0]


def error_of(call: Callable[[], Any], rows: Any, right: Any) -> float:
    result = call()
    first = result[0] if isinstance(result, tuple) else result
    return float((first[-1, -1, rows].double() - right).abs().max())


def contenders_of(
    calls: dict[str, Callable[[], Any]], rows: Any, right: Any
) -> dict[str, Contender]:
    """Those calls that run here; the first is slipstick's."""
    own = next(iter(calls))
    return {
        name: Contender(call, peer=name != own, error=partial(error_of, call, rows, right))
        for name, call in calls.items()
        if name == own or runs(call)
    }


# --- Forward, forward and backward ----------------------------------------------------------------


def forward_tasks() -> Iterator[Task]:
    def make(law: str, length: int, dim: int, causal: bool) -> dict[str, Contender]:
        arrays = [random(*shape_of(length, dim), seed=i) for i in range(3)]
        scale: Any = LogN()
        factors: Any = factors_of(arrays[0], causal)
        narrow: Any = factors.bfloat16()
        if law == "plain":
            scale = factors = narrow = 1 / math.sqrt(dim)
        out = torch.empty_like(arrays[0])
        own = partial(slipstick.attention, *arrays, scale=scale, causal=causal, out=out)
        calls: dict[str, Callable[[], Any]] = {"slipstick": own}
        for name, peer in peers(causal).items():
            given = factors if name == "FlexAttention" else narrow
            calls[name] = partial(peer, *arrays, given)
        return contenders_of(calls, *exact(arrays, factors, causal))

    for law, dim, causal, length in itertools.product(
        ("plain", "log n"), (64, 128), (False, True), LENGTHS
    ):
        batch, heads, *_ = shape_of(length, dim)
        work = 4 * batch * heads * length**2 * dim / (2 if causal else 1)
        name = f"forward {law} d{dim} N{length} {kind(causal)}"
        yield Task(name, work, "FLOP", partial(make, law, length, dim, causal))


def gradients(call: Attention, arrays: Any, grad: Any, *more: Any) -> Any:
    """Forward and backward, as autograd runs them."""
    return torch.autograd.grad(call(*arrays, *more), [*arrays], grad)


def backward_tasks() -> Iterator[Task]:
    def make(law: str, length: int, dim: int, causal: bool) -> dict[str, Contender]:
        *arrays, grad = (random(*shape_of(length, dim), seed=i) for i in range(4))
        scale: Any = LogN()
        factors: Any = factors_of(arrays[0], causal)
        narrow: Any = factors.bfloat16()
        if law == "plain":
            scale = factors = narrow = 1 / math.sqrt(dim)
        where = exact(arrays, factors, causal, grad)
        arrays = [x.requires_grad_() for x in arrays]
        own = partial(attention, scale=scale, causal=causal)
        calls: dict[str, Callable[[], Any]] = {"slipstick": partial(gradients, own, arrays, grad)}
        for name, peer in peers(causal).items():
            given = factors if name == "FlexAttention" else narrow
            calls[name] = partial(gradients, peer, arrays, grad, given)
        return contenders_of(calls, *where)

    for law, dim, causal, length in itertools.product(
        ("plain", "log n"), (64, 128), (False, True), LENGTHS
    ):
        batch, heads, *_ = shape_of(length, dim)
        work = 14 * batch * heads * length**2 * dim / (2 if causal else 1)
        name = f"forward + backward {law} d{dim} N{length} {kind(causal)}"
        yield Task(name, work, "FLOP", partial(make, law, length, dim, causal))


def whole_tasks() -> Iterator[Task]:
    """A learned scale a head; slipstick gives the entropy and its gradient too."""

    def make(length: int, dim: int) -> dict[str, Contender]:
        *arrays, grad = (random(*shape_of(length, dim), seed=i) for i in range(4))
        scale = SSMaxScale(0.2, heads=arrays[0].shape[1], device=grad.device)
        counts = torch.arange(1, arrays[0].shape[2] + 1, device=grad.device)
        arrays = [x.requires_grad_() for x in arrays]

        def own() -> Any:
            out, stats = attention(*arrays, scale=scale, causal=True, return_stats=True)
            loss = (out * grad).sum() - 0.01 * stats.entropy.mean()
            return torch.autograd.grad(loss, [*arrays, scale.s])

        def theirs(peer: Attention, dtype: torch.dtype) -> Any:
            out = peer(*arrays, scale(counts, dim=dim).to(dtype))
            return torch.autograd.grad((out * grad).sum(), [*arrays, scale.s])

        contenders = {"slipstick, entropy too": Contender(own, peer=False)}
        for name, peer in peers(True).items():
            dtype = torch.float32 if name == "FlexAttention" else torch.bfloat16
            if runs(call := partial(theirs, peer, dtype)):
                contenders[name] = Contender(call)
        return contenders

    for dim, length in itertools.product((64, 128), (2048, 8192)):
        batch, heads, *_ = shape_of(length, dim)
        work = 14 * batch * heads * length**2 * dim / 2
        name = f"learned scale, forward + backward d{dim} N{length} causal"
        yield Task(name, work, "FLOP", partial(make, length, dim))


# --- Decoding, options, other dtypes --------------------------------------------------------------


def decode_tasks() -> Iterator[Task]:
    def make(batch: int, heads: int, kv_heads: int, length: int, dim: int) -> dict[str, Contender]:
        query = random(batch, heads, 1, dim)
        key, value = (random(batch, kv_heads, length, dim, seed=i) for i in (1, 2))
        factors = factors_of(key, False)[:1, :1].expand(heads, 1)
        own = partial(slipstick.attention, query, key, value, out=torch.empty_like(query))
        calls: dict[str, Callable[[], Any]] = {"slipstick": own}
        for name, peer in peers(False).items():
            wide = factors.contiguous() if name == "FlexAttention" else factors.bfloat16()
            calls[name] = partial(peer, query, key, value, wide)
        right = exact((query, key, value), factors, False)
        contenders = contenders_of(calls, *right)
        half = (key.nbytes + value.nbytes) // 2
        source, target = torch.zeros((2, half), dtype=torch.uint8, device=key.device)
        contenders["torch copy"] = Contender(partial(target.copy_, source), peer=False)
        return contenders

    for batch, heads, kv_heads, length, dim in (
        (64, 32, 8, 4096, 128),
        (8, 32, 8, 32768, 128),
        (1, 32, 8, 131072, 128),
        (64, 32, 32, 2048, 64),
        (1, 32, 8, 4096, 128),
        (256, 16, 1, 4096, 128),
    ):
        work = 2 * batch * kv_heads * length * dim * 2
        name = f"decode batch {batch} heads {heads}/{kv_heads} N{length} d{dim}"
        yield Task(name, work, "B", partial(make, batch, heads, kv_heads, length, dim))


def option_tasks() -> Iterator[Task]:
    """What an option costs: slipstick with it, beside slipstick without."""

    def make(dim: int, causal: bool, backward: bool, name: str) -> dict[str, Contender]:
        *arrays, grad = (random(*shape_of(8192, dim), seed=i) for i in range(4))
        plain = 1 / math.sqrt(dim)
        option = {
            "log n": {"scale": LogN()},
            "a factor a row": {"scale": factors_of(arrays[0], causal)},
            "entropy": {"scale": plain, "return_stats": True},
        }[name]
        if not backward:
            call = partial(slipstick.attention, *arrays, causal=causal)
            return {
                f"with {name}": Contender(partial(call, **option), peer=False),
                "without": Contender(partial(call, scale=plain)),
            }
        out, stats = slipstick.attention(*arrays, scale=plain, causal=causal, return_stats=True)
        call = partial(slipstick.attention_backward, grad, *arrays, out, stats, causal=causal)
        if name == "entropy":
            option = {"scale": plain, "grad_entropy": torch.ones_like(stats.entropy)}
        return {
            f"with {name}": Contender(partial(call, **option), peer=False),
            "without": Contender(partial(call, scale=plain)),
        }

    for dim, causal, backward, name in itertools.product(
        (64, 128), (False, True), (False, True), ("log n", "a factor a row", "entropy")
    ):
        batch, heads, length, _ = shape_of(8192, dim)
        work = (10 if backward else 4) * batch * heads * length**2 * dim / (2 if causal else 1)
        title = f"{'backward' if backward else 'forward'} d{dim} N8192 {kind(causal)}, {name}"
        yield Task(title, work, "FLOP", partial(make, dim, causal, backward, name))


def other_tasks() -> Iterator[Task]:
    """Other dtypes, and packed sequences beside a batch of the same tokens."""

    def make(dtype: torch.dtype, dim: int) -> dict[str, Contender]:
        arrays = [random(*shape_of(2048, dim), seed=i, dtype=dtype) for i in range(3)]
        plain = 1 / math.sqrt(dim)
        calls: dict[str, Callable[[], Any]] = {
            "slipstick": partial(slipstick.attention, *arrays, scale=plain)
        }
        for name, peer in peers(False).items():
            calls[name] = partial(peer, *arrays, plain)
        return contenders_of(calls, *exact(arrays, plain, False))

    for dtype, dim in itertools.product((torch.float16, torch.float32), (64, 128)):
        batch, heads, length, _ = shape_of(2048, dim)
        work = 4 * batch * heads * length**2 * dim
        name = f"forward {str(dtype)[6:]} d{dim} N2048 full"
        yield Task(name, work, "FLOP", partial(make, dtype, dim))

    def make_packed(dim: int, causal: bool) -> dict[str, Contender]:
        arrays = [random(*shape_of(2048, dim), seed=i) for i in range(3)]
        batch, heads, length, _ = arrays[0].shape
        packed = [x.transpose(1, 2).reshape(batch * length, heads, -1) for x in arrays]
        starts = length * torch.arange(batch + 1, dtype=torch.int32, device=packed[0].device)
        own = partial(slipstick.attention_varlen, *packed, starts, starts, causal=causal)
        other = partial(slipstick.attention, *arrays, causal=causal)
        return {"packed": Contender(own, peer=False), "a batch": Contender(other)}

    for dim, causal in itertools.product((64, 128), (False, True)):
        batch, heads, length, _ = shape_of(2048, dim)
        work = 4 * batch * heads * length**2 * dim / (2 if causal else 1)
        name = f"packed forward d{dim}, {batch} sequences of {length}, {kind(causal)}"
        yield Task(name, work, "FLOP", partial(make_packed, dim, causal))


def tasks() -> Iterator[Task]:
    yield from forward_tasks()
    yield from backward_tasks()
    yield from whole_tasks()
    yield from decode_tasks()
    yield from option_tasks()
    yield from other_tasks()


if __name__ == "__main__":
    main(__doc__, tasks, clock=cuda_clock.TENSOR_CORES)
