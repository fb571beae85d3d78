"""`slipstick.distributed`: every rank's share of what one process computes, and lost ranks."""

from __future__ import annotations

import importlib
import re

import numpy as np
import pytest

import slipstick
from slipstick.scales import LogN, SSMax, Temperature

pytest.importorskip("torch")
import torch
import torch.distributed as dist

import slipstick.distributed
import slipstick.torch
from distributed_ranks import (
    As,
    Learnable,
    Ranks,
    attend,
    autocast,
    call,
    compiled,
    cut_and_join,
    draw,
    gloo_sums,
    lose,
    narrow,
    no_backend,
    not_a_member,
    project,
    second_derivative,
    some,
)

WORLDS = [1, 2, 3, 4]
LAYOUTS = ["contiguous", "zigzag"]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    ranks = Ranks(4, tmp_path_factory.mktemp("ranks") / "store")
    yield ranks
    ranks.close()


# --- The single process to compare with -----------------------------------------------------------


def places(length, world, layout):
    """Return the positions of each rank, written down apart from the package."""
    chunks = np.array_split(np.arange(length), world if layout == "contiguous" else 2 * world)
    if layout == "contiguous":
        return chunks
    return [np.concatenate((chunks[r], chunks[2 * world - 1 - r])) for r in range(world)]


def cut(x, where, axis=-2):
    return [np.take(x, own, axis) for own in where]


def join(parts, where, axis=-2):
    order = np.argsort(np.concatenate(where))
    return np.take(np.concatenate(parts, axis), order, axis)


def inputs(length=37, dtype=np.float64, keys=None):
    """2 sequences, 4 heads over 2 key heads; and the gradients that arrive at out, lse, entropy."""
    keys = keys or length
    shapes = [(2, 4, length, 6), (2, 2, keys, 6), (2, 2, keys, 3)]
    shapes += [(2, 4, length, 3), (2, 4, length), (2, 4, length)]
    arrays = [draw(*shape, seed=i, dtype=dtype) for i, shape in enumerate(shapes)]
    return arrays[:3], arrays[3:]


def whole(arrays, upstream, options, scale=None):
    """Return what one process gives: out, lse, entropy, max_logit, and all gradients."""
    tensors = [torch.tensor(x, requires_grad=True) for x in arrays]
    leaves = list(tensors)
    if isinstance(scale, Learnable):
        module = slipstick.torch.SSMaxScale(**scale._asdict()).double()
        leaves += module.parameters()
        options = {**options, "scale": module}
    elif scale is not None:
        leaves.append(torch.tensor(scale, requires_grad=True))
        options = {**options, "scale": leaves[-1]}
    out, stats = slipstick.torch.attention(*tensors, return_stats=True, **options)
    results = (out, stats.lse, stats.entropy)
    grads = torch.autograd.grad(results, leaves, [torch.tensor(x) for x in upstream])
    return [x.detach().numpy() for x in (*results, stats.max_logit, *grads)]


def shares(arrays, upstream, where, where_keys=None):
    """Return the arguments of `attend` for each rank."""
    where_keys = where_keys or where
    query, key, value = arrays
    own = [cut(query, where), cut(key, where_keys), cut(value, where_keys)]
    out, *rows = upstream
    gradients = [cut(out, where), *(cut(x, where, -1) for x in rows)]
    return list(zip(*own, strict=True)), list(zip(*gradients, strict=True))


def check(results, expected, where, where_keys=None, learned=False):
    """Compare what all ranks give, put together, with what one process gives.

    Every number is a sum over at most all rows, of terms that went through a few roundings each; as
    many roundings come in with a score, which an exponential multiplies by the size of the scores,
    below 8 here. Sums cancel, so errors are measured against the largest number of an array.
    """
    where_keys = where_keys or where
    axes = [-2, -1, -1, -1, -2, -2, -2]
    parts = list(zip(*results, strict=True))
    for place, (part, want) in enumerate(zip(parts, expected, strict=True)):
        if place < len(axes):
            got = join(part, where_keys if place in (5, 6) else where, axes[place])
        elif learned:
            assert all(np.array_equal(x, part[0]) for x in part)
            got = part[0]
        else:
            got = join(part, where, -1)
        assert got.dtype == want.dtype
        length = sum(map(len, where_keys)) + 10
        bound = 8 * length * np.finfo(want.dtype).eps * max(1.0, np.abs(want).max(initial=0))
        np.testing.assert_allclose(got, want, rtol=0, atol=bound, err_msg=f"array {place}")


