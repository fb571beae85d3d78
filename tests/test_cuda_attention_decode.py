"""Few query rows on CUDA devices: parts of the keys, and what a row's bits depend on.

On emulated devices (`cuda_emulation`), and on the machine's own where it has some. The kernels cut
the keys into parts of 512 (more behind 65536), those into steps of 16 for four warps or fewer.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import slipstick
from attention_cases import starts
from attention_oracle import BF16, DTYPES, INF, Rows, bits, compare, float_mask, inputs
from cuda_attention import attend, attend_packed
from slipstick import AttentionStats
from slipstick.scales import LogN, SSMax

WIDE_AND_HALF = [np.dtype(np.float32), BF16]


def assert_same_bits(first, second):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(bits(a), bits(b))


@pytest.mark.parametrize("keys", [511, 512, 513, 1024, 1537])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_parts_of_the_keys(device, dtype, keys):
    arrays = inputs(1, 2, 1, 1, keys, 16, 8, dtype, seed=keys)
    compare(attend(device, arrays, {}), *arrays, {})


@pytest.mark.parametrize("dtype", WIDE_AND_HALF, ids=str)
@pytest.mark.parametrize("rows", range(1, 17))
def test_any_number_of_rows(device, rows, dtype):
    """As one query of a group of heads and as queries of one head, under causal order."""
    arrays = inputs(1, rows, 1, 1, 40, 9, 7, dtype, seed=rows)
    compare(attend(device, arrays, {}), *arrays, {})
    arrays = inputs(1, 1, 1, rows, 40, 9, 7, dtype, seed=rows)
    compare(attend(device, arrays, {"causal": True}), *arrays, {"causal": True})


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_parts_that_show_a_row_nothing(device, dtype):
    """By length, window, causal order and mask; rows without keys beside rows with some."""
    arrays = inputs(2, 2, 1, 3, 1540, 8, 8, dtype)
    last_part = np.arange(1540) >= 1530
    first_row = np.ones((3, 1540), bool)
    first_row[0] = False
    for options in (
        {"key_lengths": [1540, 3]},
        {"key_lengths": [0, 1024]},
        {"key_lengths": [600, 1540], "window": (20, None)},
        {"window": (5, 0)},
        {"causal": True, "key_lengths": [1, 513]},
        {"mask": last_part},
        {"mask": ~last_part & first_row},
        {"mask": float_mask(2, 1, 3, 1540) + np.where(last_part, 0, -INF).astype(np.float32)},
    ):
        rows = compare(attend(device, arrays, options), *arrays, options)
        assert (rows.entropy >= 0).all()


def test_more_queries_than_keys(device):
    for dtype in DTYPES:
        arrays = inputs(1, 1, 1, 12, 7, 8, 8, dtype)
        rows = compare(attend(device, arrays, {"causal": True}), *arrays, {"causal": True})
        np.testing.assert_array_equal(rows.out[0, 0, :5].astype(float), 0)
        np.testing.assert_array_equal(rows.lse[0, 0, :5], -INF)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("cuts", [(512,), (3, 600, 1100), (0, 512, 512, 1536)], ids=str)
def test_parts_merge_to_the_whole(device, cuts, dtype):
    q, k, v = inputs(1, 2, 1, 2, 1600, 8, 8, dtype)
    there = [device.array(x) for x in (q, k, v)]
    ends = [0, *cuts, 1600]
    parts = [
        slipstick.attention(
            there[0], there[1][:, :, a:b], there[2][:, :, a:b], n_keys=1600, return_stats=True
        )
        for a, b in itertools.pairwise(ends)
    ]
    # The merged result is rounded again: the parts go up to the wider type where there is one.
    if dtype.itemsize == 2:
        wide = [
            (device.numpy(out).astype(np.float32), map(device.numpy, stats)) for out, stats in parts
        ]
        parts = [
            (device.array(out), AttentionStats(*map(device.array, stats))) for out, stats in wide
        ]
    out, stats = slipstick.merge_attention(parts)
    rows = Rows(*(device.numpy(x) for x in (out, *stats)))
    compare(rows._replace(out=rows.out.astype(dtype)), q, k, v, {})


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_row_does_not_depend_on_what_is_beside_it(device, dtype):
    """Not on other rows, heads and sequences, nor on keys behind its last."""
    query, key, value = inputs(3, 8, 1, 1, 1100, 33, 20, dtype)
    whole = attend(device, (query, key, value), {"key_lengths": [1100, 300, 512]})
    for b, length in enumerate((1100, 300, 512)):
        for heads in (slice(0, 1), slice(2, 5), slice(0, 8)):
            part = (query[b : b + 1, heads], key[b : b + 1], value[b : b + 1])
            alone = attend(device, part, {"key_lengths": [length]})
            assert_same_bits(alone, [x[b : b + 1, heads] for x in whole])
            shorter = attend(device, (part[0], *(x[:, :, :length] for x in part[1:])), {})
            assert_same_bits(alone, shorter)
    queries = np.repeat(query[:1, :1], 5, axis=2)
    causal = attend(device, (queries, key[:1], value[:1]), {"causal": True})
    for i in range(5):
        last = 1100 - 4 + i
        alone = attend(device, (query[:1, :1], key[:1, :, :last], value[:1, :, :last]), {})
        assert_same_bits(alone, [x[:, :, i : i + 1] for x in causal])


@pytest.mark.parametrize("dtype", WIDE_AND_HALF, ids=str)
def test_packed_sequences_have_the_bits_of_single_ones(device, dtype):
    """Some of several parts, some of one, of none, and one of more rows than these kernels take."""
    lengths = [(1, 600), (3, 40), (0, 9), (1, 1500), (2, 0), (40, 70), (4, 1100), (1, 1)]
    cu_q, cu_k = (starts([pair[i] for pair in lengths]) for i in range(2))
    query, key, value = inputs(1, 4, 1, int(cu_q[-1]), int(cu_k[-1]), 20, 12, dtype)
    tokens = [np.ascontiguousarray(x[0].swapaxes(0, 1)) for x in (query, key, value)]
    options = {"causal": True, "scale": LogN()}
    for integers in (False, True):
        whole = attend_packed(device, (*tokens, cu_q, cu_k), options, integers=integers)
        for s, (queries, keys) in enumerate(lengths):
            if queries == 0 or keys == 0:
                continue
            at_q, at_k = slice(cu_q[s], cu_q[s + 1]), slice(cu_k[s], cu_k[s + 1])
            alone = attend(device, (query[:, :, at_q], key[:, :, at_k], value[:, :, at_k]), options)
            assert_same_bits([alone.out[0].swapaxes(0, 1)], [whole.out[at_q]])
            assert_same_bits([x[0] for x in alone[1:]], [x[:, at_q] for x in whole[1:]])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_layouts(device, dtype):
    """Rows that can be copied 16 bytes at a time and such that cannot have the same bits."""
    arrays = inputs(2, 4, 2, 2, 70, 32, 16, dtype)
    options = {"causal": True}
    want = attend(device, arrays, options)

    def unaligned(array):
        wide = np.zeros((*array.shape[:-1], array.shape[-1] + 3), array.dtype)
        wide[..., 1:-2] = array
        return wide

    views = [
        (lambda x: np.ascontiguousarray(x.transpose(0, 2, 1, 3)), lambda x: x.permute(0, 2, 1, 3)),
        (lambda x: np.ascontiguousarray(x.transpose(3, 2, 1, 0)), lambda x: x.permute(3, 2, 1, 0)),
        (lambda x: np.repeat(x, 2, axis=3), lambda x: x[:, :, :, ::2]),
        (unaligned, lambda x: x[:, :, :, 1:-2]),
    ]
    for lay, view in views:
        assert_same_bits(attend(device, [lay(x) for x in arrays], options, view=view), want)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_not_finite_reaches_only_rows_that_see_it(device, dtype):
    """In every warp's steps, in tiles that all rows see and such that some do."""
    q, k, v = inputs(1, 1, 1, 4, 540, 8, 8, dtype)
    visible = np.ones((4, 540), bool)
    for i, j in enumerate((3, 20, 40, 60, 513, 530)):
        v[0, 0, j, i] = (np.nan, INF, -INF)[i % 3]
        visible[i % 4, j] = False
    options = {"mask": visible, "scale": 0.3}
    rows = compare(attend(device, (q, k, v), options), q, k, v, options)
    assert np.isfinite(rows.lse).all()
    assert np.isfinite(rows.out[0, 0, :, 6:].astype(float)).all()
    k[0, 0, 539] = np.nan  # which the last query alone sees
    options = {"causal": True, "scale": 0.3}
    rows = compare(attend(device, (q, k, v), options), q, k, v, options)
    assert np.isfinite(rows.lse[0, 0, :3]).all()
    assert np.isnan(rows.lse[0, 0, 3])


@pytest.mark.parametrize("dtype", WIDE_AND_HALF, ids=str)
def test_more_keys_than_parts_of_512(device, dtype):
    """Behind 65536 keys parts are longer; a window leaves most of them without work."""
    q, k, v = inputs(1, 1, 1, 1, 65600, 4, 4, dtype)
    options = {"window": (1500, None), "n_keys": 65600, "scale": SSMax(0.2)}
    last = (q, k[:, :, -1501:], v[:, :, -1501:])
    rows = attend(device, (q, k, v), options)
    compare(rows, *last, {"n_keys": 65600, "scale": SSMax(0.2)})


def test_one_part_is_one_launch(device):
    if not device.emulated:
        pytest.skip("counts the emulator's launches")
    for keys, launches in ((512, 1), (513, 2)):
        there = [device.array(x) for x in inputs(2, 4, 2, 1, keys, 64, 64, np.float16)]
        device.control.take_launches()
        slipstick.attention(*there)
        assert len(device.control.take_launches()) == launches
