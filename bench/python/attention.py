"""Attention beside its peers on the CPU: torch, onnxruntime, OpenVINO, zentorch and jax.

    python bench/python/attention.py [--only SUBSTRING] [--rounds N] [--list] [--json FILE]

Needs torch, ml_dtypes and threadpoolctl; the other peers take part where they are installed
(onnxruntime with onnx). A forward pass counts 4 batch heads queries keys dim operations, forward
and backward together 14, a causal one half of that; packed sequences count each its own; decoding
counts the bytes of keys and values. Conversions into a peer's own layout are not timed.
"multiply-add peak" and "read" are what the machine gives at best, measured in the same run; peak
memory is what one call takes beyond its inputs.
"""

from __future__ import annotations

import os

# Before the imports that start OpenMP: its threads wait asleep, not spinning.
os.environ["OMP_WAIT_POLICY"] = "passive"

import itertools
import math
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from attention_peers import FORWARD, add_peer, sdpa, torch_forward_backward
from contest import Contender, Quantity, Task, main, random, tensor

import slipstick
from slipstick import _cpu, mitchell
from slipstick._arrays import framework_of
from slipstick.scales import LogN

DTYPES = ("float32", "bfloat16")


def peak() -> Contender:
    """The same number of operations as a matrix product in the second cache, by our exact tile."""
    a = random("float32", 240, 240)
    native = mitchell.Mitchell()._native
    out = np.empty((240, 240), np.float32)
    call = partial(_cpu.matmul, a, a, native, 1.0, out, framework_of("bench", a).empty, "exact")
    return Contender(call, peer=False)


