"""`slipstick.distributed.project`: features that are spread over ranks."""

from __future__ import annotations

import numpy as np
import pytest

import slipstick

pytest.importorskip("torch")
import torch

import slipstick.torch
from distributed_ranks import draw, gloo_sums, project

WORLDS = [1, 2, 3, 4]
LAWS = [
    {"kind": "rademacher"},
    {"kind": "gaussian", "seed": 2**64 - 1},
    {"kind": "sparse"},
    {"kind": "sparse", "density": 1 / 3, "first_feature": 2**40},
    {"kind": "srht", "first_feature": 4096},
    {"kind": "sjlt", "density": 4 / 24},
    {"kind": "countsketch"},
]


@pytest.mark.parametrize("world", WORLDS)
def test_project(ranks, world):
    x = draw(5, 1003)
    widths = [1003] if world == 1 else np.split(np.arange(1003), [1, 400, 777][: world - 1])
    parts = [x] if world == 1 else [x[:, own] for own in widths]
    for law in LAWS:
        tensor = torch.tensor(x, requires_grad=True)
        expected = slipstick.torch.project(tensor, 24, **law)
        (grad,) = torch.autograd.grad(expected.square().sum() / 2, tensor)
        results = ranks.values(project, parts, 24, law, world=world)
        for got, _ in results:
            np.testing.assert_array_equal(got, results[0][0])
        # 1003 terms a sum, rounded in another order; entries of the matrix are below 7.
        bound = 1003 * np.finfo(np.float64).eps * 7 * np.abs(x).sum(1).max()
        np.testing.assert_allclose(results[0][0], expected.detach().numpy(), rtol=0, atol=bound)
        grads = np.concatenate([own for _, own in results], -1)
        np.testing.assert_allclose(grads, grad.numpy(), rtol=0, atol=7 * 24 * bound)


def test_project_dtypes(ranks):
    x = draw(5, 300) * 10
    parts = np.split(x, [10, 100], -1)
    for dtype in ("float32", "float16", "bfloat16", "int16"):
        tensor = torch.tensor(x).to(getattr(torch, dtype))
        wide = slipstick.torch.project(tensor.double(), 8).numpy()
        (got, _), *_ = ranks.values(project, parts, 8, {}, dtype, world=3)
        eps = np.finfo(np.float32).eps * 10
        if dtype.endswith("16") and dtype != "int16":
            eps += torch.finfo(getattr(torch, dtype)).eps / 2  # rounded once
        assert (np.abs(got - wide) <= eps * np.abs(wide).max()).all()
    vector = ranks.values(project, [part[0] for part in parts], 8, {}, world=3)
    np.testing.assert_allclose(vector[0][0], slipstick.projection.project(x[0], 8), atol=1e-12)


@pytest.mark.parametrize("size", [1, 3, 4, 1001])
def test_sums_are_taken_in_the_order_of_ranks(ranks, size):
    results = ranks.values(gloo_sums, size)
    wanted = results[0][1]
    for _, part in results[1:]:
        wanted = wanted + part
    for got, _ in results:
        np.testing.assert_array_equal(got, wanted)
