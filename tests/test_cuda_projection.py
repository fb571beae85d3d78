"""Random projection on CUDA devices: the CPU's matrices, and the CPU's bits.

On emulated devices (`cuda_emulation`), and on the machine's own where it has some.
"""

from __future__ import annotations

import hashlib

import ml_dtypes
import numpy as np
import pytest

from mitchell_cases import assert_same_bits
from projection_cases import DTYPES, EVERY_LAW, LAWS, MILLION_ENTRIES, MILLION_HASHED_ENTRIES
from slipstick import lsh, projection

# Starts that are no group's, and columns past 2**32.
PARTS = [
    (slice(3), slice(1)),
    (slice(5, 6), slice(7, 300)),
    (slice(126, 260), slice(2**32 - 3, 2**32 + 5)),
    (slice(4090, 4100), slice(4094, 4099)),
    (slice(2, 2), slice(5)),
]
# Rows, features, components, first feature: around tiles (256, 128 or 32 rows; 64, 32 or 16
# columns), steps of 8 or 16, groups of 4 and chains of 256.
SHAPES = [
    (1, 1, 1, 0),
    (3, 300, 65, 5),
    (66, 19, 33, 2**33 + 254),
    (67, 513, 7, 252),
    (257, 12, 20, 4),
]


def filling(device) -> int:
    """Rows enough for tensor cores: with fewer the exact way is taken."""
    return 400 if device.emulated else 8192


def block(law, seed, rows, cols, **more):
    return projection.block(seed=seed, rows=rows, cols=cols, **law, **more)


@pytest.mark.parametrize(
    ("law", "answer"),
    MILLION_ENTRIES + [({"kind": kind}, answer) for kind, answer in MILLION_HASHED_ENTRIES],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
def test_a_million_entries_are_the_published_ones(device, law, answer):
    """Unscaled, but for the hashed kinds, whose scale is 1 / sqrt(s)."""
    hashed = law["kind"] in ("sjlt", "countsketch")
    out = device.array(np.zeros((1024, 1024), np.float32))
    more = {"n_components": 1024} if hashed else {}
    entries = device.numpy(block(law, 7, slice(1024), slice(1024), out=out, **more))
    if hashed:
        entries = np.sign(entries)
    assert hashlib.sha256(entries.astype("<f4").tobytes()).hexdigest() == answer


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@pytest.mark.parametrize("law", EVERY_LAW, ids=lambda law: law["kind"])
def test_parts_of_the_matrix(device, law, dtype):
    for rows, cols in PARTS:
        for n_components in (8192, None):
            if n_components is None and law["kind"] in ("sjlt", "countsketch"):
                continue
            shape = (rows.stop - (rows.start or 0), cols.stop - (cols.start or 0))
            options = {"n_components": n_components}
            seed = 0x123456789ABCDEF
            expected = block(law, seed, rows, cols, **options, out=np.empty(shape, dtype))
            out = device.array(np.zeros((2 * shape[0], shape[1]), dtype))[::2].T
            same = block(law, seed, rows, cols, **options, out=out.T)
            np.testing.assert_array_equal(device.numpy(same), expected)
            np.testing.assert_array_equal(device.numpy(out.T), expected)


def check(device, function, x, *args, view=lambda x: x, **options):
    """Compare the function on views of an array of the device with the same on the CPU."""
    expected = function(view(x), *args, **options)
    result = device.numpy(function(view(device.array(x)), *args, **options))
    # A NaN is a NaN, whatever its sign.
    np.testing.assert_array_equal(np.isnan(result), np.isnan(expected))
    numbers = ~np.isnan(expected)
    assert result.shape == expected.shape
    assert_same_bits(result[numbers], expected[numbers])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("law", EVERY_LAW, ids=lambda law: law["kind"])
def test_products_have_the_bits_of_the_cpu(device, law, dtype):
    rng = np.random.default_rng(3)
    for rows, features, n_components, first in SHAPES:
        x = rng.standard_normal((rows, features)).astype(dtype)
        check(device, projection.project, x, n_components, seed=7, first_feature=first, **law)
        y = rng.standard_normal((rows, n_components)).astype(dtype)
        options = {"seed": 2**40 + 1, "first_feature": first, **law}
        check(device, projection.back_project, y, features, **options)


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d != np.float64], ids=str)
@pytest.mark.parametrize(("n_components", "features", "first"), [(40, 263, 3), (200, 530, 0)])
def test_fast_mode_is_as_accurate_as_a_product(device, dtype, n_components, features, first):
    rng = np.random.default_rng(5)
    x = rng.standard_normal((filling(device), features)).astype(dtype)
    x[::7] *= np.exp2(rng.integers(-8, 8, x[::7].shape)).astype(dtype)
    options = {"seed": 11, "first_feature": first}
    entries = projection.block(
        "rademacher", 11, slice(n_components), slice(first, first + features)
    )
    factor = 1 / np.sqrt(n_components)
    true = x.astype(np.float64) @ entries.T * factor
    product = x.astype(np.float32) @ entries.astype(np.float32).T * np.float32(factor)
    fast = device.numpy(projection.project(device.array(x), n_components, mode="fast", **options))
    if dtype == np.float32:
        exact = projection.project(device.array(x), n_components, **options)
        assert np.any(device.numpy(exact) != fast)  # which says that tensor cores were at work
    norm = np.linalg.norm(x.astype(np.float64), axis=1)[:, np.newaxis] * factor
    rounding = 0 if dtype == np.float32 else float(ml_dtypes.finfo(dtype).eps) * np.abs(true) / 2
    error = (np.maximum(np.abs(fast.astype(np.float64) - true) - rounding, 0) / norm).max()
    assert error <= 2 * (np.abs(product - true) / norm).max()


