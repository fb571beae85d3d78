"""Operators of attention under opcheck, torch.compile and torch.export."""

from __future__ import annotations

import pytest

from slipstick.scales import LogN, SSMax

pytest.importorskip("torch")
import torch

from slipstick.torch import SSMaxScale, attention
from torch_inputs import BOOL_MASK, F64, OPTIONS, draw, inputs

ATTENTION = torch.ops.slipstick.attention.default
WITH_STATS = torch.ops.slipstick.attention_with_stats.default
BACKWARD = torch.ops.slipstick.attention_backward.default


CASES = {
    "plain": (),
    "causal": (True,),
    "tensor": (False, None, "given", [], draw(4, 1, seed=5).requires_grad_()),
    "learned": (True, None, "learned", [], draw(4, 2, seed=5).requires_grad_()),
    "mask": (False, 0.3, "LogN", [512.0], None, BOOL_MASK, 3, -1, torch.tensor([7, 3]), 2.0),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("op", [ATTENTION, WITH_STATS], ids=str)
def test_opcheck(op, name):
    torch.library.opcheck(op, (*inputs(grad=True), *CASES[name]))


@pytest.mark.parametrize("name", CASES)
def test_opcheck_backward(name):
    arrays = inputs()
    options = [x.detach() if isinstance(x, torch.Tensor) else x for x in CASES[name]]
    out, lse, entropy, _ = WITH_STATS(*arrays, *options)
    rows = (torch.ones_like(out), *arrays, out, lse, entropy)
    torch.library.opcheck(BACKWARD, (*rows, None, torch.ones_like(entropy), *options))


@pytest.mark.parametrize(
    ("name", "dynamic"),
    [("causal", False), ("SSMax a head", True), ("everything", True), ("tensor", True)],
)
def test_compiled(name, dynamic):
    options = OPTIONS[name]
    torch._dynamo.reset()

    @torch.compile(fullgraph=True, dynamic=dynamic, backend="aot_eager")
    def run(query, key, value):
        out, stats = attention(query * 2, key, value, return_stats=True, **options)
        return attention(query, key, value, **options) + out, stats.lse

    arrays = inputs(grad=True)
    out, lse = run(*arrays)
    grads = torch.autograd.grad(out.sum() + lse.sum(), arrays)
    with torch._dynamo.config.patch(disable=True):
        want, want_lse = run(*arrays)
        expected = torch.autograd.grad(want.sum() + want_lse.sum(), arrays)
    assert torch.equal(out, want)
    assert torch.equal(lse, want_lse)
    for one, other in zip(grads, expected, strict=True):
        assert torch.equal(one, other)


def test_compiled_with_learned_scale_and_open_sizes():
    torch._dynamo.reset()
    scale = SSMaxScale(0.3, heads=4, dtype=F64)
    compiled = torch.compile(
        lambda q, k, v: (
            attention(q, k, v, scale=scale, causal=True)
            + attention(q, k, v, scale=q.shape[-1] ** -0.5, n_keys=k.shape[-2])
            + attention(q, k, v, scale=LogN(100))
        ),
        fullgraph=True,
        dynamic=True,
        backend="aot_eager",
    )
    for sizes in ((5, 7), (8, 9), (1, 12)):
        arrays = inputs(grad=True, queries=sizes[0], keys=sizes[1])
        out = compiled(*arrays)
        with torch._dynamo.config.patch(disable=True):
            assert torch.equal(out, compiled(*arrays))
        out.sum().backward()
    assert scale.s.grad.abs().min() > 0


class Attention(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = SSMaxScale(0.3, heads=4, dtype=F64)

    def forward(self, query, key, value):
        out = attention(query, key, value, scale=self.scale, causal=True)
        return out + attention(query, key, value, scale=SCALE, window=(3, 0))


SCALE = SSMax([0.1, 0.2, 0.3, 0.4])


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
@pytest.mark.parametrize("strict", [False, True])
def test_export(strict):
    batch, queries, keys = (torch.export.Dim(name) for name in ("batch", "queries", "keys"))
    of_keys = {0: batch, 2: keys}
    model = Attention()
    program = torch.export.export(
        model,
        inputs(),
        dynamic_shapes=({0: batch, 2: queries}, of_keys, of_keys),
        strict=strict,
    )
    assert "slipstick.attention" in str(program.graph)
    arrays = draw(3, 4, 9, 6, seed=1), draw(3, 2, 12, 6, seed=2), draw(3, 2, 12, 3, seed=3)
    assert torch.equal(program.module()(*arrays), model(*arrays))
    decomposed = program.run_decompositions()
    assert torch.equal(decomposed.module()(*arrays), model(*arrays))
