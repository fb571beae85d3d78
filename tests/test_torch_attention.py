"""`slipstick.torch.attention`: values, gradients, and every way in which torch runs an operator."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import slipstick
from slipstick.scales import ClippedLogN, LogN, SSMax, Su, Temperature

pytest.importorskip("torch")
import torch

from slipstick.torch import LogNScale, SSMaxScale, attention

F64 = torch.float64
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
ATTENTION = torch.ops.slipstick.attention.default
WITH_STATS = torch.ops.slipstick.attention_with_stats.default
BACKWARD = torch.ops.slipstick.attention_backward.default


def draw(*shape, dtype=F64, seed=0, grad=False):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=F64).to(dtype)
    return x.requires_grad_(grad)


def inputs(dtype=F64, grad=False, queries=5, keys=7):
    """2 sequences, 4 heads over 2 key heads."""
    return (
        draw(2, 4, queries, 6, dtype=dtype, seed=1, grad=grad),
        draw(2, 2, keys, 6, dtype=dtype, seed=2, grad=grad),
        draw(2, 2, keys, 3, dtype=dtype, seed=3, grad=grad),
    )


BOOL_MASK = draw(2, 1, 5, 7, seed=4) > -0.5
OPTIONS = {
    "default": {},
    "causal": {"causal": True},
    "number": {"scale": 0.4},
    "int": {"scale": 1},
    "NumPy number": {"scale": np.int64(1)},
    "tensor": {"scale": draw(2, 4, 5, seed=5)},
    "tensor of a head": {"scale": draw(4, 1, seed=5), "causal": True},
    "base": {"scale": LogN(100)},
    "Su": {"scale": Su(2.0), "causal": True},
    "ClippedLogN": {"scale": ClippedLogN(4)},
    "SSMax": {"scale": SSMax(0.3), "causal": True},
    "SSMax a head": {"scale": SSMax([0.3, 0.2, -0.1, 1.0], b=0.1)},
    "SSMax b a head": {"scale": SSMax(0.3, b=[0.3, 0.2, -0.1, 1.0])},
    "Temperature": {"scale": Temperature(0.3, 2, offset=1)},
    "window": {"window": (2, None)},
    "lengths": {"key_lengths": torch.tensor([7, 3])},
    "length": {"key_lengths": 4},
    "list of lengths": {"key_lengths": [7, 3], "causal": True},
    "bool mask": {"mask": BOOL_MASK},
    "float mask": {"mask": draw(5, 7, seed=6), "softcap": 2.0},
    "n_keys": {"n_keys": 100},
    "n_keys a row": {"n_keys": torch.arange(10).reshape(2, 5) + 1, "window": (1, 1)},
    "everything": {
        "scale": SSMax(0.4),
        "causal": True,
        "window": (3, 3),
        "key_lengths": torch.tensor([7, 5]),
        "mask": BOOL_MASK,
        "softcap": 3,
        "n_keys": 50,
    },
}


# --- Values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", OPTIONS)
def test_bits_are_those_of_the_function(name, dtype):
    options = OPTIONS[name]
    arrays = inputs(dtype)
    out = attention(*arrays, **options)
    assert torch.equal(out, slipstick.attention(*arrays, **options))
    out, stats = attention(*arrays, return_stats=True, **options)
    expected, expected_stats = slipstick.attention(*arrays, return_stats=True, **options)
    assert torch.equal(out, expected)
    for one, other in zip(stats, expected_stats, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("rank", [2, 3])
def test_without_batch_and_heads(rank):
    arrays = [x[(0,) * (4 - rank)] for x in (inputs()[0][:, :2], *inputs()[1:])]
    assert torch.equal(attention(*arrays), slipstick.attention(*arrays))


def test_strides_and_empty_inputs():
    query, key, value = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in inputs(grad=True))
    assert not query.is_contiguous()
    out = attention(query, key, value, causal=True)
    assert torch.equal(out, attention(*inputs(), causal=True))
    out.sum().backward()
    empty = attention(query[:0], key[:0], value[:0])
    assert empty.shape == (0, 4, 5, 3)
    empty.sum().backward()


def test_grad_mode_changes_no_bit():
    arrays = inputs(torch.float32, grad=True)
    out = attention(*arrays)
    assert out.requires_grad
    with torch.no_grad():
        plain = attention(*arrays)
    assert not plain.requires_grad
    with torch.inference_mode():
        inferred = attention(*arrays)
    assert torch.equal(out, plain)
    assert torch.equal(out, inferred)


# --- Gradients ------------------------------------------------------------------------------------


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


# --- Scales with parameters -----------------------------------------------------------------------


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


# --- Ways to run an operator ----------------------------------------------------------------------


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


@pytest.mark.parametrize("name", ["causal", "SSMax a head", "everything", "tensor"])
@pytest.mark.parametrize("dynamic", [False, True])
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


def test_meta_and_fake_tensors_have_shapes():
    meta = [x.to("meta") for x in inputs()]
    out, stats = attention(*meta, causal=True, return_stats=True)
    assert out.shape == (2, 4, 5, 3)
    assert out.device.type == "meta"
    assert stats.lse.shape == (2, 4, 5)


# --- Refusals -------------------------------------------------------------------------------------

Q, K, V = inputs(torch.float32)
REFUSED = {
    "not a tensor": ((Q.numpy(), K, V), {}, TypeError, "`query` must be a torch.Tensor, got ndarr"),
    "sparse": (
        (Q, K.to_sparse(), V),
        {},
        TypeError,
        "`key` must be a dense tensor, got layout tor",
    ),
    "devices": ((Q, K.to("meta"), V), {}, ValueError, "`key` must be on device cpu like `query`, "),
    "mask device": (
        (Q, K, V),
        {"mask": torch.ones(7, device="meta")},
        ValueError,
        "`mask` must be on device cpu like `query`, got device meta",
    ),
    "dtypes": ((Q, K.double(), V), {}, TypeError, "`key` must have dtype float32 like `query`, "),
    "complex": ((Q.cfloat(), K, V), {}, TypeError, "`query` must have a real numeric dtype"),
    "integers": ((Q.int(), K.int(), V.int()), {}, TypeError, "`query` must be float32, float64"),
    "ranks": ((Q, K[0], V), {}, ValueError, "`query`, `key` and `value` must have|`key` must"),
    "columns": ((Q, K[..., 1:], V), {}, ValueError, "`key` must have 6 columns like `query`"),
    "scale": ((Q, K, V), {"scale": "LogN"}, TypeError, "`scale` must be an object of slipstick.s"),
    "scale class": ((Q, K, V), {"scale": LogN}, TypeError, "`scale` .*got the class LogN"),
    "scale None": ((Q, K, V), {"scale": None}, TypeError, "`scale` must be .*got NoneType"),
    "scale shape": ((Q, K, V), {"scale": torch.ones(3)}, ValueError, "`scale` must"),
    "heads of a scale": ((Q, K, V), {"scale": SSMaxScale(heads=3)}, ValueError, "`scale`"),
    "causal": ((Q, K, V), {"causal": 1}, TypeError, "`causal` must be True or False, got 1"),
    "window": ((Q, K, V), {"window": 3}, TypeError, "`window` must be None or"),
    "softcap": ((Q, K, V), {"softcap": -1}, ValueError, "`softcap` must be None or a finite numb"),
    "stats": ((Q, K, V), {"return_stats": None}, TypeError, "`return_stats` must be True or F"),
    "n_keys": ((Q, K, V), {"n_keys": 1.5}, TypeError, "`n_keys` must be an int, ints or a tens"),
    "n_keys floats": ((Q, K, V), {"n_keys": torch.ones(2)}, TypeError, "`n_keys` must"),
    "lengths": ((Q, K, V), {"key_lengths": [1, "a"]}, TypeError, "`key_lengths` must be an int"),
    "too long": ((Q, K, V), {"key_lengths": 8}, ValueError, "`key_lengths` must"),
    "mask type": (
        (Q, K, V),
        {"mask": [True]},
        TypeError,
        "`mask` must be a torch.Tensor, got list",
    ),
    "mask grad": (
        (Q, K, V),
        {"mask": torch.ones(5, 7, requires_grad=True)},
        ValueError,
        "`mask` must not require a gradient",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    arrays, options, error, message = REFUSED[name]
    with pytest.raises(error, match=f"^attention: ({message})") as caught:
        attention(*arrays, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["nested", "quantized"])
def test_refusals_of_tensors_that_look_dense(kind):
    if kind == "nested":
        query = torch.nested.nested_tensor([Q[0], Q[0]])
    else:
        query = torch.quantize_per_tensor(Q, 0.1, 0, torch.qint8)
    with pytest.raises(TypeError, match=f"^attention: tensors must be dense, got a {kind} one$"):
        attention(query, K, V)


def test_refusals_of_raw_operators():
    for options in ((False, None, "LogN", [1.0, 2.0]), (False, None, "os.system", [3.0])):
        with pytest.raises(ValueError, match=r"^attention: `law` must be LogN"):
            ATTENTION(Q, K, V, *options)


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
        attention(Q, K, V, scale=scale)
