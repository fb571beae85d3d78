"""Where an operator's kernel runs at once, and where the dispatcher has to see the call."""

from __future__ import annotations

import pytest

import slipstick

pytest.importorskip("torch")
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from slipstick.torch import (
    LogNScale,
    SSMaxScale,
    _attention_ops,
    approximate,
    attention,
    mitchell_conv2d,
    mitchell_matmul,
    project,
)
from torch_inputs import F64, OPTIONS, draw, inputs

NAME = "slipstick.attention.default"


@pytest.fixture
def no_dispatcher(monkeypatch):
    """Let every call of an operator of attention fail."""

    def fail(*args):
        raise AssertionError("the dispatcher was called")

    for name in ("attention", "attention_with_stats"):
        monkeypatch.setattr(_attention_ops, name, fail)


@pytest.mark.usefixtures("no_dispatcher")
@pytest.mark.parametrize("name", [x for x in OPTIONS if x not in ("tensor", "tensor of a head")])
def test_at_once(name):
    options = OPTIONS[name]
    arrays = inputs()
    expected, statistics = slipstick.attention(*arrays, return_stats=True, **options)
    assert torch.equal(attention(*arrays, **options), expected)
    _, stats = attention(*arrays, return_stats=True, **options)
    assert torch.equal(stats.entropy, statistics.entropy)


@pytest.mark.usefixtures("no_dispatcher")
def test_at_once_where_gradients_are_off():
    arrays = inputs(grad=True)
    scale = LogNScale(dtype=F64)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert not attention(*arrays, scale=scale, return_stats=True)[0].requires_grad
    with pytest.raises(AssertionError, match="the dispatcher was called"):
        attention(*arrays)
    with pytest.raises(AssertionError, match="the dispatcher was called"):
        attention(*inputs(), scale=scale)


