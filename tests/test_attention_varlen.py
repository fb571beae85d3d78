"""`slipstick.attention_varlen`: packed sequences give the bits of a loop over them."""

from __future__ import annotations

import doctest
import functools
import itertools
import math

import numpy as np
import pytest

import slipstick
from attention_cases import LENGTHS, OF_ANY_LENGTH, Options, packed, starts
from attention_oracle import DTYPES, INF, bits, distance, expected, largest, ulp
from peak_memory import bytes_taken
from slipstick import reference
from slipstick.scales import SSMax


def sequences(arrays, options, heads):
    """Yield, for each sequence, its queries, and the arguments of `attention` for it alone."""
    q, k, v, cu_q, cu_k = arrays
    pairs = zip(itertools.pairwise(cu_q), itertools.pairwise(cu_k), strict=True)
    for s, ((start, stop), (first, last)) in enumerate(pairs):
        own = dict(options)
        scale, n_keys = options.get("scale"), options.get("n_keys")
        if isinstance(scale, np.ndarray):
            own["scale"] = np.broadcast_to(scale, (heads, len(q)))[:, start:stop]
        if n_keys is not None and np.ndim(n_keys) > 0:
            n_keys = np.asarray(n_keys)
            by_sequence = n_keys.shape == (len(cu_q) - 1,)
            own["n_keys"] = n_keys[s].item() if by_sequence else n_keys.reshape(-1)[start:stop]
        parts = (q[start:stop], k[first:last], v[first:last])
        yield slice(start, stop), tuple(x.swapaxes(0, 1) for x in parts), own


def assert_equal_to_the_loop(arrays, options, heads):
    out, stats = slipstick.attention_varlen(*arrays, return_stats=True, **options)
    assert out.shape == (len(arrays[0]), heads, arrays[2].shape[2])
    assert out.dtype == arrays[0].dtype
    for at, alone, own in sequences(arrays, options, heads):
        one, one_stats = slipstick.attention(*alone, return_stats=True, **own)
        np.testing.assert_array_equal(bits(out[at].swapaxes(0, 1)), bits(one))
        for whole, part in zip(stats, one_stats, strict=True):
            assert whole.shape == (heads, len(out))
            assert whole.dtype == part.dtype
            np.testing.assert_array_equal(bits(whole[:, at]), bits(part))
    np.testing.assert_array_equal(bits(slipstick.attention_varlen(*arrays, **options)), bits(out))
    return out, stats


TOTAL = sum(queries for queries, _ in LENGTHS)
PER_ROW = 0.4 * np.random.default_rng(2).standard_normal((4, TOTAL))
OPTIONS: Options = {
    **OF_ANY_LENGTH,
    "array": {"scale": PER_ROW, "causal": True},
    "array of queries": {"scale": PER_ROW[0]},
    "array of heads": {"scale": PER_ROW[:, :1].astype(np.float32)},
    "n_keys a sequence": {"n_keys": np.arange(10, 19, dtype=np.uint8)},
    "n_keys a query": {"n_keys": np.arange(TOTAL)[::-1], "causal": True},
    "n_keys a query, two axes": {"n_keys": np.arange(TOTAL)[np.newaxis], "scale": SSMax(0.2)},
}


