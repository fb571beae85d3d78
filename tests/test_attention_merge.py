"""`slipstick.merge_attention`: parts over disjoint keys give the whole."""

from __future__ import annotations

import doctest
import itertools
import math
from typing import Any

import numpy as np
import pytest

import slipstick
from attention_oracle import BF16, DTYPES, INF, distance, exact_rows, inputs, largest, ulp
from slipstick import AttentionStats, reference
from slipstick.scales import LogN, SSMax, Su

QUERIES, KEYS = 37, 301


def parts_of(q, k, v, cuts, options):
    """Attention over the keys between neighbouring cuts, each with the whole's n."""
    ends = [0, *cuts, k.shape[-2]]
    counts = np.full((q.shape[0], q.shape[2]), k.shape[2])
    visible = np.ones((q.shape[2], k.shape[2]), bool)
    if options.get("causal"):
        at = np.arange(q.shape[2]) + k.shape[2] - q.shape[2]
        visible = np.arange(k.shape[2]) <= at[:, np.newaxis]
        counts = np.broadcast_to(np.clip(at + 1, 0, None), counts.shape)
    others = {name: value for name, value in options.items() if name != "causal"}
    return [
        slipstick.attention(
            q,
            k[:, :, a:b],
            v[:, :, a:b],
            n_keys=counts,
            mask=visible[:, a:b],
            return_stats=True,
            **others,
        )
        for a, b in itertools.pairwise(ends)
    ]


def longdouble(parts):
    return [
        (out.astype(np.longdouble), AttentionStats(*(x.astype(np.longdouble) for x in stats)))
        for out, stats in parts
    ]


def exact_merge(parts):
    """The definition, row by row in longdouble."""
    lse, entropy, top = (np.stack([stats[i] for _, stats in parts]) for i in range(3))
    outs = np.stack([out for out, _ in parts])
    total = np.zeros(outs.shape[1:], np.longdouble)
    stats = np.zeros((3, *lse.shape[1:]), np.longdouble)
    for at in np.ndindex(lse.shape[1:]):
        used = [p for p in range(len(parts)) if lse[(p, *at)] != -INF]
        m = max((lse[(p, *at)] for p in used), default=np.longdouble(-INF))
        weights = [np.exp(lse[(p, *at)] - m) for p in used]
        z = sum(weights, np.longdouble(0))
        stats[(slice(None), *at)] = (-INF, 0, -INF)
        if used:
            stats[(0, *at)] = m + np.log(z)
            stats[(2, *at)] = max(top[(p, *at)] for p in used)
        for p, w in zip(used, weights, strict=True):
            total[at] += w / z * outs[(p, *at)]
            stats[(1, *at)] += w / z * (entropy[(p, *at)] - (np.log(w / z) if w > 0 else 0))
    return total, stats


