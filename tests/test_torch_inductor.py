"""torch.compile with its own backend, which writes C++ for what lies between the operators."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
import torch

from slipstick.torch import SSMaxScale, attention, mitchell_linear
from torch_inputs import draw, inputs


# Of torch's own modules, at their import.
@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
def test_a_layer_of_everything_with_open_sizes():
    torch._dynamo.reset()
    scale = SSMaxScale(0.3, heads=4)
    weight = draw(2, 3, dtype=torch.float32, seed=8, grad=True)

    def layer(query, key, value):
        out = attention(query * 2, key, value, scale=scale, causal=True)
        return torch.relu(mitchell_linear(out, weight, method="drum")) + query.shape[-2]

    compiled = torch.compile(layer, fullgraph=True, dynamic=True)
    for queries, keys in ((5, 7), (8, 9)):
        arrays = inputs(torch.float32, grad=True, queries=queries, keys=keys)
        leaves = [*arrays, weight, scale.s]
        out = compiled(*arrays)
        want = layer(*arrays)
        assert torch.equal(out, want)
        got = torch.autograd.grad(out.sum(), leaves)
        for one, other in zip(got, torch.autograd.grad(want.sum(), leaves), strict=True):
            torch.testing.assert_close(one, other)
