"""Tensors, options and models that the tests of `slipstick.torch` share."""

from __future__ import annotations

import numpy as np
import torch

from slipstick.mitchell import Table
from slipstick.scales import ClippedLogN, LogN, SSMax, Su, Temperature
from slipstick.torch import MitchellConv2d, MitchellLinear, project

F64 = torch.float64


def draw(*shape, dtype=F64, seed=0, grad=False):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=F64).to(dtype)
    return x.requires_grad_(grad)


def powers(*shape, seed=0, grad=False):
    """Powers of two, whose products are exact, with signs."""
    generator = torch.Generator().manual_seed(seed)
    exponents = torch.randint(-2, 3, shape, generator=generator).double()
    signs = torch.randint(0, 2, shape, generator=generator) * 2 - 1
    return (2.0**exponents * signs).requires_grad_(grad)


def inputs(dtype=F64, grad=False, queries=5, keys=7):
    """2 sequences, 4 heads over 2 key heads."""
    return (
        draw(2, 4, queries, 6, dtype=dtype, seed=1, grad=grad),
        draw(2, 2, keys, 6, dtype=dtype, seed=2, grad=grad),
        draw(2, 2, keys, 3, dtype=dtype, seed=3, grad=grad),
    )


BOOL_MASK = draw(2, 1, 5, 7, seed=4) > -0.5
OPTIONS = {
    "default": {},
    "causal": {"causal": True},
    "number": {"scale": 0.4},
    "int": {"scale": 1},
    "NumPy number": {"scale": np.int64(1)},
    "tensor": {"scale": draw(2, 4, 5, seed=5)},
    "tensor of a head": {"scale": draw(4, 1, seed=5), "causal": True},
    "base": {"scale": LogN(100)},
    "Su": {"scale": Su(2.0), "causal": True},
    "ClippedLogN": {"scale": ClippedLogN(4)},
    "SSMax": {"scale": SSMax(0.3), "causal": True},
    "SSMax a head": {"scale": SSMax([0.3, 0.2, -0.1, 1.0], b=0.1)},
    "SSMax b a head": {"scale": SSMax(0.3, b=[0.3, 0.2, -0.1, 1.0])},
    "Temperature": {"scale": Temperature(0.3, 2, offset=1)},
    "window": {"window": (2, None)},
    "lengths": {"key_lengths": torch.tensor([7, 3])},
    "length": {"key_lengths": 4},
    "list of lengths": {"key_lengths": [7, 3], "causal": True},
    "bool mask": {"mask": BOOL_MASK},
    "float mask": {"mask": draw(5, 7, seed=6), "softcap": 2.0},
    "n_keys": {"n_keys": 100},
    "n_keys a row": {"n_keys": torch.arange(10).reshape(2, 5) + 1, "window": (1, 1)},
    "everything": {
        "scale": SSMax(0.4),
        "causal": True,
        "window": (3, 3),
        "key_lengths": torch.tensor([7, 5]),
        "mask": BOOL_MASK,
        "softcap": 3,
        "n_keys": 50,
    },
}

# Multiplies 7-bit mantissas, which bfloat16 has, exactly but for rounding down.
BYTES = np.add.outer(np.arange(16), np.arange(16)).astype(np.uint8)
TABLE = Table(((BYTES % 16) | np.where(BYTES > 15, 128, 0)).astype(np.uint8))


class Network(torch.nn.Module):
    """A small network of everything."""

    def __init__(self, method="mitchell", gradient="straight-through"):
        super().__init__()
        choices = {"method": method, "gradient": gradient}
        self.conv = MitchellConv2d(1, 4, 3, stride=2, padding=1, padding_mode="circular", **choices)
        self.linear = MitchellLinear(16, 3, **choices)

    def forward(self, x):
        x = torch.relu(self.conv(x)).flatten(1)
        return self.linear(project(x, 16, kind="sjlt"))
