"""`slipstick.softmax` against the reference, and what it promises beyond numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import slipstick
from slipstick import _cpu, reference
from slipstick.scales import ClippedLogN, LogN, Scale, SSMax, Su, Temperature

ml_dtypes = pytest.importorskip("ml_dtypes")

DTYPES = [np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16)]
DTYPES += [np.dtype(ml_dtypes.bfloat16)]
LEVELS = _cpu.levels[: _cpu.levels.index(_cpu.best_isa) + 1]
INF = math.inf
LOGN = LogN()


def exact(scores, scale=LOGN, axis=-1):
    """The softmax in extended precision, and for each weight how far off rounding can carry it.

    u is half an ulp of the accumulator: s = lambda x is off by u |s|, s - m by u |s - m|, e^t by
    2 u, the sum by 67 u (chains of 64, their lanes, then float64), the quotient by u; rounding
    to 16 bits adds half an ulp. To first order; the second gets a tenth more.
    """
    wide = scores.dtype == np.float64
    rows = np.moveaxis(scores.astype(np.longdouble), axis, -1)
    visible = rows != -INF
    factor = reference._attention._lambda(scale, visible.sum(axis=-1), None, wide)
    factor = np.broadcast_to(factor, rows.shape[:-1])[..., np.newaxis]
    with np.errstate(invalid="ignore", over="ignore"):
        s = np.where(visible, factor * rows, -INF)
        top = s.max(axis=-1, keepdims=True, initial=-INF)
        top = np.where(visible.any(axis=-1, keepdims=True), top, 0)
        weights = np.exp(s - top)
        total = weights.sum(axis=-1, keepdims=True)
        total = np.where(visible.any(axis=-1, keepdims=True), total, 1)
        weights = weights / total
        u = 2.0 ** (-53 if wide else -24)
        t = np.where(visible & np.isfinite(s), np.abs(s) + np.abs(top), 0)
        off = u * (2 * t + 3)
        bound = 1.1 * weights * (off + (weights * off).sum(axis=-1, keepdims=True) + 70 * u)
    if scores.dtype.itemsize == 2:
        half = 2.0 ** (-8 if scores.dtype.name == "bfloat16" else -11)
        bound = bound + 1.1 * half * weights + 2.0**-25
    # Below the normal range results may be 0.
    bound = bound + float(np.finfo(np.float64 if wide else np.float32).tiny)
    return np.moveaxis(weights, -1, axis), np.moveaxis(bound, -1, axis)


def check(scores, **options):
    return compare(slipstick.softmax(scores, **options), scores, **options)


def compare(out, scores, **options):
    assert out.dtype == scores.dtype
    assert out.shape == scores.shape
    weights, bound = exact(scores, **options)
    got = out.astype(np.longdouble)
    both_nan = np.isnan(got) & np.isnan(weights)
    assert (both_nan | (np.abs(got - weights) <= bound)).all()
    return out


def draw(shape, dtype, seed=0, hidden=0.2, spread=3.0):
    rng = np.random.default_rng(seed)
    scores = spread * rng.standard_normal(shape)
    return np.where(rng.random(shape) < hidden, -INF, scores).astype(dtype)


SCALES: list[Any] = [
    LogN(),
    LogN(10),
    Su(0.7),
    Su(-0.7),
    ClippedLogN(5),
    SSMax(0.5, b=0.2),
    Temperature(0.5, 4, offset=1),
    0.5,
    -2,
    0.0,
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("scale", SCALES, ids=repr)
def test_scales(scale, dtype, isa, threads):
    check(draw((6, 37), dtype), scale=scale)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 63, 64, 65, 1021, 4099])
def test_lengths(n, dtype, isa, threads):
    check(draw((5, n), dtype))
    check(draw((n, 5), dtype), axis=0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -2, -4])
def test_axes_and_a_scale_a_head(axis, dtype, isa, threads):
    scores = draw((3, 70, 5, 4), dtype)
    check(scores, axis=axis)
    heads = np.moveaxis(scores, axis, -1).shape[-3]
    check(scores, axis=axis, scale=SSMax(np.linspace(-1, 1, heads), b=0.5))
    rows = np.moveaxis(scores, axis, -1).shape[:-1]
    check(scores, axis=axis, scale=np.random.default_rng(1).standard_normal(rows))
    check(scores, axis=axis, scale=np.linspace(0, 1, rows[-1]).astype(np.float32))


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 4), (1,), (1, 1, 1)], ids=str)
def test_empty_and_single(shape, isa):
    out = check(np.zeros(shape, np.float32))
    if out.size:
        np.testing.assert_array_equal(out, 1)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_random_scores(data):
    dtype = data.draw(st.sampled_from(DTYPES))
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=12))
    numbers = st.one_of(st.just(-INF), st.floats(-1e4, 1e4, width=16))
    scores = data.draw(hnp.arrays(np.float16, shape, elements=numbers)).astype(dtype)
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    scale = data.draw(st.sampled_from(SCALES))
    before = slipstick.get_isa()
    slipstick.set_isa(data.draw(st.sampled_from(LEVELS)))
    try:
        check(scores, axis=axis, scale=scale)
    finally:
        slipstick.set_isa(before)


def test_the_reference_agrees_with_the_extended_one():
    scores = draw((4, 6, 9), np.float64)
    np.testing.assert_allclose(
        reference.softmax(scores, axis=1), exact(scores, axis=1)[0].astype(float), rtol=1e-14
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_hidden_scores_are_zero_and_not_counted(dtype, isa):
    scores = np.full((3, 8), -INF).astype(dtype)
    scores[0, ::2] = 5
    scores[1, 3] = -7
    out = slipstick.softmax(scores)
    np.testing.assert_array_equal(out[0].astype(float), [0.25, 0] * 4)
    np.testing.assert_array_equal(out[1].astype(float), np.arange(8) == 3)
    np.testing.assert_array_equal(out[2].astype(float), 0)
    np.testing.assert_array_equal(slipstick.softmax(scores, scale=-3.0)[2].astype(float), 0)


@pytest.mark.parametrize("bad", [np.nan, INF])
@pytest.mark.parametrize("scale", [LogN(), 0.0, -1.0, INF, math.nan], ids=repr)
def test_nan_and_infinity_propagate_in_their_row_only(bad, scale, isa):
    scores = draw((4, 40), np.float32, hidden=0)
    scores[1, 17] = bad
    out = check(scores, scale=scale)
    if scale == LogN():
        assert np.isnan(out[1]).all()
        assert np.isfinite(out[[0, 2, 3]]).all()


def test_shifting_the_scores_changes_nothing_but_rounding(isa):
    scores = draw((4, 100), np.float64, hidden=0)
    # Scores of size 1e3 have an ulp of 1e-13.
    np.testing.assert_allclose(
        slipstick.softmax(scores + 1000), slipstick.softmax(scores), rtol=1e-12
    )


def test_long_rows_keep_their_precision(isa):
    n = 1 << 20
    scores = np.zeros(n, np.float32)
    np.testing.assert_array_equal(slipstick.softmax(scores), np.float32(1 / n))
    check(draw((n,), np.float32))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bits_do_not_depend_on_threads_or_neighbours(dtype, isa):
    scores = draw((300, 200), dtype)
    before = slipstick.get_num_threads()
    results = []
    try:
        for count in (1, 2, 7, 7):
            slipstick.set_num_threads(count)
            results.append(slipstick.softmax(scores))
            results.append(slipstick.softmax(np.asfortranarray(scores)))
            results.append(slipstick.softmax(scores.T, axis=0).T)
    finally:
        slipstick.set_num_threads(before)
    results.append(np.concatenate([slipstick.softmax(row[np.newaxis]) for row in scores]))
    first = results[0].view(f"u{dtype.itemsize}")
    for other in results[1:]:
        np.testing.assert_array_equal(np.ascontiguousarray(other).view(first.dtype), first)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_in_place_and_strided(axis, isa, threads):
    scores = draw((40, 30, 50), np.float32)
    want = slipstick.softmax(scores, axis=axis)
    whole = scores.copy()
    assert slipstick.softmax(whole, axis=axis, out=whole) is whole
    np.testing.assert_array_equal(whole, want)
    big = np.full((80, 90, 100), 7, np.float32)
    view = big[::-2, 1::3, ::2]
    view[:] = scores
    slipstick.softmax(view, axis=axis, out=view)
    np.testing.assert_array_equal(view, want)
    assert (big[0::2] == 7).all()
    swapped = np.empty((50, 30, 40), np.float32).T
    slipstick.softmax(scores, axis=axis, out=swapped)
    np.testing.assert_array_equal(swapped, want)
    broadcast = np.broadcast_to(scores[:, :1], scores.shape)
    np.testing.assert_array_equal(
        slipstick.softmax(broadcast, axis=axis), slipstick.softmax(broadcast.copy(), axis=axis)
    )


def test_frameworks():
    scores = draw((3, 20), np.float32)
    want = slipstick.softmax(scores)
    torch = pytest.importorskip("torch")
    out = slipstick.softmax(torch.from_numpy(scores))
    assert isinstance(out, torch.Tensor)
    np.testing.assert_array_equal(out.numpy(), want)
    half = torch.from_numpy(scores).to(torch.bfloat16)
    assert slipstick.softmax(half, out=half) is half
    jax = pytest.importorskip("jax")
    out = slipstick.softmax(jax.numpy.asarray(scores), axis=0)
    assert isinstance(out, jax.Array)
    np.testing.assert_array_equal(np.asarray(out), slipstick.softmax(scores, axis=0))


X = np.zeros((2, 3, 4), np.float32)
REFUSALS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"scores": [1.0]}, TypeError, r"softmax: `scores` must be an array .*, got list"),
    ({"scores": np.arange(3)}, TypeError, r"`scores` must be float32, .*, got int64"),
    (
        {"scores": np.float32(1)[()], "out": None},
        ValueError,
        r"`scores` must have at least one axis",
    ),
    ({"axis": 3}, ValueError, r"`axis` must be from -3 to 2 for `scores` of shape .*, got 3"),
    ({"axis": -4}, ValueError, r"`axis` must be from -3 to 2 for `scores` .*, got -4"),
    ({"axis": 2**70}, ValueError, r"`axis` must be one of the axes of `scores`, got 11805916207"),
    ({"axis": 1.0}, TypeError, r"softmax: `axis` must be an int, got float"),
    ({"axis": None}, TypeError, r"`axis` must be an int, got NoneType"),
    ({"axis": True}, TypeError, r"`axis` must be an int, got bool"),
    (
        {"scale": "logn"},
        TypeError,
        r"softmax: `scale` must be an object of slipstick.scales, .*, got 'logn'",
    ),
    ({"scale": LogN}, TypeError, r"`scale` must be .* got the class LogN"),
    (
        {"scale": np.ones(4)},
        ValueError,
        r"`scale` must broadcast to the shape of `scores` without `axis`, here \(2, 3\)",
    ),
    ({"scale": np.ones(3, int)}, TypeError, r"`scale` must be float32, .*, got int64"),
    (
        {"scale": SSMax([1.0, 2.0, 3.0])},
        ValueError,
        r"`scale` must have one entry for all heads or one for each of the 2 heads, got 3",
    ),
    (
        {"out": np.zeros((2, 3, 5), np.float32)},
        ValueError,
        r"`out` must have shape \(2, 3, 4\), got",
    ),
    ({"out": np.zeros((2, 3, 4))}, TypeError, r"`out` must have dtype float32, got float64"),
    ({"out": np.broadcast_to(np.float32(0), (2, 3, 4))}, ValueError, r"`out` must be writable"),
]


@pytest.mark.parametrize(("bad", "error", "match"), REFUSALS)
def test_refusals(bad, error, match):
    out = np.full((2, 3, 4), 7, np.float32)
    with pytest.raises(error, match=match) as caught:
        slipstick.softmax(**({"scores": X, "out": out} | bad))
    assert str(caught.value).startswith("softmax: `")
    np.testing.assert_array_equal(out, 7)


def test_refused_overlap():
    pool = np.arange(25, dtype=np.float32)
    before = pool.copy()
    with pytest.raises(ValueError, match="softmax: `out` must not overlap `scores`"):
        slipstick.softmax(pool[:24].reshape(4, 6), out=pool[1:].reshape(4, 6))
    np.testing.assert_array_equal(pool, before)
    with pytest.raises(ValueError, match="softmax: `out` must not overlap `scale`"):
        slipstick.softmax(np.zeros((4, 6), np.float32), scale=pool[:4], out=pool[:24].reshape(4, 6))
    np.testing.assert_array_equal(pool, before)


def test_every_scale_is_tested():
    tested = {type(scale) for scale in SCALES if isinstance(scale, Scale)}
    assert tested == set(Scale.__subclasses__())