CASES: dict[str, dict[str, Any]] = {
    "full": {},
    "causal": {"causal": True},
    "causal, SSMax": {"causal": True, "scale": SSMax(0.3)},
    "negative": {"scale": Su(-1.3)},
    "softcap": {"softcap": 2.0},
    "sharp": {"scale": 3.0},
}
CUTS = [(), (150,), (1,), (300,), (0, 301), (7, 7, 40, 299), tuple(range(1, 301, 13))]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("cuts", CUTS, ids=lambda cuts: f"{len(cuts) + 1} parts")
def test_any_split_gives_the_whole(cuts, name, dtype):
    options = CASES[name]
    q, k, v = inputs(2, 4, 2, QUERIES, KEYS, 16, 9, dtype)
    parts = parts_of(q, k, v, cuts, options)
    out, stats = slipstick.merge_attention(parts)
    assert (out.dtype, out.shape) == (dtype, (2, 4, QUERIES, 9))
    wide = dtype == np.float64
    stats_dtype = np.dtype(np.float64 if wide else np.float32)
    assert {x.dtype for x in stats} == {stats_dtype}

    # Of the merge itself: every product w o rounds once, the weight once, the sum once a part (u of
    # the largest |o|, which bounds every partial sum), and the result once to its own type.
    u = 2.0 ** (-53 if wide else -24)
    total, rows = exact_merge(longdouble(parts))
    size = max(largest(part) for part, _ in parts)
    rounding = (len(parts) + 2) * u * size + 0.5 * ulp(dtype, size)
    assert distance(out.astype(np.longdouble), total).max() <= rounding
    for got, right in zip(stats, rows, strict=True):
        # Computed in float64 from a sum of parts; then one rounding to the statistics' type.
        bound = 0.5 * ulp(stats_dtype, largest(right)) + 8 * (len(parts) + 2) * 2.0**-53 * max(
            1, largest(right)
        )
        assert distance(got.astype(np.longdouble), right).max() <= bound

    # Against the whole: what the parts' own statistics carry. An error e in the parts' lse moves
    # their weights by 2 e, so out by 2 e of its size and the entropy by 2 e (H + ln parts + 1).
    exact = exact_rows(q, k, v, options)
    absolute = 2e-14 if wide else 1e-5  # the specification's, for each of the statistics
    error = absolute + 2 * ulp(stats_dtype, largest(exact.lse))
    own = 2 * ulp(dtype, size) + absolute  # the parts' out, and of 16-bit ones its rounding
    assert distance(out.astype(np.longdouble), exact.out).max() <= 2 * error * size + own + rounding
    assert distance(stats.lse.astype(np.longdouble), exact.lse).max() <= 2 * error
    spread = largest(exact.entropy) + math.log(len(parts)) + 1
    assert distance(stats.entropy.astype(np.longdouble), exact.entropy).max() <= 2 * error * spread
    assert distance(stats.max_logit.astype(np.longdouble), exact.max_logit).max() <= error
    assert (stats.entropy >= 0).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_agrees_with_the_reference(dtype):
    q, k, v = inputs(2, 4, 2, QUERIES, KEYS, 16, 9, dtype)
    parts = parts_of(q, k, v, (0, 50, 280), {"causal": True})
    out, stats = slipstick.merge_attention(iter(parts))
    total, rows = reference.merge_attention(parts)
    exact, exact_stats = exact_merge(longdouble(parts))
    # The reference is float64 throughout: a few roundings of numbers of size 10.
    own = 1e-14
    assert distance(total, exact).max() <= own
    for got, mine, right in zip(rows, stats, exact_stats, strict=True):
        assert distance(got, right).max() <= own
        assert distance(mine.astype(float), got).max() <= ulp(mine.dtype, largest(right)) + own
    assert distance(out.astype(float), total).max() <= ulp(dtype, largest(total)) + 2.0**-20


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_part_is_itself(dtype, isa):
    q, k, v = inputs(1, 2, 1, 5, 9, 8, 33, dtype)
    part = slipstick.attention(q, k, v, causal=True, return_stats=True)
    empty = slipstick.attention(q, k[:, :, :0], v[:, :, :0], return_stats=True)
    for parts in ([part], [empty, part], [part, empty, empty]):
        out, stats = slipstick.merge_attention(parts)
        np.testing.assert_array_equal(out, part[0])
        for got, want in zip(stats, part[1], strict=True):
            np.testing.assert_array_equal(got, want)


def test_empty_with_empty_is_empty():
    q, k, v = inputs(2, 2, 1, 5, 3, 8, 7, np.float32)
    empty = slipstick.attention(q, k[:, :, :0], v[:, :, :0], return_stats=True)
    some = slipstick.attention(q, k, v, causal=True, return_stats=True)  # rows 0 and 1 see nothing
    for parts in ([empty], [empty] * 3, [empty, some], [some, some]):
        out, stats = slipstick.merge_attention(parts)
        rows = np.s_[:, :, :2]
        np.testing.assert_array_equal(out[rows], 0)
        np.testing.assert_array_equal(stats.lse[rows], -INF)
        np.testing.assert_array_equal(stats.entropy[rows], 0)
        np.testing.assert_array_equal(stats.max_logit[rows], -INF)
        assert not np.isnan(out).any()


def row(out, lse, entropy=0.0, max_logit=0.0):
    return np.float32([[out]]), AttentionStats(
        *(np.float32([x]) for x in (lse, entropy, max_logit))
    )


def test_what_an_empty_row_holds_is_not_read():
    out, stats = slipstick.merge_attention(
        [row(math.nan, -INF, math.nan, math.nan), row(3.0, 1.0, 0.5, 0.25)]
    )
    assert (out.item(), *(x.item() for x in stats)) == (3.0, 1.0, 0.5, 0.25)


def test_what_is_not_finite_propagates():
    out, stats = slipstick.merge_attention([row(1.0, 2.0), row(math.nan, math.nan, math.nan, INF)])
    assert np.isnan([out.item(), stats.lse.item(), stats.entropy.item()]).all()
    assert stats.max_logit.item() == INF
    _, stats = slipstick.merge_attention(
        [row(1.0, 2.0, 0.0, 5.0), row(1.0, math.nan, 0.0, math.nan), row(1.0, 2.0, 0.0, 9.0)]
    )
    assert np.isnan(stats.max_logit.item())