# --- Ring attention -------------------------------------------------------------------------------


SCALES = {
    "default": (None, {}),
    "number": (None, {"scale": 0.4}),
    "base": (None, {"scale": LogN(100)}),
    "a head": (None, {"scale": SSMax([0.3, 0.2, -0.1, 1.0], b=0.1)}),
    "temperature": (None, {"scale": Temperature(0.3, 8, offset=1)}),
    "learned": (Learnable(0.3), {}),
    "learned a head": (Learnable(0.3, 0.1, 4), {}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("world", WORLDS)
def test_equals_one_process(ranks, world, causal, layout):
    where = places(37, world, layout)
    for dtype in (np.float64, np.float32):
        arrays, upstream = inputs(dtype=dtype)
        for scale, options in SCALES.values():
            if scale is not None and dtype == np.float32:
                continue
            options = {**options, "causal": causal}
            expected = whole(arrays, upstream, options, scale)
            options["layout"] = layout
            results = ranks.values(
                attend, *shares(arrays, upstream, where), options, scale, world=world
            )
            check(results, expected, where, learned=scale is not None)
            if world == 1:
                for one, other in zip(results[0], expected, strict=True):
                    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("causal", [False, True])
def test_lambda_as_a_tensor(ranks, causal):
    """It is cut like the queries; one that is the same for all rows has a gradient on each rank."""
    where = places(37, 3, "zigzag")
    arrays, upstream = inputs()
    factor = draw(2, 4, 37, seed=8)
    expected = whole(arrays, upstream, {"causal": causal}, factor)
    options = {"causal": causal, "layout": "zigzag"}
    given = shares(arrays, upstream, where)
    results = ranks.values(attend, *given, options, cut(factor, where, -1), world=3)
    check(results, expected, where)
    factor = draw(4, 1, seed=8)
    expected = whole(arrays, upstream, {"causal": causal}, factor)
    results = ranks.values(attend, *given, options, [factor] * 3, world=3)
    np.testing.assert_allclose(sum(x[-1] for x in results), expected[-1], rtol=1e-11)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths", [(5, 0, 20, 12), (0, 0, 1, 2), (0, 0, 0, 0)], ids=str)
def test_uneven_shards(ranks, lengths, causal):
    """Contiguous shards have any lengths; some ranks have no keys."""
    where = np.split(np.arange(sum(lengths)), np.cumsum(lengths)[:-1])
    arrays, upstream = inputs(sum(lengths))
    expected = whole(arrays, upstream, {"causal": causal}, Learnable(0.3, 0.1))
    given = shares(arrays, upstream, where)
    results = ranks.values(attend, *given, {"causal": causal}, Learnable(0.3, 0.1))
    check(results, expected, where, learned=True)


def test_other_numbers_of_queries(ranks):
    where = np.split(np.arange(13), [3, 4, 4])
    where_keys = np.split(np.arange(29), [11, 11, 20])
    arrays, upstream = inputs(13, keys=29)
    expected = whole(arrays, upstream, {})
    results = ranks.values(attend, *shares(arrays, upstream, where, where_keys), {})
    check(results, expected, where, where_keys)


@pytest.mark.parametrize("short", [1, 2, 5, 7])
def test_sequences_shorter_than_the_chunks(ranks, short):
    where = places(short, 4, "zigzag")
    arrays, upstream = inputs(short)
    expected = whole(arrays, upstream, {"causal": True})
    options = {"causal": True, "layout": "zigzag"}
    check(ranks.values(attend, *shares(arrays, upstream, where), options), expected, where)


@pytest.mark.parametrize("leading", [(), (4,), (0, 4)], ids=str)
def test_without_batch_and_heads(ranks, leading):
    where = places(21, 3, "zigzag")
    arrays = [draw(*leading, 21, 6, seed=seed) for seed in range(3)]
    upstream = [draw(*leading, 21, 6, seed=3), draw(*leading, 21), draw(*leading, 21)]
    expected = whole(arrays, upstream, {"causal": True})
    options = {"causal": True, "layout": "zigzag"}
    results = ranks.values(attend, *shares(arrays, upstream, where), options, world=3)
    check(results, expected, where)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_time_changes_no_bit(ranks, layout):
    """Ranks that are late by turns; whole sequences and strided ones."""
    where = places(64, 4, layout)
    arrays, upstream = inputs(64, dtype=np.float32)
    given = shares(arrays, upstream, where)
    options = {"causal": True, "layout": layout}
    first, *others = (
        ranks.values(attend, *given, options, Learnable(0.3), delay) for delay in (0.0, 0.2, 0.0)
    )
    for other in others:
        for ours, theirs in zip(first, other, strict=True):
            for one, two in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow(ranks, dtype):
    """A shard's result is rounded, then the merged one; gradients likewise, on their sums."""
    where = places(37, 3, "zigzag")
    arrays, _ = inputs(dtype=np.float32)
    given, _ = shares(arrays, inputs(dtype=np.float32)[1], where)
    tensors = [torch.tensor(x).to(getattr(torch, dtype)).float() for x in arrays]
    tensors = [x.requires_grad_() for x in tensors]
    out = slipstick.torch.attention(*tensors, causal=True)
    grads = torch.autograd.grad(out.square().sum(), tensors)
    eps = torch.finfo(getattr(torch, dtype)).eps
    results = ranks.values(narrow, given, dtype, True, world=3)
    for parts, want in zip(zip(*results, strict=True), (out, *grads), strict=True):
        want = want.detach().numpy()
        # Five roundings by at most half an eps each: out, the gradient that arrives at it, which is
        # twice out, the two products with it that a gradient of a score is made of, a shard's
        # gradient, and the sum of the shards'. The second works on sums of 37 keys.
        bound = 8 * eps * np.abs(want).max()
        np.testing.assert_allclose(join(parts, where), want, rtol=0, atol=bound)


def test_autocast(ranks):
    where = places(8, 2, "contiguous")
    arrays, upstream = inputs(8, dtype=np.float32)
    given, _ = shares(arrays, upstream, where)
    assert ranks.values(autocast, given, world=2) == [(True, True)] * 2


@pytest.mark.parametrize("needing", [(), ("query",), ("key",), ("query", "value")], ids=str)
def test_some_inputs_alone_require_a_gradient(ranks, needing):
    where = places(11, 3, "contiguous")
    arrays, upstream = inputs(11)
    given, _ = shares(arrays, upstream, where)
    everything = ranks.values(some, given, ("query", "key", "value"), world=3)
    for ours, all_of_them in zip(
        ranks.values(some, given, needing, world=3), everything, strict=True
    ):
        for name, one, other in zip(("query", "key", "value"), ours, all_of_them, strict=True):
            if name in needing:
                np.testing.assert_array_equal(one, other)
            else:
                assert one is None


def test_no_second_derivative(ranks):
    given, _ = shares(*inputs(4), places(4, 2, "contiguous"))
    for error in ranks.run(second_derivative, given, world=2):
        assert "once_differentiable" in str(error)


def test_compiled(ranks):
    given, _ = shares(*inputs(4), places(4, 1, "contiguous"))
    assert ranks.values(compiled, given, world=1) == [True]


# --- Layouts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("world", WORLDS)
def test_shards(ranks, world, layout):
    for length in (0, 3, 8, 37):
        where = places(length, world, layout)
        results = ranks.values(cut_and_join, length, layout, world=world)
        grads = np.zeros((2, length, 1))
        for (positions, joined, grad), own in zip(results, where, strict=True):
            np.testing.assert_array_equal(positions, own)
            assert joined
            grads += grad
        # Every rank's gradient is that of its own part.
        np.testing.assert_array_equal(grads[..., 0].ravel(), np.arange(2 * length))


# --- Projection -----------------------------------------------------------------------------------


LAWS = [
    {"kind": "rademacher"},
    {"kind": "gaussian", "seed": 2**64 - 1},
    {"kind": "sparse"},
    {"kind": "sparse", "density": 1 / 3, "first_feature": 2**40},
    {"kind": "srht", "first_feature": 4096},
    {"kind": "sjlt", "density": 4 / 24},
    {"kind": "countsketch"},
]


@pytest.mark.parametrize("world", WORLDS)
def test_project(ranks, world):
    x = draw(5, 1003)
    widths = [1003] if world == 1 else np.split(np.arange(1003), [1, 400, 777][: world - 1])
    parts = [x] if world == 1 else cut(x, widths, -1)
    for law in LAWS:
        tensor = torch.tensor(x, requires_grad=True)
        expected = slipstick.torch.project(tensor, 24, **law)
        (grad,) = torch.autograd.grad(expected.square().sum() / 2, tensor)
        results = ranks.values(project, parts, 24, law, world=world)
        for got, _ in results:
            np.testing.assert_array_equal(got, results[0][0])
        # 1003 terms a sum, rounded in another order; entries of the matrix are below 7.
        bound = 1003 * np.finfo(np.float64).eps * 7 * np.abs(x).sum(1).max()
        np.testing.assert_allclose(results[0][0], expected.detach().numpy(), rtol=0, atol=bound)
        grads = np.concatenate([own for _, own in results], -1)
        np.testing.assert_allclose(grads, grad.numpy(), rtol=0, atol=7 * 24 * bound)


def test_project_dtypes(ranks):
    x = draw(5, 300) * 10
    parts = np.split(x, [10, 100], -1)
    for dtype in ("float32", "float16", "bfloat16", "int16"):
        tensor = torch.tensor(x).to(getattr(torch, dtype))
        wide = slipstick.torch.project(tensor.double(), 8).numpy()
        (got, _), *_ = ranks.values(project, parts, 8, {}, dtype, world=3)
        eps = np.finfo(np.float32).eps * 10
        if dtype.endswith("16") and dtype != "int16":
            eps += torch.finfo(getattr(torch, dtype)).eps / 2  # rounded once
        assert (np.abs(got - wide) <= eps * np.abs(wide).max()).all()
    vector = ranks.values(project, [part[0] for part in parts], 8, {}, world=3)
    np.testing.assert_allclose(vector[0][0], slipstick.projection.project(x[0], 8), atol=1e-12)


@pytest.mark.parametrize("size", [1, 3, 4, 1001])
def test_sums_are_taken_in_the_order_of_ranks(ranks, size):
    results = ranks.values(gloo_sums, size)
    wanted = results[0][1]
    for _, part in results[1:]:
        wanted = wanted + part
    for got, _ in results:
        np.testing.assert_array_equal(got, wanted)


# --- Refusals -------------------------------------------------------------------------------------


ONES = np.ones((1, 2, 4, 6), np.float32)
THREE = (ONES, ONES, ONES)


def test_without_a_group():
    tensors = [torch.ones(1, 1, 2, 4)] * 3
    for function, args in (
        ("ring_attention", tensors),
        ("project", (*tensors[:1], 4)),
        ("shard", tensors[:1]),
        ("unshard", tensors[:1]),
    ):
        with pytest.raises(ValueError, match=rf"^{function}: `group` must be a process group, got"):
            getattr(slipstick.distributed, function)(*args)
        with pytest.raises(TypeError, match=rf"^{function}: `group` must be None or .*, got str$"):
            getattr(slipstick.distributed, function)(*args, group="gloo")


def test_without_torch_distributed(monkeypatch):
    monkeypatch.setattr(dist, "is_available", lambda: False)
    with pytest.raises(ImportError, match=r"^slipstick\.distributed: torch must be built with"):
        importlib.reload(slipstick.distributed)


REFUSED = {
    "layout": (THREE, {"layout": "striped"}, "`layout` must be 'contiguous' or 'zigzag', got 'str"),
    "causal": (THREE, {"causal": 1}, "`causal` must be True or False, got 1"),
    "no tensor": ((ONES, None, ONES), {}, "`key` must be a torch.Tensor, got NoneType"),
    "sparse": ((ONES, As(ONES, "to_sparse"), ONES), {}, "`key` must be a dense tensor, got layout"),
    "meta": ([As(ONES, "to", ("meta",))] * 3, {}, "`query` must be on the CPU, got device meta"),
    "device": ((ONES, As(ONES, "to", ("meta",)), ONES), {}, "`key` must be on device cpu like"),
    "dtype": ((ONES, As(ONES, "half"), ONES), {}, "`key` must have dtype float32 like `query`"),
    "int": ([As(ONES, "int")] * 3, {}, "`query` must be float32, float64, float16 or"),
    "columns": ((ONES, ONES[..., :5], ONES), {}, "`key` must have 6 columns like `query`"),
    "rows": ((ONES, ONES, ONES[:, :, 1:]), {}, "`value` must have 4 rows like `key`, got shape (1"),
    "causal rows": (
        (ONES[:, :, 1:], ONES, ONES),
        {"causal": True},
        "`query` must have 4 rows like `key` where `causal` is True, got shape (1, 2, 3, 6)",
    ),
    "axes": ((ONES, ONES[0], ONES), {}, "`query`, `key` and `value` must have the same number of"),
    "scale": (
        THREE,
        {"scale": "LogN"},
        "`scale` must be an object of slipstick.scales, a LogNScale",
    ),
    "lambda": (THREE, {"scale": np.ones(3, np.float32)}, "`scale` must "),
    "heads": (THREE, {"scale": SSMax([1, 2, 3])}, "`scale` must "),
    "parameter": (THREE, {"scale": Learnable(0.3, heads=3)}, "`scale` must "),
    "statistics": (THREE, {"return_stats": 2}, "`return_stats` must be True or False, got 2"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_one_rank_is_refused(ranks, name):
    """All raise what the one that is wrong has to say, and the group goes on."""
    args, options, words = REFUSED[name]
    wrong = 1
    results = ranks.run(
        call,
        "ring_attention",
        [args if rank == wrong else THREE for rank in range(3)],
        [options if rank == wrong else {} for rank in range(3)],
        world=3,
    )
    kind = type(results[0])
    assert kind in (TypeError, ValueError)
    for result in results:
        assert type(result) is kind
        assert str(result).startswith(f"ring_attention: {words}")
        assert str(result).endswith(", on rank 1")
        assert str(result) == str(results[0])
    assert ranks.values(call, "ring_attention", [THREE] * 3, [{}] * 3, world=3) == [ONES.shape] * 3


LEARNABLE = "learnable, with s and b [[0.5, 0.0]]"
OTHER_BATCH = np.ones((2, 2, 4, 6), np.float32)
BUT_ROWS = "the shape of `{}` but for its rows"
DIFFERENT = {
    "dtype": ([As(ONES, "double")] * 3, {}, "the dtype of the tensors", "torch.float64"),
    "batch": ([OTHER_BATCH] * 3, {}, BUT_ROWS.format("query"), "(2, 2, 6)"),
    "heads": ((ONES, ONES[:, :1], ONES[:, :1]), {}, BUT_ROWS.format("key"), "(1, 1, 6)"),
    "dim_v": ((ONES, ONES, ONES[..., :2]), {}, BUT_ROWS.format("value"), "(1, 2, 2)"),
    "causal": (THREE, {"causal": True}, "`causal`", "True"),
    "layout": (THREE, {"layout": "zigzag"}, "`layout`", "zigzag"),
    "base": (THREE, {"scale": LogN(100)}, "`scale`", "LogN of [100]"),
    "number": (THREE, {"scale": 1}, "`scale`", "1.0"),
    "learnable": (THREE, {"scale": Learnable(0.5)}, "`scale`", LEARNABLE),
    "gradient": ((ONES, As(ONES, "requires_grad_"), ONES), {}, "what needs a gradient", "key"),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_ranks_differ(ranks, name):
    args, options, words, given = DIFFERENT[name]
    results = ranks.run(call, "ring_attention", [THREE, THREE, args], [{}, {}, options], world=3)
    pattern = (
        f"^ring_attention: {re.escape(words)} must be the same on all ranks, got .* on rank 0 and "
        f"{re.escape(given)} on rank 2$"
    )
    for result in results:
        assert type(result) is ValueError
        assert re.match(pattern, str(result)), result


def test_uneven_zigzag(ranks):
    args = [THREE, THREE, [ONES[:, :, :3]] * 3]
    zigzag = {"layout": "zigzag"}
    for result in ranks.run(
        call, "ring_attention", args, [{**zigzag, "causal": True}] * 3, world=3
    ):
        assert type(result) is ValueError
        assert str(result) == (
            "ring_attention: `query` must have 3 rows on rank 0, as the zigzag layout cuts 11, "
            "got 4"
        )
    for result in ranks.run(call, "unshard", [x[:1] for x in args], [zigzag] * 3, world=3):
        assert type(result) is ValueError
        assert str(result).startswith("unshard: `x` must have 3 rows on rank 0, as the zigzag")
    # Without a diagonal the cut does not matter.
    shapes = ranks.values(call, "ring_attention", args, [zigzag] * 3, world=3)
    assert shapes == [(1, 2, 4, 6), (1, 2, 4, 6), (1, 2, 3, 6)]


@pytest.mark.parametrize(
    ("function", "args", "options", "words"),
    [
        ("shard", (1,), {}, "`x` must be a torch.Tensor, got int"),
        (
            "shard",
            (ONES,),
            {"dim": 4},
            "`dim` must be an axis of `x`, got 4 for shape (1, 2, 4, 6)",
        ),
        ("shard", (ONES,), {"dim": 0.5}, "`dim` must be an int, got float"),
        ("shard", (ONES,), {"layout": None}, "`layout` must be 'contiguous' or 'zigzag', got None"),
        ("unshard", (As(ONES, "to", ("meta",)),), {}, "`x` must be on the CPU, got device meta"),
        ("unshard", (As(ONES, "to_sparse"),), {}, "`x` must be a dense tensor, got layout"),
        ("unshard", (ONES[:, :1],), {}, "the shape of `x` but for `dim` must be the same on all"),
        (
            "unshard",
            (ONES,),
            {"dim": 1},
            "`dim` must be the same on all ranks, got 2 on rank 0 and",
        ),
        ("project", (ONES, 4.5), {}, "`n_components` must"),
        ("project", (ONES, 4), {"kind": "fourier"}, "`kind` must"),
        ("project", (ONES, 4), {"seed": -1}, "`seed` must"),
        ("project", (ONES, 4), {"density": 0.5}, "`density` must"),
        ("project", (ONES, 4), {"first_feature": 2**64 - 9}, "`first_feature` must be the same on"),
        ("project", (ONES, 5), {}, "`n_components` must be the same on all ranks, got 4 on rank 0"),
        (
            "project",
            (ONES, 4),
            {"seed": 1},
            "`seed` must be the same on all ranks, got 0 on rank 0",
        ),
        ("project", (ONES[:, :1], 4), {}, "the shape of `x` but for its features must be the same"),
        (
            "project",
            (As(ONES, "half"), 4),
            {},
            "the dtype of `x` must be the same on all ranks, got",
        ),
        ("project", (ONES[..., :0], 4), {}, "`x` must have at least one feature"),
        ("project", (ONES.tolist(), 4), {}, "`x` must be a torch.Tensor, got list"),
        ("project", (As(ONES, "to", ("meta",)), 4), {}, "`x` must be on the CPU, got device meta"),
    ],
)
def test_the_other_functions_refuse(ranks, function, args, options, words):
    fine = (ONES, 4) if function == "project" else (ONES,)
    results = ranks.run(call, function, [fine, args], [{}, options], world=2)
    if function == "shard":  # sends no messages
        assert results[0] == (1, 2, 2, 6)
        del results[0]
    for result in results:
        assert type(result) in (TypeError, ValueError)
        assert str(result).startswith(f"{function}: {words}"), result


def test_features_beyond_the_last(ranks):
    options = [{"first_feature": 2**64 - 11}] * 2
    for result in ranks.run(call, "project", [(ONES, 4)] * 2, options, world=2):
        assert type(result) is ValueError
        assert str(result) == (
            "project: `first_feature` must be at most 2**64 - 12 for 12 features on all ranks, got "
            f"{2**64 - 11}"
        )


def test_groups_that_do_not_fit(ranks):
    words = "ring_attention: `group` must have a backend for the CPU, such as gloo, got cuda:gloo"
    assert [str(error) for error in ranks.run(no_backend)] == [words] * 4
    member, *others = ranks.run(not_a_member)
    assert member == (1, 1, 2, 4)
    words = "ring_attention: `group` must have this process as a member, got one without it"
    assert [str(error) for error in others] == [words] * 3


# --- Lost ranks -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "how"),
    [("agreement", "dies"), ("forward", "dies"), ("forward", "sleeps"), ("backward", "dies")],
)
def test_a_lost_rank(tmp_path, where, how):
    """The others raise: its neighbours when the connection breaks, all when the timeout ends."""
    timeout = 5
    ranks = Ranks(3, tmp_path / "store")
    try:
        results = ranks.run(lose, where, 1, how, timeout, but=1)
    finally:
        ranks.close()
    for words, seconds in results:
        assert re.match(
            r"ring_attention: (every rank|ranks \d and \d) must take part until the end, got no "
            r"answer on rank \d (before the work|in step \d of 3): .+",
            words,
        ), words
        assert seconds < timeout + 10  # the rest is for a busy machine
