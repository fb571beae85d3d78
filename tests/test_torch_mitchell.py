"""Products, convolutions and layers of `slipstick.torch`: values, gradients and refusals."""

from __future__ import annotations

import copy
import pickle

import pytest

from slipstick import mitchell
from slipstick.mitchell import DRUM, Mitchell

pytest.importorskip("torch")
import torch
from torch.nn import functional

from slipstick.torch import (
    MitchellConv2d,
    MitchellLinear,
    mitchell_conv2d,
    mitchell_linear,
    mitchell_matmul,
    project,
)
from torch_inputs import F64, TABLE, Network, draw, powers

GRADIENTS = ["mimic", "exact", "straight-through"]
METHODS = ["mitchell", "realm", "lmul", "drum", DRUM(3), Mitchell(0.05), TABLE]


# --- Matrix products ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, F64, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_matmul(method, dtype):
    a, b = draw(2, 1, 4, 5, dtype=dtype, seed=1), draw(3, 5, 2, dtype=dtype, seed=2)
    expected = mitchell.matmul(a, b, method=method)
    a.requires_grad_()
    out = mitchell_matmul(a, b, method=method)
    assert torch.equal(out, expected)
    upstream = draw(*out.shape, dtype=dtype, seed=3)
    (grad,) = torch.autograd.grad(out, a, upstream)
    want, _ = mitchell.matmul_backward(upstream, a.detach(), b, method=method)
    assert torch.equal(grad, want)


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("shapes", [((5,), (5,)), ((5,), (5, 2)), ((2, 3, 5), (5,))], ids=str)
@pytest.mark.parametrize("correction", [None, "gain", 2.0])
def test_matmul_backward(shapes, gradient, correction):
    a, b = (draw(*shape, seed=i, grad=True) for i, shape in enumerate(shapes))
    out = mitchell_matmul(a, b, gradient=gradient, correction=correction)
    with torch.no_grad():
        assert torch.equal(out, mitchell.matmul(a, b, correction=correction))
    upstream = draw(*out.shape, seed=3)
    factor = {None: 1, "gain": 27 / 26, 2.0: 2}[correction]
    if gradient == "straight-through":
        factor = 1
    with torch.no_grad():
        expected = mitchell.matmul_backward(upstream, a, b, gradient=gradient)
    for one, other in zip(torch.autograd.grad(out, (a, b), upstream), expected, strict=True):
        torch.testing.assert_close(one, other * factor, rtol=1e-15, atol=0)


def test_the_exact_gradient_passes_gradcheck():
    a, b = draw(3, 4, seed=1, grad=True), draw(4, 2, seed=2, grad=True)
    assert torch.autograd.gradcheck(lambda a, b: mitchell_matmul(a, b, gradient="exact"), (a, b))


def test_integers():
    a = torch.tensor([[200, 7]], dtype=torch.uint8)
    out = mitchell_matmul(a, a.T, method=DRUM(3))
    assert out.dtype == torch.uint32
    assert torch.equal(out, mitchell.matmul(a, a.T, method=DRUM(3)))
    wide = a.int()
    compiled = torch.compile(mitchell_matmul, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(wide, wide.T), mitchell.matmul(wide, wide.T))


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5), (0, 5)], ids=str)
def test_linear(shape, gradient):
    x, weight, bias = draw(*shape, seed=1, grad=True), powers(4, 5, seed=2, grad=True), draw(4)
    bias.requires_grad_()
    out = mitchell_linear(x, weight, bias, gradient=gradient)
    # A power of two as second operand gives the exact product.
    exact = functional.linear(x, weight, bias)
    torch.testing.assert_close(out, exact, rtol=1e-13, atol=1e-13)
    upstream = powers(*out.shape, seed=3)
    grads = torch.autograd.grad(out, (x, weight, bias), upstream)
    wanted = torch.autograd.grad(exact, (x, weight, bias), upstream)
    for i, (one, other) in enumerate(zip(grads, wanted, strict=True)):
        if gradient != "exact" or i != 1:
            torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-13)


# --- Convolutions ---------------------------------------------------------------------------------

