"""`slipstick.torch.project`: values and derivatives of any order."""

from __future__ import annotations

import pytest

from slipstick import projection

pytest.importorskip("torch")
import torch

from slipstick.torch import project
from torch_inputs import draw

LAWS = [
    {},
    {"kind": "gaussian", "seed": 2**64 - 1, "first_feature": 2**64 - 50},
    {"kind": "sparse"},
    {"kind": "sparse", "density": 0.2, "first_feature": 3},
    {"kind": "srht", "seed": 2**63},
    {"kind": "sjlt", "density": 2 / 16},
    {"kind": "countsketch"},
]


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_project(law):
    x = draw(3, 2, 50, seed=1, grad=True)
    out = project(x, 16, **law)
    with torch.no_grad():
        assert torch.equal(out, projection.project(x, 16, **law))
    upstream = draw(3, 2, 16, seed=2)
    (grad,) = torch.autograd.grad(out, x, upstream)
    assert torch.equal(grad, projection.back_project(upstream, 50, **law))
    assert torch.autograd.gradcheck(lambda x: project(x, 16, **law), x, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x: project(x, 16, **law), x, fast_mode=True)
    assert torch.equal(torch.func.vmap(lambda row: project(row, 16, **law), 1, 1)(x), out)


def test_project_other_dtypes():
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.int16, torch.bool):
        x = (draw(4, 30) * 3).to(dtype)
        assert torch.equal(project(x, 8), projection.project(x, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert project(draw(4, 30, dtype=torch.float32), 8).dtype == torch.bfloat16