def test_weights_far_apart():
    """e^-1e5 is 0, and 0 ln 0 too; the larger part comes out as it went in."""
    out, stats = slipstick.merge_attention(
        [row(1.0, -5e4, 2.0, -5e4), row(7.0, 5e4, 1.5, 5e4), row(1.0, -3e38, 2.0, -3e38)]
    )
    assert (out.item(), *(x.item() for x in stats)) == (7.0, 5e4, 1.5, 5e4)


def test_equal_parts_add_the_entropy_of_their_number():
    out, stats = slipstick.merge_attention([row(float(i), 1.0, 0.5) for i in range(8)])
    assert out.item() == 3.5
    assert stats.entropy.item() == np.float32(0.5 + math.log(8))
    assert stats.lse.item() == np.float32(1 + math.log(8))


def test_bits_do_not_depend_on_threads(threads, isa):
    q, k, v = inputs(2, 4, 2, 200, 301, 64, 64, np.float32)
    parts = parts_of(q, k, v, (100, 200), {"causal": True})
    out, stats = slipstick.merge_attention(parts)
    alone = []
    for b, i in ((0, 0), (1, 199)):
        at = np.s_[b : b + 1, :, i : i + 1]
        row_parts = [(part[at], AttentionStats(*(x[at] for x in s))) for part, s in parts]
        alone.append(slipstick.merge_attention(row_parts))
    for (one, one_stats), (b, i) in zip(alone, ((0, 0), (1, 199)), strict=True):
        np.testing.assert_array_equal(one[0, :, 0], out[b, :, i])
        for got, all_ in zip(one_stats, stats, strict=True):
            np.testing.assert_array_equal(got[0, :, 0], all_[b, :, i])
    before = slipstick.get_num_threads()
    slipstick.set_num_threads(1)
    again, again_stats = slipstick.merge_attention(parts)
    slipstick.set_num_threads(before)
    np.testing.assert_array_equal(out, again)
    for a, b in zip(stats, again_stats, strict=True):
        np.testing.assert_array_equal(a, b)


def test_strided_parts_and_fewer_axes():
    q, k, v = inputs(2, 4, 2, QUERIES, KEYS, 16, 9, np.float32)
    parts = parts_of(q, k, v, (100,), {})
    want, want_stats = slipstick.merge_attention(parts)
    turned = [
        (
            np.ascontiguousarray(out.transpose(3, 2, 1, 0)).transpose(3, 2, 1, 0)[:, ::-1],
            AttentionStats(*(np.asfortranarray(x)[:, ::-1] for x in stats)),
        )
        for out, stats in parts
    ]
    out, stats = slipstick.merge_attention(turned)
    np.testing.assert_array_equal(out, want[:, ::-1])
    np.testing.assert_array_equal(stats.entropy, want_stats.entropy[:, ::-1])
    for at in ((0,), (0, 3)):
        fewer = [(out[at], AttentionStats(*(x[at] for x in stats))) for out, stats in parts]
        out, stats = slipstick.merge_attention(fewer)
        np.testing.assert_array_equal(out, want[at])
        np.testing.assert_array_equal(stats.lse, want_stats.lse[at])


@pytest.mark.parametrize("shape", [(0, 2, 3, 4), (2, 2, 0, 4), (2, 2, 3, 0)])
def test_no_rows_and_no_columns(shape):
    part = np.zeros(shape, np.float32), AttentionStats(*np.ones((3, *shape[:3]), np.float32))
    out, stats = slipstick.merge_attention([part, part])
    assert (out.shape, stats.lse.shape) == (shape, shape[:3])
    np.testing.assert_array_equal(stats.max_logit, 1)
    assert distance(stats.lse, np.float32(1 + math.log(2))).max(initial=0) == 0


@pytest.mark.parametrize("name", ["float32", "float64", "float16", "bfloat16"])
def test_torch(name):
    torch = pytest.importorskip("torch")
    q, k, v = (
        torch.from_numpy(x).to(getattr(torch, name)) for x in inputs(1, 2, 2, 9, 30, 8, 8, "f4")
    )
    parts = [
        slipstick.attention(q, k[:, :, at], v[:, :, at], n_keys=30, return_stats=True)
        for at in (slice(0, 11), slice(11, 30))
    ]
    out, stats = slipstick.merge_attention(parts)
    assert all(isinstance(x, torch.Tensor) for x in (out, *stats))
    assert out.dtype == q.dtype
    dtype = BF16 if name == "bfloat16" else np.dtype(name)
    arrays = [
        (part.double().numpy().astype(dtype), AttentionStats(*(x.numpy() for x in rows)))
        for part, rows in parts
    ]
    want, want_stats = slipstick.merge_attention(arrays)
    np.testing.assert_array_equal(out.double().numpy(), want.astype(np.float64))
    np.testing.assert_array_equal(stats.entropy.numpy(), want_stats.entropy)


