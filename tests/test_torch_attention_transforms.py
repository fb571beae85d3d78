"""`slipstick.torch.attention` under torch.func, vmap and autocast."""

from __future__ import annotations

import pytest

from slipstick.scales import SSMax

pytest.importorskip("torch")
import torch

from slipstick.torch import SSMaxScale, attention
from torch_inputs import BOOL_MASK, F64, draw, inputs


def test_func():
    query, key, value = inputs()

    def loss(*arrays):
        return attention(*arrays, causal=True).square().sum()

    leaves = [x.clone().requires_grad_() for x in (query, key, value)]
    expected = torch.autograd.grad(loss(*leaves), leaves)
    for one, other in zip(
        torch.func.grad(loss, argnums=(0, 1, 2))(query, key, value), expected, strict=True
    ):
        assert torch.equal(one, other)
    of_one = torch.func.grad(lambda q, k, v: attention(q, k, v).sum(), argnums=(0, 1, 2))
    whole = torch.func.grad(lambda q, k, v: attention(q, k, v).sum(), argnums=(0, 1, 2))
    for one, other in zip(
        torch.func.vmap(of_one)(query, key, value), whole(query, key, value), strict=True
    ):
        assert torch.equal(one, other)
    rows = torch.func.jacrev(lambda q: attention(q, key, value).sum((0, 1, 2)))(query)
    assert rows.shape == (3, *query.shape)
    scale = SSMaxScale(0.3, dtype=F64)

    def call(parameters):
        out = torch.func.functional_call(Attend(scale), parameters, (query, key, value))
        return out.sum()

    parameters = {"scale.s": scale.s.detach()}
    grads = torch.func.grad(call)(parameters)
    attention(query, key, value, scale=scale).sum().backward()
    assert torch.equal(grads["scale.s"], scale.s.grad)


class Attend(torch.nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, *arrays):
        return attention(*arrays, scale=self.scale)


VMAPPED = {
    "all": ((0, 0, 0), {}),
    "causal": ((0, 0, 0), {"causal": True, "window": (3, 1)}),
    "keys shared": ((1, None, None), {}),
    "shared mask": ((0, 0, 0), {"mask": BOOL_MASK[0, 0]}),
    "mask of a batch": ((0, None, 0), {"mask": BOOL_MASK}),
    "scale": ((0, 0, 0), {"scale": draw(4, 1, seed=5)}),
}


@pytest.mark.parametrize("name", VMAPPED)
@pytest.mark.parametrize("rank", [2, 3, 4])
def test_vmap(name, rank):
    dims, options = VMAPPED[name]
    if rank < 4:
        options = {x: y[0] if x == "mask" and y.ndim == 4 else y for x, y in options.items()}
        options = {x: y.squeeze() if x == "scale" else y for x, y in options.items()}
        options = {
            x: y[0] if x in "scale mask" and rank == 2 and y.ndim != 2 else y
            for x, y in options.items()
        }
    shapes = [(2, 4, 5, 6), (2, 4, 7, 6), (2, 4, 7, 3)]
    arrays = [
        draw(*((3, *shape[4 - rank :]) if dim is not None else shape[4 - rank :]), seed=i).movedim(
            0, dim or 0
        )
        for i, (shape, dim) in enumerate(zip(shapes, dims, strict=True))
    ]
    if "scale" in options and rank == 3:
        options = {"scale": options["scale"][:, None]}

    def run(*arrays):
        out, stats = attention(*arrays, return_stats=True, **options)
        return out, stats.entropy, attention(*arrays, **options)

    def gradient(*arrays):
        return torch.func.grad(lambda *x: run(*x)[0].square().sum() + run(*x)[1].sum(), (0, 1, 2))(
            *arrays
        )

    def element(i):
        return [x if dim is None else x.select(dim, i) for x, dim in zip(arrays, dims, strict=True)]

    for function in (run, gradient):
        got = torch.func.vmap(function, in_dims=dims)(*arrays)
        for i in range(3):
            for one, other in zip(got, function(*element(i)), strict=True):
                assert torch.equal(one[i], other)


def test_vmap_over_masks_and_scales():
    query, key, value = inputs()
    masks = draw(3, 5, 7, seed=8) > 0
    scales = draw(3, 4, 1, seed=9)
    got = torch.func.vmap(
        lambda mask, scale: attention(query, key, value, mask=mask, scale=scale), in_dims=(0, 0)
    )(masks, scales)
    for i in range(3):
        want = attention(query, key, value, mask=masks[i], scale=scales[i])
        assert torch.equal(got[i], want)
    nothing = torch.func.vmap(lambda mask: attention(query, key, value, mask=mask))(masks[:0])
    assert nothing.shape == (0, 2, 4, 5, 3)


def test_autocast():
    query, key, value = inputs(torch.float32, grad=True)
    scale = SSMaxScale(0.3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = attention(query, key, value, scale=scale)
        wide = attention(*(x.double() for x in (query, key, value)))
    assert wide.dtype == F64
    low = [x.detach().bfloat16() for x in (query, key, value)]
    assert torch.equal(out, attention(*low, scale=SSMax(scale.s.item())))
    out.float().sum().backward()
    assert query.grad.dtype == scale.s.grad.dtype == torch.float32
