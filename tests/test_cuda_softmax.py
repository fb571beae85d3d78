"""`slipstick.softmax` and `merge_attention` on CUDA devices, by the rules of the CPU's tests.

On emulated devices (`cuda_emulation`), and on the machine's own where it has some.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

import slipstick
from attention_oracle import DTYPES, INF, bits, distance, inputs, largest, ulp
from slipstick import AttentionStats
from slipstick.scales import LogN, SSMax
from test_attention_merge import CASES, exact_merge, longdouble, parts_of, row
from test_attention_merge import REFUSALS as MERGE_REFUSALS
from test_softmax import REFUSALS, SCALES, X, compare, draw

FLOAT32 = np.dtype(np.float32)


# --- Softmax --------------------------------------------------------------------------------------


def check(device, scores, **options):
    there = {
        name: device.array(value) if isinstance(value, np.ndarray) else value
        for name, value in options.items()
    }
    out = device.numpy(slipstick.softmax(device.array(scores), **there))
    return compare(out, scores, **options)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("scale", SCALES, ids=repr)
def test_scales(device, scale, dtype):
    check(device, draw((6, 37), dtype), scale=scale)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 7, 8, 9, 31, 32, 33, 127, 128, 129, 1021, 4099])
def test_lengths(device, n, dtype):
    check(device, draw((5, n), dtype))
    check(device, draw((n, 5), dtype), axis=0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -2, -4])
def test_axes_and_a_scale_a_head(device, axis, dtype):
    scores = draw((3, 20, 5, 4), dtype)
    check(device, scores, axis=axis)
    heads = np.moveaxis(scores, axis, -1).shape[-3]
    check(device, scores, axis=axis, scale=SSMax(np.linspace(-1, 1, heads), b=0.5))
    rows = np.moveaxis(scores, axis, -1).shape[:-1]
    check(device, scores, axis=axis, scale=np.random.default_rng(1).standard_normal(rows))
    check(device, scores, axis=axis, scale=np.linspace(0, 1, rows[-1]).astype(np.float32))


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 4), (1,), (1, 1, 1)], ids=str)
def test_empty_and_single(device, shape):
    out = check(device, np.zeros(shape, np.float32))
    if out.size:
        np.testing.assert_array_equal(out, 1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_hidden_scores_are_zero_and_not_counted(device, dtype):
    scores = np.full((3, 8), -INF).astype(dtype)
    scores[0, ::2] = 5
    scores[1, 3] = -7
    out = check(device, scores).astype(float)
    np.testing.assert_array_equal(out[0], [0.25, 0] * 4)
    np.testing.assert_array_equal(out[1], np.arange(8) == 3)
    np.testing.assert_array_equal(out[2], 0)
    np.testing.assert_array_equal(check(device, scores, scale=-3.0)[2].astype(float), 0)


@pytest.mark.parametrize("bad", [np.nan, INF])
@pytest.mark.parametrize("scale", [LogN(), 0.0, -1.0, INF, math.nan], ids=repr)
def test_nan_and_infinity_propagate_in_their_row_only(device, bad, scale):
    scores = draw((4, 40), np.float32, hidden=0)
    scores[1, 17] = bad
    out = check(device, scores, scale=scale)
    if scale == LogN():
        assert np.isnan(out[1]).all()
        assert np.isfinite(out[[0, 2, 3]]).all()


def test_long_rows_keep_their_precision(device):
    n = 1 << 17
    out = slipstick.softmax(device.array(np.zeros(n, np.float32)))
    np.testing.assert_array_equal(device.numpy(out), np.float32(1 / n))
    check(device, draw((n,), np.float32))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bits_do_not_depend_on_neighbours_or_layout(device, dtype):
    scores = draw((40, 300), dtype)
    there = device.array(scores)
    want = device.numpy(slipstick.softmax(there))
    turned = device.array(np.ascontiguousarray(scores.T))
    results = [
        slipstick.softmax(there),
        slipstick.softmax(turned.T),
        slipstick.softmax(turned, axis=0).T,
        slipstick.softmax(device.array(np.repeat(scores, 2, axis=1))[:, ::2]),
    ]
    for other in results:
        np.testing.assert_array_equal(bits(device.numpy(other)), bits(want))
    for i in (0, 17, 39):
        alone = device.numpy(slipstick.softmax(there[i]))
        np.testing.assert_array_equal(bits(alone), bits(want[i]))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_in_place_and_strided(device, axis):
    scores = draw((14, 30, 20), np.float32)
    want = device.numpy(slipstick.softmax(device.array(scores), axis=axis))
    whole = device.array(scores)
    assert slipstick.softmax(whole, axis=axis, out=whole) is whole
    np.testing.assert_array_equal(device.numpy(whole), want)
    big = np.full((28, 90, 40), 7, np.float32)
    big[::2, 1::3, ::2] = scores
    big = device.array(big)
    view = big[::2, 1::3, ::2]
    slipstick.softmax(view, axis=axis, out=view)
    np.testing.assert_array_equal(device.numpy(view), want)
    assert (device.numpy(big)[1::2] == 7).all()
    repeated = device.array(scores)[:, :1].broadcast_to(scores.shape)
    np.testing.assert_array_equal(
        device.numpy(slipstick.softmax(repeated, axis=axis)),
        device.numpy(slipstick.softmax(device.array(device.numpy(repeated)), axis=axis)),
    )


@pytest.mark.parametrize(("bad", "error", "match"), REFUSALS)
def test_refusals(device, bad, error, match):
    out = device.array(np.full((2, 3, 4), 7, np.float32))
    there = {
        name: device.array(value)
        if isinstance(value, np.ndarray) and value.flags.writeable
        else value
        for name, value in ({"scores": X} | bad).items()
    }
    if np.ndim(there["scores"]) == 0 and isinstance(there["scores"], np.generic):
        there["scores"] = device.array(there["scores"])
    if isinstance(there.get("out"), np.ndarray):
        match = r"`out` must be on CUDA device 0 like `scores`"
    with pytest.raises(error, match=match) as caught:
        slipstick.softmax(**({"out": out} | there))
    assert str(caught.value).startswith("softmax: `")
    np.testing.assert_array_equal(device.numpy(out), 7)


def test_refused_overlap(device):
    pool = device.array(np.arange(25, dtype=np.float32))
    with pytest.raises(ValueError, match="softmax: `out` must not overlap `scores`"):
        slipstick.softmax(pool[:24], out=pool[1:])
    np.testing.assert_array_equal(device.numpy(pool), np.arange(25))


# --- Merge ----------------------------------------------------------------------------------------


def there_parts(device, parts):
    return [(device.array(out), AttentionStats(*map(device.array, stats))) for out, stats in parts]


def merged(device, parts):
    out, stats = slipstick.merge_attention(there_parts(device, parts))
    return device.numpy(out), AttentionStats(*map(device.numpy, stats))


CUTS = [(), (150,), (0, 301), (7, 7, 40, 299), tuple(range(1, 301, 13))]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("cuts", CUTS, ids=lambda cuts: f"{len(cuts) + 1} parts")
def test_any_split_gives_the_whole(device, cuts, name, dtype):
    """The bounds of the CPU's test: roundings of each product and sum, and one to the dtype."""
    q, k, v = inputs(2, 4, 2, 37, 301, 16, 9, dtype)
    parts = parts_of(q, k, v, cuts, CASES[name])
    out, stats = merged(device, parts)
    assert (out.dtype, out.shape) == (dtype, (2, 4, 37, 9))
    wide = dtype == np.float64
    stats_dtype = np.dtype(np.float64 if wide else np.float32)
    assert {x.dtype for x in stats} == {stats_dtype}
    u = 2.0 ** (-53 if wide else -24)
    total, rows = exact_merge(longdouble(parts))
    size = max(largest(part) for part, _ in parts)
    rounding = (len(parts) + 2) * u * size + 0.5 * ulp(dtype, size)
    assert distance(out.astype(np.longdouble), total).max() <= rounding
    for got, right in zip(stats, rows, strict=True):
        bound = 0.5 * ulp(stats_dtype, largest(right)) + 8 * (len(parts) + 2) * 2.0**-53 * max(
            1, largest(right)
        )
        assert distance(got.astype(np.longdouble), right).max() <= bound
    assert (stats.entropy >= 0).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_part_is_itself(device, dtype):
    q, k, v = inputs(1, 2, 1, 5, 9, 8, 33, dtype)
    part = slipstick.attention(q, k, v, causal=True, return_stats=True)
    empty = slipstick.attention(q, k[:, :, :0], v[:, :, :0], return_stats=True)
    for parts in ([part], [empty, part], [part, empty, empty]):
        out, stats = merged(device, parts)
        np.testing.assert_array_equal(out, part[0])
        for got, want in zip(stats, part[1], strict=True):
            np.testing.assert_array_equal(got, want)


