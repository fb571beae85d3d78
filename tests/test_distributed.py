"""`slipstick.distributed.ring_attention`: every rank's share of what one process computes."""

from __future__ import annotations

import numpy as np
import pytest

import slipstick
from slipstick.scales import LogN, SSMax, Temperature

pytest.importorskip("torch")
import torch

import slipstick.torch
from distributed_ranks import (
    Learnable,
    attend,
    autocast,
    compiled,
    cut_and_join,
    draw,
    narrow,
    second_derivative,
    some,
)

WORLDS = [1, 2, 3, 4]
LAYOUTS = ["contiguous", "zigzag"]


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

    Every number is a sum over at most all rows (of a scale's parameter, of all heads of all
    sequences), of terms that went through a few roundings each; as many roundings come in with a
    score, which an exponential multiplies by the size of the scores, below 8 here. Sums cancel, so
    errors are measured against the largest number of an array.
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
        if place >= len(axes):
            length *= expected[1][..., 0].size if expected[1].size else 1
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
    """Ranks are late by turns."""
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
