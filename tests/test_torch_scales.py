"""Scales with parameters: `LogNScale` and `SSMaxScale`."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from slipstick.scales import LogN, SSMax

pytest.importorskip("torch")
import torch

from slipstick.torch import LogNScale, SSMaxScale, attention
from torch_inputs import F64, draw, inputs


@pytest.mark.parametrize("heads", [None, 4])
@pytest.mark.parametrize("kind", ["LogN", "SSMax", "SSMax with b"])
def test_learnable_scales(kind, heads):
    """Values are those of the law with the parameters' numbers, gradients those of its formula."""
    if kind == "LogN":
        scale = LogNScale(100, heads, dtype=F64)
        law = SSMax(np.full(heads or 1, 1 / np.log(100)))
    else:
        b = 0.2 if kind == "SSMax with b" else None
        scale = SSMaxScale(0.3, b, heads, dtype=F64)
        law = SSMax(0.3, b or 0.0)
    arrays = inputs(grad=True)
    out = attention(*arrays, scale=scale, causal=True)
    torch.testing.assert_close(out, attention(*arrays, scale=law, causal=True), rtol=1e-14, atol=0)
    n = torch.tensor([3, 4, 5, 6, 7])  # what 5 causal queries of 7 keys see

    def by_hand():
        factor = scale(n, dim=6)
        return attention(*arrays, scale=factor.expand(2, 4, 5) if heads else factor, causal=True)

    upstream = draw(2, 4, 5, 3, seed=9)
    leaves = [*scale.parameters(), *arrays]
    assert all(p.shape == (() if heads is None else (heads,)) for p in scale.parameters())
    got = torch.autograd.grad(out, leaves, upstream)
    want = torch.autograd.grad(by_hand(), leaves, upstream)
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("module", "law"),
    [
        (LogNScale(100, dtype=F64), LogN(100)),
        (SSMaxScale(0.3, 0.1, dtype=F64), SSMax(0.3, 0.1)),
        (SSMaxScale(0.3, heads=2, dtype=F64), SSMax([0.3, 0.3])),
    ],
    ids=["LogN", "SSMax", "SSMax a head"],
)
@pytest.mark.parametrize("dim", [None, 16])
def test_factor(module, law, dim):
    n = torch.tensor([[0, 1, 2, 1000]])
    expected = law.factor(n.numpy(), dim=dim)
    np.testing.assert_allclose(module(n, dim=dim).detach().numpy(), expected, rtol=1e-14)


def test_scales_are_modules():
    for scale in (LogNScale(100, heads=3), SSMaxScale(0.3, 0.1), SSMaxScale()):
        state = scale.state_dict()
        for other in (copy.deepcopy(scale), pickle.loads(pickle.dumps(scale))):
            assert all(torch.equal(x, state[name]) for name, x in other.state_dict().items())
            assert repr(other) == repr(scale)
        with torch.no_grad():
            for parameter in scale.parameters():
                parameter.add_(1)
        other.load_state_dict(scale.state_dict())
        assert torch.equal(other(torch.tensor(7)), scale(torch.tensor(7)))


def test_a_scale_learns():
    query, key, value = inputs(torch.float32)
    scale = SSMaxScale(0.1)
    optimizer = torch.optim.SGD(scale.parameters(), lr=0.5)
    losses = []
    for _ in range(10):
        _, stats = attention(query, key, value, scale=scale, return_stats=True)
        loss = stats.entropy.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.01


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: LogNScale(1), ValueError, "^LogN: `base` must be a finite number greater than 1"),
        (lambda: LogNScale("a"), TypeError, "^LogN: `base` must be"),
        (lambda: LogNScale(heads=0), ValueError, "^LogNScale: `heads` must be None or at least 1"),
        (lambda: LogNScale(heads=1.5), TypeError, "^LogNScale: `heads` must be None or an int"),
        (lambda: SSMaxScale([1, 2]), TypeError, "^SSMaxScale: `s` must be a finite number"),
        (lambda: SSMaxScale(float("nan")), ValueError, "^SSMax: `s` must be"),
        (lambda: SSMaxScale(1, "b"), TypeError, "^SSMaxScale: `b` must be a finite number"),
        (lambda: SSMaxScale(dtype=torch.int32), TypeError, "^SSMaxScale: `dtype` must be a float"),
        (
            lambda: LogNScale()(3),
            TypeError,
            "^LogNScale: `n` must be a tensor of integers, got int",
        ),
        (
            lambda: LogNScale()(torch.ones(2)),
            TypeError,
            "^LogNScale: `n` .*got dtype torch.float32",
        ),
        (lambda: LogNScale()(torch.tensor(2), dim=0), ValueError, "^LogNScale: `dim` must be None"),
    ],
)
def test_refusals_of_scales(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_parameter_that_diverged_is_named():
    scale = SSMaxScale()
    with torch.no_grad():
        scale.s.fill_(float("inf"))
    with pytest.raises(ValueError, match=r"^SSMax: `s` must be"):
        attention(*inputs(torch.float32), scale=scale)