@functools.cache
def grid(dtype):
    return packed(LENGTHS, 4, 2, 13, 9, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", OPTIONS)
def test_equal_to_the_loop(name, dtype, isa):
    assert_equal_to_the_loop(grid(dtype), OPTIONS[name], 4)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", OPTIONS)
def test_error(name, dtype):
    """The rules of attention, for the packed tensor: e_ref is that of a naive loop over it."""
    arrays, options = grid(dtype), OPTIONS[name]
    out, stats = slipstick.attention_varlen(*arrays, return_stats=True, **options)
    definition, _ = reference.attention_varlen(*arrays, return_stats=True, **options)
    yardstick, error, size, gaps = 0.0, 0.0, 0.0, []
    for at, alone, own in sequences(arrays, options, 4):
        if out[at].size == 0:
            continue
        exact, errors = expected(*alone, own)
        if dtype != np.float64:  # whose exact values are longdouble
            np.testing.assert_array_equal(definition[at].swapaxes(0, 1), exact.out)
        yardstick, size = max(yardstick, errors.out), max(size, largest(exact.out))
        got = out[at].swapaxes(0, 1).astype(np.longdouble)
        error = max(error, distance(got, exact.out).max(initial=0))
        gaps.append([(distance(a[:, at], b), b) for a, b in zip(stats, exact[1:], strict=True)])
    assert error <= yardstick + 2 * ulp(dtype, size)
    absolute = 2e-14 if dtype == np.float64 else 1e-5
    for gap, right in itertools.chain(*gaps):
        assert gap.max() <= absolute + 2 * ulp(stats.lse.dtype, largest(right))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("heads", [(1, 1), (6, 1), (3, 3), (8, 2)], ids=str)
@pytest.mark.parametrize("dims", [(64, 64), (1, 3), (128, 20), (300, 5), (8, 0)], ids=str)
def test_sizes(dims, heads, causal, threads):
    lengths = [(3, 250), (200, 200), (1, 1), (64, 0), (65, 500), (1, 479)]
    arrays = packed(lengths, *heads, *dims, np.float32)
    assert_equal_to_the_loop(arrays, {"causal": causal}, heads[0])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equal_lengths_are_the_batch(dtype, isa):
    q, k, v, cu_q, cu_k = packed([(70, 130)] * 5, 4, 2, 16, 8, dtype)
    out, stats = slipstick.attention_varlen(q, k, v, cu_q, cu_k, causal=True, return_stats=True)
    batch = (x.reshape(5, -1, *x.shape[1:]).swapaxes(1, 2) for x in (q, k, v))
    want, want_stats = slipstick.attention(*batch, causal=True, return_stats=True)
    np.testing.assert_array_equal(bits(out.reshape(5, 70, 4, 8).swapaxes(1, 2)), bits(want))
    for got, right in zip(stats, want_stats, strict=True):
        np.testing.assert_array_equal(bits(got.reshape(4, 5, 70).swapaxes(0, 1)), bits(right))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bits_depend_on_the_sequence_alone(dtype, isa):
    """Not on threads, on the run, or on the other sequences and their order."""
    arrays = grid(dtype)
    before = slipstick.get_num_threads()
    try:
        slipstick.set_num_threads(1)
        whole = slipstick.attention_varlen(*arrays, causal=True, return_stats=True)
        for count in (1, 2, 7, 7):
            slipstick.set_num_threads(count)
            again = slipstick.attention_varlen(*arrays, causal=True, return_stats=True)
            for a, b in zip((whole[0], *whole[1]), (again[0], *again[1]), strict=True):
                np.testing.assert_array_equal(bits(a), bits(b))
    finally:
        slipstick.set_num_threads(before)
    q, k, v, cu_q, cu_k = arrays
    order = np.random.default_rng(0).permutation(len(LENGTHS))
    tokens_q, tokens_k = (
        np.concatenate([np.arange(cu[s], cu[s + 1]) for s in order]) for cu in (cu_q, cu_k)
    )
    lengths = [LENGTHS[s] for s in order]
    other = slipstick.attention_varlen(
        q[tokens_q],
        k[tokens_k],
        v[tokens_k],
        *(starts([pair[i] for pair in lengths]) for i in range(2)),
        causal=True,
    )
    np.testing.assert_array_equal(bits(other), bits(whole[0][tokens_q]))


def test_more_packed_keys_than_are_alive_at_once(threads):
    """Packed, the keys and values of one head of the longer ones are 4 MiB: several rounds."""
    lengths = [(80, 6000), (3, 50), (80, 7000), (1, 9000), (70, 6500)]
    arrays = packed(lengths, 2, 2, 64, 64, np.float32)
    assert_equal_to_the_loop(arrays, {}, 2)


def test_many_short_sequences(threads):
    rng = np.random.default_rng(0)
    lengths = [(int(a), int(b)) for a, b in rng.integers(0, 9, (700, 2))]
    arrays = packed([*lengths, (300, 900), *lengths], 2, 1, 8, 8, np.float32)
    assert_equal_to_the_loop(arrays, {"causal": True}, 2)


def test_empty_rows():
    q, k, v, cu_q, cu_k = packed([(5, 0), (4, 2), (0, 7)], 2, 2, 8, 8, np.float32)
    for n_keys in (None, 100):
        out, stats = slipstick.attention_varlen(
            q, k, v, cu_q, cu_k, causal=True, n_keys=n_keys, return_stats=True
        )
        empty = slice(0, 7)  # a sequence without keys, two queries before the first key
        np.testing.assert_array_equal(out[empty], 0)
        np.testing.assert_array_equal(stats.lse[:, empty], -INF)
        np.testing.assert_array_equal(stats.entropy[:, empty], 0)
        np.testing.assert_array_equal(stats.max_logit[:, empty], -INF)
        assert np.isfinite(stats.lse[:, 7:]).all()


@pytest.mark.parametrize("sizes", [(0, 0), (0, 5), (5, 0)], ids=str)
@pytest.mark.parametrize("count", [0, 1, 3])
def test_no_sequences_and_no_tokens(count, sizes):
    if count == 0 and sizes != (0, 0):
        pytest.skip("tokens belong to a sequence")
    arrays = packed([(0, 0), (0, 0), sizes][3 - count :], 2, 1, 4, 6, np.float32)
    out, stats = slipstick.attention_varlen(*arrays, return_stats=True)
    assert (out.shape, stats.lse.shape) == ((sizes[0], 2, 6), (2, sizes[0]))
    np.testing.assert_array_equal(out, 0)
    assert slipstick.attention_varlen(*arrays).shape == out.shape


def test_no_heads():
    arrays = packed([(3, 4)], 0, 0, 4, 6, np.float32)
    out, stats = slipstick.attention_varlen(*arrays, return_stats=True)
    assert (out.shape, stats.lse.shape) == ((3, 0, 6), (0, 3))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_another_sequence_holds_does_no_harm(bad, isa):
    arrays = grid(np.dtype(np.float32))
    q, k, v, cu_q, cu_k = (x.copy() for x in arrays)
    clean = slipstick.attention_varlen(*arrays)
    for x, cu in ((q, cu_q), (k, cu_k), (v, cu_k)):
        x[cu[2] : cu[3]] = bad
    spoilt = slipstick.attention_varlen(q, k, v, cu_q, cu_k)
    assert np.isnan(spoilt[cu_q[2] : cu_q[3]]).all()
    for part in (slice(0, cu_q[2]), slice(cu_q[3], None)):
        np.testing.assert_array_equal(spoilt[part], clean[part])


def test_merging_shards_of_packed_keys():
    """The statistics have the heads first, so out is turned."""
    q, k, v, cu_q, cu_k = packed([(9, 40), (4, 30)], 4, 2, 16, 8, np.float32)
    whole, whole_stats = slipstick.attention_varlen(q, k, v, cu_q, cu_k, return_stats=True)
    parts = []
    for take in (lambda a, b: np.arange(a, a + 11), lambda a, b: np.arange(a + 11, b)):
        tokens = [take(a, b) for a, b in itertools.pairwise(cu_k)]
        own, cu = np.concatenate(tokens), starts([len(x) for x in tokens])
        out, stats = slipstick.attention_varlen(
            q, k[own], v[own], cu_q, cu, n_keys=[40, 30], return_stats=True
        )
        parts.append((out.swapaxes(0, 1), stats))
    out, stats = slipstick.merge_attention(parts)
    # Two float32 computations of values below 4 and scores below 8: some ulps of either.
    assert distance(out.swapaxes(0, 1), whole).max() <= 1e-5
    assert distance(stats.entropy, whole_stats.entropy).max() <= 1e-5


def test_the_count_restarts_in_each_sequence():
    """Where query and key are 1 in one column, max_logit is lambda: it tells n."""
    x = np.zeros((9, 1, 64), np.float32)
    x[..., 0] = 1
    cu = [0, 4, 9]
    _, stats = slipstick.attention_varlen(x, x, x, cu, cu, causal=True, return_stats=True)
    counts = [1, 2, 3, 4, 1, 2, 3, 4, 5]
    want = np.float32([math.log(n) / (math.log(512) * 8) for n in counts])
    assert distance(stats.max_logit[0], want).max() <= ulp(want.dtype, want.max())


# --- Memory and examples --------------------------------------------------------------------------


def test_memory_grows_linearly():
    """All scores would be 0.9 GiB; keys and values packed are 4 MiB, out 2 MiB."""
    setup = """
q, k, v = np.random.default_rng(0).standard_normal((3, 16384, 1, 32), dtype=np.float32)
cu = np.array([0, 64])
slipstick.attention_varlen(q[:64], k[:64], v[:64], cu, cu)
"""
    call = """
cu = np.array([0, 100, 15000, 16384])
slipstick.attention_varlen(q, k, v, cu, cu, causal=True, return_stats=True)
"""
    assert bytes_taken(setup, call) < 24 << 20


def test_examples():
    import slipstick._attention_varlen as module
    import slipstick.reference._varlen as definition

    for each in (module, definition):
        result = doctest.testmod(each)
        assert result.attempted > 0
        assert result.failed == 0