LAYOUTS = [
    {},
    {"stride": 2, "padding": (1, 0)},
    {"padding": "same", "dilation": (2, 1)},
    {"padding": "valid", "groups": 2},
    {"padding": 2, "dilation": 2, "stride": (1, 3), "groups": 2},
]


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("batch", [(), (3,), (0,)], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_conv2d(layout, batch, gradient):
    x = draw(*batch, 4, 8, 7, seed=1, grad=True)
    weight = powers(6, 4 // layout.get("groups", 1), 3, 3, seed=2, grad=True)
    out = mitchell_conv2d(x, weight, gradient=gradient, **layout)
    with torch.no_grad():
        assert torch.equal(out, mitchell.conv2d(x, weight, **layout))
    exact = functional.conv2d(x, weight, **layout)
    torch.testing.assert_close(out, exact, rtol=1e-13, atol=1e-13)
    upstream = powers(*out.shape, seed=3)
    grads = torch.autograd.grad(out, (x, weight), upstream)
    wanted = torch.autograd.grad(exact, (x, weight), upstream)
    torch.testing.assert_close(grads[0], wanted[0], rtol=1e-13, atol=1e-13)
    if gradient != "exact":
        torch.testing.assert_close(grads[1], wanted[1], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("size", [(2, 3), (1, 4)], ids=str)
def test_same_padding_of_even_kernels(size):
    x, weight = draw(2, 3, 6, 7, seed=1), draw(4, 3, *size, seed=2)
    expected = mitchell.conv2d(x, weight, padding="same")
    assert torch.equal(mitchell_conv2d(x, weight, padding="same"), expected)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_conv2d_gradients_are_those_of_the_product_with_patches(gradient, monkeypatch):
    x, weight = draw(3, 2, 5, 4, seed=1, grad=True), draw(3, 2, 2, 3, seed=2, grad=True)
    out = mitchell_conv2d(x, weight, gradient=gradient)
    patches = functional.unfold(x, (2, 3)).mT
    product = mitchell_matmul(patches, weight.flatten(1).t(), gradient=gradient)
    torch.testing.assert_close(out, product.mT.reshape(out.shape))
    upstream = draw(*out.shape, seed=3)
    expected = torch.autograd.grad(product.mT.reshape(out.shape), (x, weight), upstream)
    # In one go, and an image at a time.
    for limit in (1 << 24, 1):
        monkeypatch.setattr("slipstick.torch._convolution._PATCHES", limit)
        grads = torch.autograd.grad(out, (x, weight), upstream, retain_graph=True)
        for one, other in zip(grads, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)


# --- Layers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_padding_modes(mode):
    layer = MitchellConv2d(2, 3, 3, padding=1, padding_mode=mode, dtype=F64)
    with torch.no_grad():
        layer.weight.copy_(powers(3, 2, 3, 3))
    exact = torch.nn.Conv2d(2, 3, 3, padding=1, padding_mode=mode, dtype=F64)
    exact.load_state_dict(layer.state_dict())
    x = draw(2, 2, 6, 5)
    torch.testing.assert_close(layer(x), exact(x), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("method", ["drum", DRUM(4), TABLE], ids=str)
def test_layers_are_modules(method):
    x = draw(2, 1, 8, 8, dtype=torch.float32)
    model = Network(method)
    assert "method=" in repr(model)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x), model(x))
    fresh = Network(method)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(x), model(x))


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_training_lowers_the_loss(gradient):
    torch.manual_seed(0)
    model = Network(gradient=gradient)
    x, labels = draw(32, 1, 8, 8, dtype=torch.float32), torch.arange(32) % 3
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    losses = []
    for _ in range(12):
        loss = functional.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


# --- Refusals -------------------------------------------------------------------------------------

A = torch.ones(2, 3)
IMAGE, KERNEL = torch.ones(1, 2, 4, 4), torch.ones(4, 2, 3, 3)
REFUSED = {
    "method": (
        lambda: mitchell_matmul(A, A.T, method="x"),
        ValueError,
        "mitchell_matmul: `method`",
    ),
    "no method": (
        lambda: mitchell_matmul(A, A.T, method=3),
        TypeError,
        "mitchell_matmul: `method`",
    ),
    "gradient": (
        lambda: mitchell_matmul(A, A.T, gradient="x"),
        ValueError,
        "mitchell_matmul: `gradient` must be one of 'mimic', 'exact', 'straight-through', got 'x'",
    ),
    "gradient None": (
        lambda: mitchell_linear(A, A, gradient=None),
        TypeError,
        "mitchell_linear: `gradient` must be one of",
    ),
    "no derivative": (
        lambda: mitchell_matmul(A.clone().requires_grad_(), A.T, method="drum", gradient="exact"),
        ValueError,
        "mitchell_matmul: `gradient` must be 'mimic' or 'straight-through' for a method that",
    ),
    "correction": (
        lambda: mitchell_matmul(A, A.T, correction="x"),
        ValueError,
        "mitchell_matmul: `correction` must be None, 'gain' or a number, got 'x'",
    ),
    "not a tensor": (
        lambda: mitchell_matmul(A, A.T.numpy()),
        TypeError,
        "mitchell_matmul: `b` must be a torch.Tensor, got ndarray",
    ),
    "sparse": (
        lambda: mitchell_matmul(A.to_sparse(), A.T),
        TypeError,
        "mitchell_matmul: `a` must be a dense tensor, got layout torch.sparse_coo",
    ),
    "uninitialized": (
        lambda: mitchell_linear(A, torch.nn.UninitializedParameter()),
        TypeError,
        "mitchell_linear: `weight` must be a dense tensor, got an uninitialized one",
    ),
    "devices of an operator": (
        lambda: torch.ops.slipstick.mitchell_matmul(A, A.T.to("meta")),
        ValueError,
        "mitchell_matmul: `b` must be on device cpu like `a`, got device meta",
    ),
    "devices of a convolution": (
        lambda: torch.ops.slipstick.mitchell_conv2d(
            IMAGE.to("meta"), KERNEL, [1, 1], [0, 0], [1, 1], 1
        ),
        ValueError,
        "mitchell_conv2d: `weight` must be on device meta like `x`, got device cpu",
    ),
    "devices": (
        lambda: mitchell_linear(A, A.to("meta")),
        ValueError,
        "mitchell_linear: `weight` must be on device cpu like `x`, got device meta",
    ),
    "dtypes": (lambda: mitchell_matmul(A, A.T.double()), TypeError, "matmul: `b` must have dtype"),
    "complex": (lambda: mitchell_matmul(A.cfloat(), A.T.cfloat()), TypeError, "matmul: `a` must"),
    "sizes": (lambda: mitchell_matmul(A, A), ValueError, "matmul: "),
    "features": (
        lambda: mitchell_linear(A, A.T),
        ValueError,
        "mitchell_linear: `x` must have 2 fe",
    ),
    "rank of a weight": (
        lambda: mitchell_linear(A, A[0]),
        ValueError,
        "mitchell_linear: `weight` m",
    ),
    "bias": (
        lambda: mitchell_linear(A, A, A[0]),
        ValueError,
        "mitchell_linear: `bias` must have 2",
    ),
    "image": (
        lambda: mitchell_conv2d(A, KERNEL),
        ValueError,
        "mitchell_conv2d: `x` must have 3 or",
    ),
    "kernel": (
        lambda: mitchell_conv2d(IMAGE, A),
        ValueError,
        "mitchell_conv2d: `weight` must have",
    ),
    "groups": (
        lambda: mitchell_conv2d(IMAGE, KERNEL, groups=2),
        ValueError,
        "mitchell_conv2d: `groups` must divide",
    ),
    "groups type": (
        lambda: mitchell_conv2d(IMAGE, KERNEL, groups=1.0),
        TypeError,
        "mitchell_conv2d: `groups` must be an int, got float",
    ),
    "stride": (
        lambda: mitchell_conv2d(IMAGE, KERNEL, stride=0),
        ValueError,
        "mitchell_conv2d: `stride` must be at least 1, got 0",
    ),
    "stride type": (
        lambda: mitchell_conv2d(IMAGE, KERNEL, stride=1.5),
        TypeError,
        "mitchell_conv2d: `stride` must be an int or a pair of ints, got float",
    ),
    "padding": (
        lambda: mitchell_conv2d(IMAGE, KERNEL, padding="full"),
        ValueError,
        "mitchell_conv2d: `padding` must be an int, a pair of ints, 'valid' or 'same', got 'full'",
    ),
    "same with a stride": (
        lambda: mitchell_conv2d(IMAGE, KERNEL, padding="same", stride=2),
        ValueError,
        "mitchell_conv2d: `stride` must be 1 for padding 'same'",
    ),
    "kernel too large": (
        lambda: mitchell_conv2d(IMAGE[..., :2], KERNEL),
        ValueError,
        "conv2d: ",
    ),
    "conv bias": (
        lambda: mitchell_conv2d(IMAGE, KERNEL, A[0]),
        ValueError,
        "mitchell_conv2d: `bias` must have 4 entries like `weight`",
    ),
    "unknown table": (
        lambda: torch.ops.slipstick.mitchell_matmul(A, A.T, "Table(256x256 uint16, sha256=0)"),
        ValueError,
        "slipstick: `method` must be a table that this process has used",
    ),
    "text that is no method": (
        lambda: torch.ops.slipstick.mitchell_matmul(A, A.T, "__import__('os')"),
        ValueError,
        "slipstick: `method` must be the text of a method",
    ),
    "layer": (
        lambda: MitchellLinear(2, 3, method="x"),
        ValueError,
        "MitchellLinear: `method` must",
    ),
    "layer gradient": (
        lambda: MitchellConv2d(2, 3, 1, gradient="x"),
        ValueError,
        "MitchellConv2d: `gradient` must be one of",
    ),
    "components": (lambda: project(A, 0), ValueError, "project: `n_components` must be between"),
    "kind": (lambda: project(A, 2, kind="x"), ValueError, "project: `kind` must be"),
    "seed": (lambda: project(A, 2, seed=-1), ValueError, "project: `seed` must be between"),
    "density": (lambda: project(A, 2, density=0.5), ValueError, "project: `density` must be None"),
    "no features": (
        lambda: project(A[:, :0], 2),
        ValueError,
        "project: `x` must have at least one",
    ),
    "array": (lambda: project(A.numpy(), 2), TypeError, "project: `x` must be a torch.Tensor"),
    "complex projection": (lambda: project(A.cfloat(), 2), TypeError, "project: `x` must"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    call, error, message = REFUSED[name]
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_no_second_derivative():
    a = draw(3, 4, grad=True)
    (grad,) = torch.autograd.grad(mitchell_matmul(a, a.T).sum(), a, create_graph=True)
    with pytest.raises(NotImplementedError, match="has no gradient of its own"):
        grad.sum().backward()
