"""`slipstick.distributed`: arguments that do not fit, together or alone, and lost ranks."""

from __future__ import annotations

import importlib
import re

import numpy as np
import pytest

from slipstick.scales import LogN, SSMax

pytest.importorskip("torch")
import torch
import torch.distributed as dist

import slipstick
import slipstick.distributed
from distributed_ranks import (
    As,
    Learnable,
    Ranks,
    call,
    fail,
    lose,
    no_backend,
    some_of_the_processes,
)

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
    x = np.random.default_rng(0).standard_normal((2, 9, 4))
    expected = slipstick.attention(x, x, x, causal=True)
    words = "ring_attention: `group` must have this process as a member, got one without it"
    for rank, result in enumerate(ranks.run(some_of_the_processes, x)):
        if rank in (1, 3):
            # A few dozen roundings of numbers near 1.
            np.testing.assert_allclose(result, expected, rtol=0, atol=1e-13)
        else:
            assert type(result) is ValueError
            assert str(result) == words


def test_any_other_error(ranks):
    for error in ranks.run(fail, KeyError("x"), world=2):
        assert type(error) is RuntimeError
        assert str(error) == (
            "project: arguments must be such that they can be checked, got KeyError('x'), on rank 1"
        )
    (alone,) = ranks.run(call, "ring_attention", [(ONES, None, ONES)], [{}], world=1)
    assert type(alone) is TypeError
    assert str(alone) == "ring_attention: `key` must be a torch.Tensor, got NoneType"


# --- Lost ranks -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "how"),
    [
        ("agreement", "dies"),
        ("forward", "dies"),
        ("forward", "sleeps"),
        ("backward", "dies"),
        ("unshard", "dies"),
        ("project", "dies"),
    ],
)
def test_a_lost_rank(tmp_path, what, how):
    """The others raise: its neighbours when the connection breaks, all when the timeout ends."""
    timeout = 5
    ranks = Ranks(3, tmp_path / "store")
    try:
        results = ranks.run(lose, what, 1, how, timeout, but=1)
    finally:
        ranks.close()
    function = what if what in ("unshard", "project") else "ring_attention"
    for words, seconds in results:
        assert re.match(
            rf"{function}: (every rank|rank \d|ranks \d and \d) must take part until the end, got "
            r"no answer on rank \d (before the work|in step \d of 3|while it was to send its part|"
            r"in the sum over the ranks): \w.+",
            words,
        ), words
        assert seconds < timeout + 10  # the rest is for a busy machine