def test_jax():
    jax = pytest.importorskip("jax")
    q, k, v = map(jax.numpy.asarray, inputs(1, 2, 2, 9, 30, 8, 8, np.float32))
    part = slipstick.attention(q, k, v, return_stats=True)
    out, stats = slipstick.merge_attention([part])
    assert all(isinstance(x, jax.Array) for x in (out, *stats))
    np.testing.assert_array_equal(np.asarray(out), np.asarray(part[0]))


# --- Refusals -------------------------------------------------------------------------------------

OUT = np.zeros((2, 4, 5, 6), np.float32)
STATS = AttentionStats(*np.zeros((3, 2, 4, 5), np.float32))
GOOD = (OUT, STATS)

REFUSALS: list[tuple[Any, type[Exception], str]] = [
    (None, TypeError, r"`parts` must be an iterable of pairs \(out, .*\), got NoneType"),
    (OUT, TypeError, r"`parts` must be an iterable of pairs \(out, .*\), got ndarray"),
    ([], ValueError, r"`parts` must hold at least one part, got none"),
    ([OUT], TypeError, r"`parts\[0\]` must be a pair \(out, AttentionStats\), got ndarray"),
    ([GOOD, (OUT,)], ValueError, r"`parts\[1\]` must be a pair .*, got 1 entries"),
    (
        [(OUT, STATS.lse)],
        TypeError,
        r"`parts\[0\]` must be a pair .*, got ndarray for the statistics",
    ),
    ([(OUT, tuple(STATS))], TypeError, r"`parts\[0\]` must be a pair .*, got tuple"),
    ([([1.0], STATS)], TypeError, r"`parts\[0\].out` must be an array .*, got list"),
    ([(OUT, STATS._replace(lse=None))], TypeError, r"`parts\[0\].lse` must be an array"),
    ([(OUT.astype(int), STATS)], TypeError, r"`parts\[0\].out` must be float32, .*, got int64"),
    (
        [GOOD, (OUT.astype(np.float16), STATS)],
        TypeError,
        r"`parts\[1\].out` must have dtype float32 like `parts\[0\].out`, got float16",
    ),
    ([(OUT[0, 0, 0], STATS)], ValueError, r"`parts\[0\].out` must have 2, 3 or 4 axes, got shape"),
    ([(OUT[None], STATS)], ValueError, r"`parts\[0\].out` must have 2, 3 or 4 axes, got shape"),
    (
        [GOOD, (OUT[..., :5], STATS)],
        ValueError,
        r"`parts\[1\].out` must have shape \(2, 4, 5, 6\) like `parts\[0\].out`, "
        r"got \(2, 4, 5, 5\)",
    ),
    (
        [(OUT, STATS._replace(entropy=STATS.entropy[:, :1]))],
        ValueError,
        r"`parts\[0\].entropy` must have shape \(2, 4, 5\) like `parts\[0\].out` without its last "
        r"axis, got \(2, 1, 5\)",
    ),
    (
        [GOOD, (OUT, STATS._replace(max_logit=STATS.max_logit.astype(np.float64)))],
        TypeError,
        r"`parts\[1\].max_logit` must be float32 for parts that are not float64, got float64",
    ),
    (
        [(OUT.astype(np.float64), STATS)],
        TypeError,
        r"`parts\[0\].lse` must be float64 for float64 parts, got float32",
    ),
]


@pytest.mark.parametrize(("parts", "error", "match"), REFUSALS)
def test_refusals(parts, error, match):
    with pytest.raises(error, match=match) as caught:
        slipstick.merge_attention(parts)
    assert str(caught.value).startswith("merge_attention: `")
    assert "\n" not in str(caught.value)


def test_parts_that_used_a_local_n_do_not_give_the_whole():
    """What n_keys is for: the local count gives another factor."""
    q, k, v = inputs(1, 1, 1, 4, 200, 16, 8, np.float32, spread=2.0)
    whole = slipstick.attention(q, k, v, scale=LogN())
    local = [
        slipstick.attention(q, k[:, :, at], v[:, :, at], return_stats=True)
        for at in (slice(0, 10), slice(10, 200))
    ]
    assert distance(slipstick.merge_attention(local)[0], whole).max() > 1e-3


def test_examples():
    import slipstick._attention_merge as module
    import slipstick.reference._merge as definition

    for each in (module, definition):
        result = doctest.testmod(each)
        assert result.attempted > 0
        assert result.failed == 0