class Calls(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


class Functions(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def in_a_graph(arrays, **options):
    graph = make_fx(lambda *x: attention(*x), **options)(*arrays).graph
    return [str(node.target) for node in graph.nodes]


def in_a_mode(arrays, kind):
    with kind() as calls:
        attention(*arrays)
    return calls.names


def in_a_trace(arrays):
    graph = torch.jit.trace(lambda *x: attention(*x), arrays, check_trace=False).graph
    return ["slipstick.attention.default"] if "slipstick::attention" in str(graph) else []


def in_a_profile(arrays):
    with torch.autograd.profiler.profile(use_cpu=True) as profile:
        attention(*arrays)
    return [event.name.replace("::", ".") + ".default" for event in profile.function_events]


def in_a_transformation(arrays):
    with Calls() as calls:
        torch.func.functionalize(attention)(*arrays)
    return calls.names


DISTURBED = {
    "mode of operators": lambda x: in_a_mode(x, Calls),
    "mode of functions": lambda x: in_a_mode(x, Functions),
    "graph": in_a_graph,
    "graph before autograd": lambda x: in_a_graph(x, pre_dispatch=True),
    "trace": in_a_trace,
    "profiler": in_a_profile,
    "functionalisation": in_a_transformation,
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", DISTURBED)
def test_who_watches_sees_the_operator(name):
    assert NAME in DISTURBED[name](inputs())


class Marked(torch.Tensor):
    """A subclass that torch keeps through its functions."""


def test_subclasses_and_fake_tensors():
    query, key, value = inputs()
    marked = [x.as_subclass(Marked) for x in (query, value)]
    for arrays in ((marked[0], key, value), (query, key, marked[1])):
        out = attention(*arrays)
        assert type(out) is Marked
        assert torch.equal(out.as_subclass(torch.Tensor), attention(query, key, value))
    mask = torch.ones(5, 7, dtype=torch.bool).as_subclass(Marked)
    assert type(attention(query, key, value, mask=mask)) is Marked
    with FakeTensorMode() as mode:
        fakes = [mode.from_tensor(x) for x in (query, key, value)]
        assert isinstance(attention(*fakes), FakeTensor)


def test_other_operators():
    """Their functions go through the dispatcher, which runs the kernel at its first layer."""
    a, image = draw(3, 4), draw(1, 2, 5, 5)
    with Calls() as calls:
        mitchell_matmul(a, a.T)
        mitchell_conv2d(image, image)
        project(a, 2)
    names = [name.split(".")[1] for name in calls.names if name.startswith("slipstick")]
    assert names == ["mitchell_matmul", "mitchell_conv2d", "project"]


def test_the_default_device_is_no_matter():
    """It is a mode, and would put what is made without a device of its own elsewhere."""
    arrays = inputs(grad=True)
    scale = SSMaxScale(0.3, heads=4, dtype=F64)
    image, kernel = draw(1, 2, 5, 5, grad=True), draw(2, 2, 3, 3, grad=True)
    layer = torch.nn.Linear(2, 3)

    def run():
        out = attention(*arrays, scale=scale, key_lengths=[7, 3], n_keys=9)
        images = mitchell_conv2d(image, kernel)
        leaves = (*arrays, scale.s, image, kernel)
        return out, images, *torch.autograd.grad(out.sum() + images.sum(), leaves)

    expected = run()
    with torch.device("meta"):
        got = run()
        assert approximate(layer).swapped == ("",)
    for one, other in zip(got, expected, strict=True):
        assert torch.equal(one, other)


# --- Derivatives forwards -------------------------------------------------------------------------


# torch.func.jvp imports a module of torch's that uses what torch calls deprecated.
FORWARDS = pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
REFUSED = "attention: has no derivative in forward mode, which torch.func.jvp, jacfwd and hessian"


@FORWARDS
def test_tangents_are_refused_and_not_dropped():
    query, key, value = inputs()
    for call in (
        lambda: torch.func.jvp(lambda x: attention(x, key, value), (query,), (query,)),
        lambda: torch.func.jacfwd(lambda x: attention(query, key, x).sum())(value),
        lambda: torch.func.hessian(lambda x: attention(x, key, value).sum())(query),
    ):
        with pytest.raises(NotImplementedError, match=f"^{REFUSED}"):
            call()
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(query, query)
        with pytest.raises(NotImplementedError, match=f"^{REFUSED}"):
            attention(dual, key, value)
        # Without a tangent there is nothing to drop.
        assert torch.equal(attention(query, key, value), slipstick.attention(query, key, value))
    with pytest.raises(NotImplementedError, match=r"^mitchell_matmul: has no derivative in"):
        torch.func.jvp(mitchell_matmul, (query, query.mT), (query, query.mT))


@FORWARDS
def test_projections_have_derivatives_forwards():
    x, tangent = draw(3, 20), draw(3, 20, seed=1)
    out, derivative = torch.func.jvp(lambda x: project(x, 4), (x,), (tangent,))
    assert torch.equal(out, project(x, 4))
    assert torch.equal(derivative, project(tangent, 4))
    columns = torch.func.jacfwd(lambda x: project(x, 4))(x[0])
    rows = torch.func.jacrev(lambda x: project(x, 4))(x[0])
    assert torch.equal(columns, rows)
    second = torch.func.hessian(lambda x: project(x, 4).square().sum())(x[0])
    torch.testing.assert_close(second, 2 * rows.T @ rows)


def test_levels_of_transformations():
    """Each keeps the derivatives of those around it, ordinary autograd among them."""
    x = draw(20)

    def loss(x):
        return project(x, 4).square().sum()

    second = torch.func.grad(lambda x: (torch.func.grad(loss)(x) * x).sum())
    torch.testing.assert_close(second(x), 2 * torch.func.grad(loss)(x))
    query, key, value = inputs(grad=True)
    out, _ = torch.func.vjp(lambda q: attention(q, key, value), query.detach())
    got = torch.autograd.grad(out.sum(), (key, value))
    want = torch.autograd.grad(attention(query, key, value).sum(), (key, value))
    for one, other in zip(got, want, strict=True):
        assert torch.equal(one, other)

    def inner(query):
        return torch.func.grad(lambda x: attention(x, key, value).square().sum())(query)

    with pytest.raises(NotImplementedError, match=r"^attention_backward: has no gradient of its"):
        torch.func.grad(lambda x: inner(x).sum())(query.detach())