def test_fast_mode_of_large_small_and_other_numbers(device):
    """Rows at the ends of the range, and what propagates, beside ordinary rows."""
    rng = np.random.default_rng(6)
    x = rng.standard_normal((filling(device), 70)).astype(np.float32)
    x[3] *= np.float32(2.0**-130)  # subnormal numbers: their sums are exact
    x[5] *= np.float32(2.0**-105)
    x[9] = 0
    x[130] *= np.float32(2.0**120)
    x[140, 7] = np.finfo(np.float32).max
    x[150, 7] = np.inf
    x[151, [7, 60]] = np.inf, -np.inf
    x[152, 69] = np.nan
    x.view(np.uint32)[153, 1] = 0x7F800001  # a NaN whose first 16 bits are those of an infinity
    fast = projection.project(device.array(x), 64, seed=1, mode="fast")
    fast, exact = device.numpy(fast), projection.project(x, 64, seed=1)
    special = slice(150, 154)
    np.testing.assert_array_equal(fast[special], exact[special])
    others = np.delete(np.arange(len(x)), np.r_[special])
    largest = np.abs(x[others]).max(axis=1, keepdims=True).astype(np.float64)
    difference = np.abs(fast[others].astype(np.float64) - exact[others])
    assert np.all(difference <= 70 * 2.0**-24 * largest)
    # Below 2**-126 both are rounded to multiples of 2**-149.
    assert np.all(fast[9] == 0)
    assert np.any(fast[3] != 0)


STRIDES = {
    "transposed": lambda x: x.T,
    "every other": lambda x: x[::2, 1::3],
    "backwards": lambda x: x[::-1, ::-1],
    "one row for all": lambda x: (
        x[5:6].broadcast_to((7, 40)) if hasattr(x, "permute") else np.broadcast_to(x[5:6], (7, 40))
    ),
    "unaligned": lambda x: x[:, 1:],
}


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_strides(device, dtype, mode):
    rng = np.random.default_rng(8)
    x = rng.integers(-8, 9, (filling(device), 40)).astype(dtype)  # whose sums are exact
    for view in STRIDES.values():
        if view is STRIDES["backwards"] and not device.emulated:
            continue  # torch has none
        check(device, projection.project, x, 64, view=view, mode=mode)
    cube = rng.integers(-8, 9, (5, 11, 8)).astype(dtype)
    expected = projection.project(cube.transpose(2, 0, 1), 70)
    out = device.array(np.zeros((70, 8, 5), dtype))
    result = projection.project(
        device.array(cube).permute(2, 0, 1), 70, mode=mode, out=out.permute(1, 2, 0)
    )
    assert_same_bits(device.numpy(result), expected)
    assert_same_bits(device.numpy(out).transpose(1, 2, 0), expected)


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
)
def test_integers(device, dtype):
    x = np.random.default_rng(9).integers(0, 100, (3, 9)).astype(dtype)
    check(device, projection.project, x, 5)
    check(device, projection.back_project, x, 5, kind="gaussian")