def test_empty_with_empty_is_empty(device):
    q, k, v = inputs(2, 2, 1, 5, 3, 8, 7, np.float32)
    empty = slipstick.attention(q, k[:, :, :0], v[:, :, :0], return_stats=True)
    some = slipstick.attention(q, k, v, causal=True, return_stats=True)  # rows 0 and 1 see nothing
    for parts in ([empty], [empty] * 3, [empty, some], [some, some]):
        out, stats = merged(device, parts)
        rows = np.s_[:, :, :2]
        np.testing.assert_array_equal(out[rows], 0)
        np.testing.assert_array_equal(stats.lse[rows], -INF)
        np.testing.assert_array_equal(stats.entropy[rows], 0)
        np.testing.assert_array_equal(stats.max_logit[rows], -INF)
        assert not np.isnan(out).any()


def test_special_rows(device):
    """What an empty row holds is not read; what is not finite propagates; e^-1e5 is 0."""
    out, stats = merged(device, [row(math.nan, -INF, math.nan, math.nan), row(3.0, 1.0, 0.5, 0.25)])
    assert (out.item(), *(x.item() for x in stats)) == (3.0, 1.0, 0.5, 0.25)
    out, stats = merged(device, [row(1.0, 2.0), row(math.nan, math.nan, math.nan, INF)])
    assert np.isnan([out.item(), stats.lse.item(), stats.entropy.item()]).all()
    assert stats.max_logit.item() == INF
    parts = [row(1.0, 2.0, 0.0, 5.0), row(1.0, math.nan, 0.0, math.nan), row(1.0, 2.0, 0.0, 9.0)]
    assert np.isnan(merged(device, parts)[1].max_logit.item())
    parts = [row(1.0, -5e4, 2.0, -5e4), row(7.0, 5e4, 1.5, 5e4), row(1.0, -3e38, 2.0, -3e38)]
    out, stats = merged(device, parts)
    assert (out.item(), *(x.item() for x in stats)) == (7.0, 5e4, 1.5, 5e4)
    out, stats = merged(device, [row(float(i), 1.0, 0.5) for i in range(8)])
    assert out.item() == 3.5
    assert stats.entropy.item() == np.float32(0.5 + math.log(8))


