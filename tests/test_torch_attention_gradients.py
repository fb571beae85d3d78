"""Gradients of `slipstick.torch.attention`."""

from __future__ import annotations

import pytest

import slipstick

pytest.importorskip("torch")
import torch

from slipstick.torch import attention
from torch_inputs import OPTIONS, draw, inputs


@pytest.mark.parametrize("name", [name for name in OPTIONS if name != "everything"])
def test_gradcheck(name):
    options = dict(OPTIONS[name])
    scale = options.get("scale")
    leaves = list(inputs(grad=True))
    if isinstance(scale, torch.Tensor):
        leaves.append(scale.clone().requires_grad_())

    def run(query, key, value, *rest):
        chosen = {**options, "scale": rest[0]} if rest else options
        out, stats = attention(query, key, value, return_stats=True, **chosen)
        return out, stats.lse, stats.entropy

    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)


def test_everything_has_the_gradient_of_the_function():
    options = OPTIONS["everything"]
    arrays = inputs(grad=True)
    upstream = draw(2, 4, 5, 3, seed=9)
    grads = torch.autograd.grad(attention(*arrays, **options), arrays, upstream)
    with torch.no_grad():
        out, stats = slipstick.attention(*arrays, return_stats=True, **options)
        expected = slipstick.attention_backward(upstream, *arrays, out, stats, **options)
    for one, other in zip(grads, expected, strict=False):
        assert torch.equal(one, other)


@pytest.mark.parametrize("which", [(0,), (1,), (2,), (0, 2), (1, 2)], ids=str)
def test_some_inputs_alone_require_a_gradient(which):
    expected = torch.autograd.grad(attention(*(a := inputs(grad=True))).square().sum(), a)
    arrays = [x.requires_grad_(i in which) for i, x in enumerate(inputs())]
    attention(*arrays).square().sum().backward()
    for i, (x, want) in enumerate(zip(arrays, expected, strict=True)):
        assert x.grad is None if i not in which else torch.equal(x.grad, want)


def test_used_twice_and_partly():
    query, key, value = inputs(grad=True)
    out, stats = attention(query, key, value, return_stats=True)
    assert not stats.max_logit.requires_grad
    (once,) = torch.autograd.grad(stats.entropy.sum(), query, retain_graph=True)
    (both,) = torch.autograd.grad((stats.entropy + stats.lse).sum(), query, retain_graph=True)
    (lse,) = torch.autograd.grad(stats.lse.sum(), query, retain_graph=True)
    torch.testing.assert_close(both, once + lse)
    (self_attended,) = torch.autograd.grad(attention(query, query, query).sum(), query)
    copies = [query.detach().clone().requires_grad_() for _ in range(3)]
    torch.testing.assert_close(
        self_attended, sum(torch.autograd.grad(attention(*copies).sum(), copies))
    )
    (first,) = torch.autograd.grad(out.sum(), query, retain_graph=True)
    (again,) = torch.autograd.grad(out.sum(), query)
    assert torch.equal(first, again)


def test_no_second_derivative():
    query, key, value = inputs(grad=True)
    (grad,) = torch.autograd.grad(attention(query, key, value).sum(), query, create_graph=True)
    with pytest.raises(
        NotImplementedError, match=r"^attention_backward: has no gradient of its own"
    ):
        grad.sum().backward()