def heads_for(length: int) -> int:
    """Sixteen thousand tokens or so, in 64 heads at the most."""
    return max(1, min(64, 16384 // length))


def kind(causal: bool) -> str:
    return "causal" if causal else "full"


def forward_tasks() -> Iterator[Task]:
    def make(dtype: str, length: int, dim: int, causal: bool) -> dict[str, Contender]:
        shape = (1, heads_for(length), length, dim)
        arrays = tuple(random(dtype, *shape, seed=i) for i in range(3))
        out = np.empty_like(arrays[0])
        own = partial(slipstick.attention, *arrays, causal=causal, out=out)
        contenders = {"slipstick": Contender(own, peer=False)}
        for name, peer in FORWARD.items():
            add_peer(contenders, name, peer, arrays, causal)
        return contenders

    for dtype, dim, length, causal in itertools.product(
        DTYPES, (64, 128), (128, 512, 1024, 2048, 4096, 8192), (False, True)
    ):
        work = 4 * heads_for(length) * length**2 * dim / (2 if causal else 1)
        name = f"attention {dtype} d{dim} N{length} {kind(causal)}"
        yield Task(name, work, "FLOP", partial(make, dtype, length, dim, causal))


def backward_tasks() -> Iterator[Task]:
    """Forward and backward, as in training: the statistics go from one to the other."""

    def make(dtype: str, length: int, dim: int, causal: bool) -> dict[str, Contender]:
        shape = (1, heads_for(length), length, dim)
        *inputs, grad = arrays = tuple(random(dtype, *shape, seed=i) for i in range(4))
        out = np.empty_like(grad)

        def own() -> Any:
            _, stats = slipstick.attention(*inputs, causal=causal, return_stats=True, out=out)
            return slipstick.attention_backward(grad, *inputs, out, stats, causal=causal)

        contenders = {"slipstick": Contender(own, peer=False)}
        add_peer(contenders, "torch", torch_forward_backward, arrays, causal)
        return contenders

    for dtype, (dim, length), causal in itertools.product(
        DTYPES, ((64, 512), (64, 2048), (128, 2048)), (False, True)
    ):
        work = 14 * heads_for(length) * length**2 * dim / (2 if causal else 1)
        name = f"forward + backward {dtype} d{dim} N{length} {kind(causal)}"
        yield Task(name, work, "FLOP", partial(make, dtype, length, dim, causal))


def varlen_tasks() -> Iterator[Task]:
    """Packed sequences: equal ones beside the batch of the same memory, others beside a loop."""
    heads, dim = 8, 64

    def make(dtype: str, lengths: tuple[int, ...], causal: bool) -> dict[str, Contender]:
        bounds = np.cumsum([0, *lengths])
        arrays = [random(dtype, bounds[-1], heads, dim, seed=i) for i in range(3)]
        out = np.empty_like(arrays[0])
        packed = partial(slipstick.attention_varlen, *arrays, bounds, bounds, out=out)
        contenders = {"slipstick": Contender(partial(packed, causal=causal), peer=False)}
        if len(set(lengths)) == 1:
            whole = (len(lengths), lengths[0], heads, dim)
            views = [x.reshape(whole).swapaxes(1, 2) for x in (*arrays, np.empty_like(out))]
            batch = partial(slipstick.attention, *views[:3], causal=causal, out=views[3])
            contenders["batch"] = Contender(batch)
        else:
            tokens = [tensor(array).split(lengths) for array in arrays]
            parts = [[x.transpose(0, 1)[None] for x in one] for one in zip(*tokens, strict=True)]
            contenders["torch, a loop"] = Contender(lambda: [sdpa(*x, causal) for x in parts])
        return contenders

    for dtype, lengths, causal in itertools.product(
        DTYPES, ((512,) * 8, (1500, 30, 700, 1, 64, 1000, 300, 501)), (False, True)
    ):
        work = sum(4 * heads * n**2 * dim / (2 if causal else 1) for n in lengths)
        equal = "equal" if len(set(lengths)) == 1 else "unequal"
        name = f"varlen {dtype} d64, 8 {equal} sequences, {sum(lengths)} tokens, {kind(causal)}"
        yield Task(name, work, "FLOP", partial(make, dtype, lengths, causal))


def decode_tasks() -> Iterator[Task]:
    def make(dtype: str, batch: int, heads: int, kv_heads: int) -> dict[str, Contender]:
        query = random(dtype, batch, heads, 1, 128)
        key, value = (random(dtype, batch, kv_heads, 4096, 128, seed=i) for i in (1, 2))
        both = np.concatenate([x.reshape(-1).view(np.uint8) for x in (key, value)])
        words = torch.from_numpy(both).view(torch.int64)
        tensors = tuple(map(tensor, (query, key, value)))
        return {
            "slipstick": Contender(partial(slipstick.attention, query, key, value), peer=False),
            "torch": Contender(partial(sdpa, *tensors, False)),
            "read": Contender(partial(torch.sum, words), peer=False),
        }

    for dtype in DTYPES:
        for batch, heads, kv_heads in ((8, 32, 8), (1, 32, 8), (1, 1, 1)):
            item = 4 if dtype == "float32" else 2
            work = 2 * batch * kv_heads * 4096 * 128 * item
            name = f"decode {dtype} batch {batch} heads {heads}/{kv_heads} N4096 d128"
            yield Task(name, work, "B", partial(make, dtype, batch, heads, kv_heads))


def option_tasks() -> Iterator[Task]:
    """What statistics and the scale cost, beside the same call without."""

    def make(first: dict[str, Any]) -> dict[str, Contender]:
        arrays = [random("float32", 1, 8, 2048, 64, seed=i) for i in range(3)]
        call = partial(slipstick.attention, *arrays)
        return {
            "slipstick": Contender(partial(call, **first), peer=False),
            "without": Contender(partial(call, scale=1 / math.sqrt(64))),
        }

    work = 4 * 8 * 2048**2 * 64
    plain = {"scale": 1 / math.sqrt(64)}
    for name, options in (
        ("statistics", plain | {"return_stats": True}),
        ("LogN", {"scale": LogN()}),
    ):
        yield Task(f"attention float32 d64 N2048, {name}", work, "FLOP", partial(make, options))


def small_tasks() -> Iterator[Task]:
    def make(*shape: int) -> dict[str, Contender]:
        arrays = tuple(random("float32", *shape, seed=i) for i in range(3))
        return {
            "slipstick": Contender(partial(slipstick.attention, *arrays), peer=False),
            "torch": Contender(partial(sdpa, *map(tensor, arrays), False)),
        }

    for shape in ((32, 12, 128, 64), (1, 1, 16, 32)):
        work = 4 * shape[0] * shape[1] * shape[2] ** 2 * shape[3]
        yield Task(f"attention float32 {shape}", work, "FLOP", partial(make, *shape))


def peak_tasks() -> Iterator[Task]:
    yield Task("multiply-add peak", 2 * 240**3, "FLOP", lambda: {"slipstick exact": peak()})


# Not ru_maxrss: a child's starts at what its parent had.
MEMORY = """
import re
from pathlib import Path
import numpy as np
import slipstick

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

arrays = np.random.default_rng(0).standard_normal((3, 65536, 64), dtype=np.float32)
slipstick.attention(*arrays[:, :64], return_stats=True)
before = peak()
slipstick.attention(*arrays, return_stats=True)
print((peak() - before) / 1024)
"""


def peak_memory() -> float:
    """MiB beyond the inputs, in a process of its own; the result of 16 MiB is among them."""
    run = [sys.executable, "-c", MEMORY]
    return float(subprocess.run(run, check=True, capture_output=True, text=True).stdout)


def tasks() -> Iterator[Task | Quantity]:
    yield from peak_tasks()
    yield from forward_tasks()
    yield from backward_tasks()
    yield from varlen_tasks()
    yield from decode_tasks()
    yield from option_tasks()
    yield from small_tasks()
    yield Quantity("peak memory float32 d64 N65536, one head", "MiB", peak_memory)


if __name__ == "__main__":
    main(__doc__, tasks, packages=("onnxruntime", "openvino", "zentorch", "jax"))