def test_strided_parts_and_fewer_axes(device):
    q, k, v = inputs(2, 4, 2, 37, 100, 16, 9, np.float32)
    parts = parts_of(q, k, v, (60,), {})
    want, want_stats = merged(device, parts)
    turned = []
    for out, stats in parts:
        wide = device.array(np.ascontiguousarray(out.transpose(3, 2, 1, 0)))
        rows = [device.array(np.ascontiguousarray(x.transpose(2, 1, 0))) for x in stats]
        turned.append(
            (wide.permute(3, 2, 1, 0), AttentionStats(*(x.permute(2, 1, 0) for x in rows)))
        )
    out, stats = slipstick.merge_attention(turned)
    np.testing.assert_array_equal(device.numpy(out), want)
    np.testing.assert_array_equal(device.numpy(stats.entropy), want_stats.entropy)
    for at in ((0,), (0, 3)):
        fewer = [(out[at], AttentionStats(*(x[at] for x in stats))) for out, stats in parts]
        out, stats = merged(device, fewer)
        np.testing.assert_array_equal(out, want[at])
        np.testing.assert_array_equal(stats.lse, want_stats.lse[at])


@pytest.mark.parametrize("shape", [(0, 2, 3, 4), (2, 2, 0, 4), (2, 2, 3, 0)])
def test_no_rows_and_no_columns(device, shape):
    part = np.zeros(shape, np.float32), AttentionStats(*np.ones((3, *shape[:3]), np.float32))
    out, stats = merged(device, [part, part])
    assert (out.shape, stats.lse.shape) == (shape, shape[:3])
    np.testing.assert_array_equal(stats.max_logit, 1)
    assert distance(stats.lse, np.float32(1 + math.log(2))).max(initial=0) == 0


@pytest.mark.parametrize(("parts", "error", "match"), MERGE_REFUSALS)
def test_merge_refusals(device, parts, error, match):
    def there(value):
        if isinstance(value, AttentionStats):
            return AttentionStats(*map(there, value))
        if isinstance(value, (list, tuple)):
            return type(value)(map(there, value))
        return device.array(value) if isinstance(value, np.ndarray) else value

    if isinstance(parts, np.ndarray) or (isinstance(parts, list) and parts == []):
        pytest.skip("nothing that would lie on a device")
    match = match.replace("ndarray", r"(EmulatedArray|Tensor)")
    with pytest.raises(error, match=match) as caught:
        slipstick.merge_attention(there(parts))
    assert str(caught.value).startswith("merge_attention: `")


def test_parts_on_two_devices(device):
    part = np.zeros((2, 3), np.float32), AttentionStats(*np.ones((3, 2), np.float32))
    ((here, stats),) = there_parts(device, [part])
    with pytest.raises(ValueError, match=r"^merge_attention: `parts\[1\].out` must be on CUDA dev"):
        slipstick.merge_attention([(here, stats), (part[0], stats)])
    with pytest.raises(ValueError, match=r"^merge_attention: `parts\[0\].lse` must be on CUDA dev"):
        slipstick.merge_attention([(here, stats._replace(lse=part[1].lse))])


def test_graphs(device):
    parts = parts_of(*inputs(2, 4, 2, 37, 100, 16, 9, np.float32), (60,), {})
    scores = draw((6, 37), np.float32)
    there, there_scores = there_parts(device, parts), device.array(scores)
    with device.capture() as graph:
        out, _ = slipstick.merge_attention(there)
        weights = slipstick.softmax(there_scores, scale=SSMax(0.2))
    graph.replay()
    np.testing.assert_array_equal(device.numpy(out), merged(device, parts)[0])
    want = device.numpy(slipstick.softmax(there_scores, scale=SSMax(0.2)))
    np.testing.assert_array_equal(device.numpy(weights), want)
