"""`slipstick.attention` against the reference, and what it promises beyond numbers."""

from __future__ import annotations

import doctest
import functools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import slipstick
from attention_cases import options_for
from attention_oracle import (
    BF16,
    DTYPES,
    Rows,
    bool_mask,
    bounds,
    check,
    distance,
    exact_rows,
    expected,
    float_mask,
    inputs,
)
from peak_memory import bytes_taken
from slipstick import _cpu
from slipstick.scales import LogN, SSMax, Su

LEVELS = _cpu.levels[: _cpu.levels.index(_cpu.best_isa) + 1]


# --- The edge grid --------------------------------------------------------------------------------


# 2 sequences, 4 heads over 2 key heads, 37 queries, 301 keys: more than one key tile at every level
# and dtype, panels that are not full, lengths that are no multiple of anything.
SHAPE = (2, 4, 2, 37, 301, 13, 9)
OPTIONS = options_for(301)


@functools.cache
def grid_case(name: str, dtype: np.dtype):
    q, k, v = inputs(*SHAPE, dtype)
    return (q, k, v), expected(q, k, v, OPTIONS[name])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", OPTIONS)
def test_options(name, dtype, isa):
    arrays, want = grid_case(name, dtype)
    check(*arrays, OPTIONS[name], want=want)


SIZES = [
    # batch, heads, kv_heads, queries, keys, dim, dim_v
    (1, 1, 1, 1, 1, 1, 1),
    (1, 1, 1, 1, 2, 8, 8),
    (1, 1, 1, 2, 1, 3, 5),
    (0, 2, 2, 3, 4, 5, 6),
    (2, 0, 1, 3, 4, 5, 6),
    (2, 2, 2, 0, 4, 5, 6),
    (2, 2, 1, 3, 0, 5, 6),
    (2, 2, 1, 3, 4, 5, 0),
    (1, 1, 1, 7, 3, 4, 4),
    (1, 1, 1, 97, 13, 8, 16),
    (1, 2, 1, 3, 997, 8, 16),
    (1, 6, 1, 1, 479, 16, 16),
    (1, 6, 6, 5, 480, 7, 3),
    (3, 8, 2, 11, 481, 31, 33),
    (1, 1, 1, 239, 239, 64, 64),
    (1, 1, 1, 240, 240, 65, 63),
    (1, 1, 1, 241, 241, 17, 2),
    (1, 1, 1, 15, 47, 300, 5),
    (1, 1, 1, 16, 48, 5, 300),
    (1, 1, 1, 17, 49, 1100, 7),
    (2, 2, 2, 64, 128, 128, 128),
    (1, 2, 2, 65, 119, 128, 64),
    (1, 3, 3, 127, 121, 64, 128),
]


@functools.cache
def size_case(sizes, dtype, causal):
    q, k, v = inputs(*sizes, dtype)
    return (q, k, v), expected(q, k, v, {"causal": causal})


@pytest.mark.parametrize("dtype", [np.dtype(np.float32), np.dtype(np.float64), BF16], ids=str)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_sizes(sizes, causal, dtype, isa, threads):
    arrays, want = size_case(sizes, dtype, causal)
    check(*arrays, {"causal": causal}, want=want)


@functools.cache
def window_case(batch, window):
    arrays = inputs(batch, 2, 1, 40, 700, 16, 9, np.float32)
    return arrays, expected(*arrays, {"window": window})


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("window", [(60, 0), (None, -1), (0, 640)], ids=str)
def test_a_window_far_from_the_first_key(window, batch, isa, threads):
    """Packing starts at the first tile that a row sees, of few heads and of many."""
    arrays, want = window_case(batch, window)
    check(*arrays, {"window": window}, want=want)


def test_no_heads_and_no_end_of_a_window():
    out, stats = slipstick.attention(
        *inputs(2, 0, 0, 3, 4, 5, 6, np.float32), window=(2**70, None), return_stats=True
    )
    assert (out.shape, stats.lse.shape) == ((2, 0, 3, 6), (2, 0, 3))
    q, k, v = inputs(1, 1, 1, 3, 4, 5, 6, np.float32)
    np.testing.assert_array_equal(
        slipstick.attention(q, k, v, window=(2**70, 2**63)), slipstick.attention(q, k, v)
    )