@pytest.mark.parametrize("law", LAWS[:2], ids=lambda law: law["kind"])
@pytest.mark.parametrize(("rows", "n_components"), [(800, 20), (257, 200)])
def test_tiles_that_fill_a_device_add_their_chains_themselves(device, law, rows, n_components):
    rng = np.random.default_rng(15)
    rows *= 1 if device.emulated else 64
    x = rng.standard_normal((rows, 300)).astype(np.float32)
    check(device, projection.project, x, n_components, first_feature=4, **law)
    check(device, projection.project, x[: rows // 2].astype(np.float64), n_components, **law)


def test_numbers_that_propagate_and_that_vanish(device):
    x = np.random.default_rng(10).standard_normal((6, 300)).astype(np.float32)
    x[0, 3], x[1, 299], x[2, [5, 6]] = np.inf, np.nan, (np.inf, -np.inf)
    x[3], x[4] = 0, -0.0
    x[5] *= np.float32(2.0**-140)
    for law in LAWS:
        check(device, projection.project, x, 33, **law)
        check(device, projection.back_project, x, 33, **law)


def test_empty_arrays(device):
    for shape in ((0, 5), (3, 0, 5)):
        result = projection.project(device.array(np.zeros(shape)), 4)
        assert device.numpy(result).shape == (*shape[:-1], 4)


def test_rows_do_not_depend_on_the_batch(device):
    """Few rows, whose chains different blocks add, and many."""
    x = np.random.default_rng(12).standard_normal((600, 1100)).astype(np.float32)
    for law in LAWS:
        many = device.numpy(projection.project(device.array(x), 20, **law))
        few = device.numpy(projection.project(device.array(x[40:60]), 20, **law))
        assert_same_bits(many[40:60], few)


def test_every_device_and_stream(device):
    x = np.random.default_rng(13).standard_normal((40, 300))
    expected = projection.project(x, 20)
    for index in range(device.count):
        array = device.array(x, index)
        with device.stream(index):
            result = projection.project(array, 20)
        assert_same_bits(device.numpy(result), expected)


def test_calls_are_captured_into_graphs(device):
    x = np.random.default_rng(14).standard_normal((40, 300)).astype(np.float32)
    array, out = device.array(x), device.array(np.zeros((40, 20), np.float32))
    projection.project(array, 20, out=out)
    with device.capture() as graph:
        projection.project(array, 20, seed=5, out=out)
    graph.replay()
    assert_same_bits(device.numpy(out), projection.project(x, 20, seed=5))


def test_what_is_refused(device):
    x = device.array(np.zeros((4, 6), np.float32))
    halves = device.array(np.zeros((4, 4), np.float16))
    with pytest.raises(ValueError, match=r"^project: `out` must be on CUDA device 0 like `x`, got"):
        projection.project(x, 4, out=np.zeros((4, 4), np.float32))
    with pytest.raises(
        ValueError, match=r"^project: `mode` must be 'exact' or 'fast', got 'slow'$"
    ):
        projection.project(x, 4, mode="slow")
    with pytest.raises(TypeError, match=r"^block: `out` must be float64 or float32, got float16$"):
        projection.block("rademacher", 0, slice(4), slice(4), out=halves)
    with pytest.raises(ValueError, match=r"^block: `out` must have shape \(4, 5\), got"):
        projection.block("rademacher", 0, slice(4), slice(5), out=device.array(np.zeros((4, 4))))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_more_elements_than_32_bits_count(emulated_cuda, dtype, mode):
    """Launches on arrays of any size are checked, and not run."""
    with emulated_cuda.dry_run():
        for shape in ((2**33, 100), (100, 2**33), (2**20, 2**20)):
            x = emulated_cuda.empty(shape, dtype)
            for law in LAWS:
                projection.project(x, 20, mode=mode, **law)
                projection.back_project(x, 20, **law)
        if dtype != "float16":
            projection.block("gaussian", 1, slice(2**20), slice(2**20), out=x)


@pytest.mark.parametrize("dtype", [*DTYPES, "int16", "bool"], ids=str)
def test_signs_of_a_gaussian_projection(device, dtype):
    """Whole bytes and parts of them, by tiles that add their chains themselves and that do not."""
    rng = np.random.default_rng(16)
    for rows, features, n_bits in ((1, 5, 1), (3, 300, 70), (300, 40, 131), (5, 260, 64)):
        x = (rng.standard_normal((rows, features)) * 8).astype(dtype)
        check(device, lsh.SimHash(n_bits, seed=rows).hash, x)
        check(device, lsh.SimHash(n_bits).hash, x, view=lambda x: x[:, ::2])


def test_signs_of_sums_that_are_no_numbers(device):
    x = np.zeros((70, 4), np.float32)
    x[3, 1], x[5, :2], x[7, 2] = np.nan, (np.inf, -np.inf), -0.0
    codes = device.numpy(lsh.SimHash(20).hash(device.array(x)))
    assert not codes[3].any()
    np.testing.assert_array_equal(codes[7], [255, 255, 15])  # +0
    entries = projection.block("gaussian", 0, slice(20), slice(2))
    is_nan = np.sign(entries[:, 0]) == np.sign(entries[:, 1])
    assert not np.unpackbits(codes[5], bitorder="little")[:20][is_nan].any()
