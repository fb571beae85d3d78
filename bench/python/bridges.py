"""What the bridges to torch and transformers cost above the kernels, and a model beside its peers.

    python bench/python/bridges.py [--only SUBSTRING] [--rounds N] [--list] [--json FILE]

Needs torch, transformers, ml_dtypes and threadpoolctl. The operators compute attention of one
query over one key, so that the times are those of the calls. The encoder has the sizes of
all-MiniLM-L6-v2 and random weights, on which its time does not depend; no batch has padding.
"""

from __future__ import annotations

import os

# Before the imports that start OpenMP: its threads wait asleep, not spinning, and leave the cores
# to the threads of whoever computes next.
os.environ["OMP_WAIT_POLICY"] = "passive"

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import transformers
from contest import Contender, Task, main, random, tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import slipstick.torch
import slipstick.transformers

HEADS, DIM, LAYERS = 12, 32, 6


def inputs(batch: int, heads: int, length: int, dim: int) -> tuple[Any, ...]:
    return tuple(tensor(random("float32", batch, heads, length, dim, seed=i)) for i in range(3))


def operator_tasks() -> Iterator[Task]:
    def make(**options: Any) -> dict[str, Contender]:
        query, key, value = inputs(1, 1, 1, 8)
        calls: dict[str, Callable[[], object]] = {
            "slipstick.torch": partial(slipstick.torch.attention, query, key, value, **options),
            "slipstick": partial(slipstick.attention, query, key, value, **options),
        }
        if not options:
            operator = torch.ops.slipstick.attention.default
            calls["torch.ops.slipstick"] = partial(operator, query, key, value)
        return {name: Contender(call, peer=name == "slipstick") for name, call in calls.items()}

    mask = torch.ones(1, 1, dtype=torch.bool)
    for name, options in (
        ("attention", {}),
        ("attention, causal and a fixed scale", {"causal": True, "scale": 0.1}),
        ("attention, mask and window", {"mask": mask, "causal": True, "window": (1, 1)}),
        ("attention, statistics", {"return_stats": True}),
    ):
        yield Task(f"call: {name}", 1, "call", partial(make, **options), threads=1)


def gradient_tasks() -> Iterator[Task]:
    def make() -> dict[str, Contender]:
        query, key, value = inputs(1, 1, 1, 8)
        ones = torch.ones_like(query)
        leaves = [x.clone().requires_grad_() for x in (query, key, value)]

        def bare() -> object:
            out, stats = slipstick.attention(query, key, value, return_stats=True)
            return slipstick.attention_backward(ones, query, key, value, out, stats)

        def through(attention: Callable[..., Any]) -> object:
            return torch.autograd.grad(attention(*leaves), leaves, ones)

        sdpa = torch.nn.functional.scaled_dot_product_attention
        return {
            "slipstick.torch": Contender(partial(through, slipstick.torch.attention), peer=False),
            "slipstick": Contender(bare),
            "torch": Contender(partial(through, sdpa), peer=False),
        }

    yield Task("call: attention and its gradients", 1, "call", make, threads=1)


def hook_tasks() -> Iterator[Task]:
    def make(batch: int, length: int) -> dict[str, Contender]:
        # Transposed in memory, as a layer hands them over.
        query, key, value = (x.transpose(1, 2) for x in inputs(batch, length, HEADS, DIM))
        layer = torch.nn.Module()
        hook = partial(ALL_ATTENTION_FUNCTIONS["slipstick"], layer, query, key, value, None)
        scale = DIM**-0.5

        def operator() -> object:
            out = slipstick.torch.attention(query, key, value, scale=scale)
            return out.transpose(1, 2).contiguous()

        return {
            "hook": Contender(partial(hook, scaling=scale, is_causal=False), peer=False),
            "operator": Contender(operator),
        }

    for batch, length in ((1, 16), (1, 128), (8, 128)):
        name = f"hook: {batch} x {HEADS} x {length} x {DIM}"
        yield Task(name, 1, "call", partial(make, batch, length))


def model_tasks() -> Iterator[Task]:
    def make(batch: int, length: int) -> dict[str, Contender]:
        config = transformers.BertConfig(
            hidden_size=HEADS * DIM,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            intermediate_size=4 * HEADS * DIM,
        )
        ids = torch.arange(batch * length).reshape(batch, length) % config.vocab_size
        model = transformers.BertModel(config).eval()

        def forward(implementation: str) -> object:
            model.set_attn_implementation(implementation)
            with torch.no_grad():
                return model(input_ids=ids)

        names = ("slipstick", "sdpa", "eager")
        return {name: Contender(partial(forward, name), peer=name != "slipstick") for name in names}

    for batch, length in ((1, 16), (1, 128), (8, 128), (32, 256)):
        name = f"encoder of MiniLM's size, {batch} x {length}"
        yield Task(name, batch * length, "token", partial(make, batch, length))


def tasks() -> Iterator[Task]:
    slipstick.transformers.register()
    yield from operator_tasks()
    yield from gradient_tasks()
    yield from hook_tasks()
    yield from model_tasks()


if __name__ == "__main__":
    main(__doc__, tasks, ("transformers",))