@pytest.mark.parametrize("empty", ["batch", "queries", "keys"])
def test_an_empty_mask(empty):
    sizes = {"batch": 2, "queries": 3, "keys": 4} | {empty: 0}
    batch, queries, keys = sizes.values()
    arrays = inputs(batch, 2, 2, queries, keys, 5, 6, np.float32)
    for shape in ((batch, 1, queries, keys), (batch, 2, 1, keys), (queries, 1), (1, 1)):
        mask = np.ones(shape, bool)
        got = slipstick.attention(*arrays, mask=np.broadcast_to(mask, (batch, 2, queries, keys)))
        np.testing.assert_array_equal(got, slipstick.attention(*arrays, mask=mask))
        assert got.shape == (batch, 2, queries, 6)
        assert (got == 0).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_no_columns_weigh_all_keys_alike(dtype, isa):
    q, k, v = inputs(1, 2, 2, 3, 5, 0, 4, dtype)
    out, stats = slipstick.attention(q, k, v, return_stats=True)
    check(q, k, v, {"scale": 1.0}, want=expected(q, k, v, {"scale": 1.0}))
    np.testing.assert_array_equal(out, slipstick.attention(q, k, v, scale=1.0))
    assert distance(stats.entropy, math.log(5)).max() <= 1e-6


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_random_calls(data):
    group, kv_heads = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2))
    batch, queries = data.draw(st.integers(1, 2)), data.draw(st.integers(0, 40))
    keys, dim, dim_v = (
        data.draw(st.integers(low, high)) for low, high in ((0, 300), (1, 70), (0, 40))
    )
    dtype = data.draw(st.sampled_from(DTYPES))
    side = st.one_of(st.none(), st.integers(-1, 40))
    options: dict[str, Any] = {
        "causal": data.draw(st.booleans()),
        "window": data.draw(st.one_of(st.none(), st.tuples(side, side))),
        "softcap": data.draw(st.sampled_from([None, 0.5, 5.0])),
        "scale": data.draw(st.sampled_from([LogN(), Su(-0.7), SSMax(0.2, b=0.1), 0.1])),
        "n_keys": data.draw(st.one_of(st.none(), st.integers(0, 10**6))),
        "key_lengths": data.draw(
            st.one_of(st.none(), st.lists(st.integers(0, keys), min_size=batch, max_size=batch))
        ),
    }
    heads = group * kv_heads
    shape = tuple(data.draw(st.sampled_from([1, n])) for n in (batch, heads, queries, keys))
    seed = data.draw(st.integers(0, 2**16))
    make = data.draw(st.sampled_from([None, bool_mask, float_mask]))
    options["mask"] = None if make is None else make(*shape, seed=seed)
    arrays = inputs(batch, heads, kv_heads, queries, keys, dim, dim_v, dtype, seed)
    # Drawn before anything is set: a draw may end the example by an exception.
    level, count = data.draw(st.sampled_from(LEVELS)), data.draw(st.sampled_from([1, 2, 7]))
    before = slipstick.get_isa(), slipstick.get_num_threads()
    slipstick.set_isa(level)
    slipstick.set_num_threads(count)
    try:
        out, stats = slipstick.attention(*arrays, return_stats=True, **options)
    finally:
        slipstick.set_isa(before[0])
        slipstick.set_num_threads(before[1])
    exact = exact_rows(*arrays, options)
    allowed = bounds(*arrays, options, exact)
    for name in Rows._fields:
        got, right = out if name == "out" else getattr(stats, name), getattr(exact, name)
        gap = distance(got.astype(np.longdouble), right)
        assert (gap <= getattr(allowed, name)).all(), name


# --- Determinism ----------------------------------------------------------------------------------


def bits(result) -> list[np.ndarray]:
    out, stats = result
    return [np.asarray(x).view(f"u{x.dtype.itemsize}") for x in (out, *stats)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "options",
    [{}, {"causal": True}, {"key_lengths": [300, 7, 150], "mask": float_mask(3, 1, 200, 301)}],
    ids=["full", "causal", "masked"],
)
def test_bits_depend_on_the_sequence_alone(options, dtype, isa):
    """Not on threads, on the run, or on what else is in the batch."""
    q, k, v = inputs(3, 4, 2, 200, 301, 24, 24, dtype)
    before = slipstick.get_num_threads()
    try:
        slipstick.set_num_threads(1)
        whole = bits(slipstick.attention(q, k, v, return_stats=True, **options))
        for count in (1, 2, 7, 2, 7):
            slipstick.set_num_threads(count)
            again = bits(slipstick.attention(q, k, v, return_stats=True, **options))
            for a, b in zip(whole, again, strict=True):
                np.testing.assert_array_equal(a, b)
        for b in range(3):
            own = {
                name: value[b : b + 1] if name in ("key_lengths", "mask") else value
                for name, value in options.items()
            }
            one = slice(b, b + 1)
            alone = bits(slipstick.attention(q[one], k[one], v[one], return_stats=True, **own))
            for part, all_ in zip(alone, whole, strict=True):
                np.testing.assert_array_equal(part[0], all_[b])
            # One query head without the others of its group.
            head = bits(
                slipstick.attention(q[one, 3:], k[one, 1:], v[one, 1:], return_stats=True, **own)
            )
            for part, all_ in zip(head, whole, strict=True):
                np.testing.assert_array_equal(part[0, 0], all_[b, 3])
    finally:
        slipstick.set_num_threads(before)


def test_stats_do_not_change_the_output(isa):
    q, k, v = inputs(1, 2, 2, 50, 300, 16, 16, np.float32)
    with_stats, _ = slipstick.attention(q, k, v, causal=True, return_stats=True)
    np.testing.assert_array_equal(with_stats, slipstick.attention(q, k, v, causal=True))


# --- Memory and examples --------------------------------------------------------------------------


def test_memory_grows_linearly():
    """At 16384 keys all scores would be 1 GiB; keys and values packed are 4 MiB, out 2 MiB."""
    setup = """
q, k, v = np.random.default_rng(0).standard_normal((3, 1, 1, 16384, 32), dtype=np.float32)
slipstick.attention(q[:, :, :64], k, v)
"""
    call = "slipstick.attention(q, k, v, causal=True, return_stats=True)"
    assert bytes_taken(setup, call) < 24 << 20


def test_examples():
    import slipstick._attention as module

    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
