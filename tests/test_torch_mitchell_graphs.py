"""Operators of products and projections under opcheck, torch.compile, export, vmap and autocast."""

from __future__ import annotations

import pytest

from slipstick import mitchell
from slipstick.mitchell import DRUM

pytest.importorskip("torch")
import torch
from torch.nn import functional

from slipstick.torch import MitchellConv2d, mitchell_matmul
from torch_inputs import F64, TABLE, Network, draw

OPS = torch.ops.slipstick
CASES = {
    "matmul": (OPS.mitchell_matmul, (draw(2, 3, 4, grad=True), draw(4, 2, grad=True), "realm")),
    "matmul of a table": (OPS.mitchell_matmul, (draw(3, 4, grad=True), draw(4), "drum", "mimic")),
    "matmul backward": (
        OPS.mitchell_matmul_backward,
        (draw(3, 2), draw(3, 4), draw(4, 2), "mitchell", "exact", True),
    ),
    "conv2d": (
        OPS.mitchell_conv2d,
        (draw(2, 4, 5, 6, grad=True), draw(6, 2, 3, 2, grad=True), [2, 1], [1, 0], [1, 1], 2),
    ),
    "conv2d backward": (
        OPS.mitchell_conv2d_backward,
        (draw(2, 3, 4, 4), draw(2, 4, 5, 5), draw(3, 4, 2, 2), [1, 1], [0, 0], [1, 1], 1, "drum"),
    ),
    "project": (OPS.project, (draw(3, 20, grad=True), 5)),
    "back_project": (OPS.back_project, (draw(3, 5, grad=True), 20, "gaussian", 3)),
}


@pytest.mark.parametrize("name", CASES)
def test_opcheck(name):
    op, arguments = CASES[name]
    torch.library.opcheck(op.default, arguments)


@pytest.mark.parametrize("method", [DRUM(4), TABLE], ids=str)
def test_compiled(method):
    torch._dynamo.reset()
    model = Network(method)
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    for size in (2, 5):
        x = draw(size, 1, 8, 8, dtype=torch.float32)
        out = compiled(x)
        assert torch.equal(out, model(x))
        got = torch.autograd.grad(out.square().sum(), list(model.parameters()))
        want = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
        for one, other in zip(got, want, strict=True):
            assert torch.equal(one, other)


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_export():
    model = Network(DRUM(4)).eval()
    x = draw(2, 1, 8, 8, dtype=torch.float32)
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (x,), dynamic_shapes=({0: batch},))
    x = draw(5, 1, 8, 8, dtype=torch.float32, seed=1)
    assert torch.equal(program.module()(x), model(x))
    assert "DRUM(width=4)" in str(program.graph)


VMAPPED = [
    ((3, 4, 5), (3, 5, 2), (0, 0)),
    ((3, 5), (3, 5), (0, 0)),
    ((3, 5), (3, 2, 5, 4), (0, 0)),
    ((4, 3, 5), (5, 2), (1, None)),
    ((2, 4, 5), (5, 3), (None, 1)),
]


@pytest.mark.parametrize(("a", "b", "dims"), VMAPPED, ids=str)
def test_vmap(a, b, dims):
    a, b = draw(*a, seed=1), draw(*b, seed=2)

    def gradient(a, b):
        return torch.func.grad(lambda *x: mitchell_matmul(*x).square().sum(), (0, 1))(a, b)

    for function in (mitchell_matmul, gradient):
        got = torch.func.vmap(function, in_dims=dims)(a, b)
        for i in range(3):
            own = [x if d is None else x.select(d, i) for x, d in zip((a, b), dims, strict=True)]
            want = function(*own)
            if isinstance(want, torch.Tensor):
                assert torch.equal(got[i], want)
            else:
                assert all(torch.equal(x[i], y) for x, y in zip(got, want, strict=True))


def test_gradients_of_each_image():
    images, labels = draw(4, 1, 8, 8, dtype=torch.float32), torch.tensor([0, 2, 1, 1])
    model = Network()
    parameters = {name: x.detach() for name, x in model.named_parameters()}

    def loss(parameters, image, label):
        out = torch.func.functional_call(model, parameters, (image[None],))
        return functional.cross_entropy(out, label[None])

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(parameters, images, labels)
    for i in range(4):
        model.zero_grad()
        loss(dict(model.named_parameters()), images[i], labels[i]).backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(each[name][i], parameter.grad)


def test_autocast():
    a, b = draw(3, 4, dtype=torch.float32), draw(4, 5, dtype=torch.float32)
    layer = MitchellConv2d(1, 2, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = mitchell_matmul(a, b)
        assert layer(draw(1, 1, 4, 4, dtype=torch.float32)).dtype == torch.bfloat16
        assert mitchell_matmul(a.double(), b.double()).dtype == F64
    assert torch.equal(out, mitchell.matmul(a.bfloat16(), b.bfloat16()))
