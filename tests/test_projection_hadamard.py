"""The fast Walsh-Hadamard transform: its graph bit for bit, layouts, dtypes, errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projection_cases import BF16, DTYPES, ramp
from slipstick import reference
from slipstick.projection import hadamard

FLOATS = DTYPES[:2]


def graph(x: np.ndarray) -> np.ndarray:
    """The butterflies of the definition on the last axis, in the precision of x."""
    n = x.shape[-1]
    p = n.bit_length() - 1
    y = x.copy()
    if p % 2:
        y *= x.dtype.type(math.sqrt(0.5))
    for stage in range(p):
        if stage % 4 == 0:
            y *= x.dtype.type(2.0 ** -(min(4, p - stage) // 2))
        pairs = y.reshape(-1, n >> (stage + 1), 2, 1 << stage)
        a, b = pairs[:, :, 0], pairs[:, :, 1]
        y = np.stack([a + b, a - b], axis=2).reshape(x.shape)
    return y


def normal(*shape: int, dtype: np.dtype) -> np.ndarray:
    return np.random.default_rng((0, *shape)).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("p", range(0, 18))
def test_bits_are_those_of_the_definition(isa, threads, p, dtype):
    """From rows shorter than a vector to rows that are split over the threads."""
    for rows in (1, 2, 5, 17) if p <= 12 else (1, 8):
        x = normal(rows, 1 << p, dtype=dtype)
        np.testing.assert_array_equal(hadamard(x), graph(x))


@pytest.mark.parametrize("p", [19, 20])
def test_long_vectors(isa, threads, p):
    x = normal(1 << p, dtype=FLOATS[0])
    expected = graph(x[np.newaxis])[0]
    np.testing.assert_array_equal(hadamard(x), expected)
    assert hadamard(x, out=x) is x
    np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_agrees_with_the_kronecker_product(isa, dtype):
    """Each of p additions rounds by eps/2 of a partial norm: p eps of the norm is beyond all."""
    for p in range(0, 12):
        x = normal(3, 1 << p, dtype=dtype)
        error = np.abs(hadamard(x) - reference.hadamard(x))
        limit = (p + 1) * np.finfo(dtype).eps * np.linalg.norm(x.astype(np.float64), axis=-1)
        assert np.all(error <= limit[:, np.newaxis])


def test_known_answers(isa):
    np.testing.assert_array_equal(hadamard(np.array([4.0, 2, 0, 0])), [3, 1, 3, 1])
    np.testing.assert_array_equal(hadamard(np.array([3.5])), [3.5])
    signs = hadamard(np.eye(64, dtype=np.float32)) * 8
    np.testing.assert_array_equal(signs, reference.hadamard_matrix(64))
    assert signs[3, 5] == -1  # (-1)^popcount(3 & 5)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_axis(isa, threads, axis, dtype):
    x = ramp(8, 256, 64, dtype=dtype)
    moved = np.ascontiguousarray(np.moveaxis(x, axis, -1))
    got = hadamard(x, axis=axis)
    assert got.dtype == dtype
    assert got.shape == x.shape
    np.testing.assert_array_equal(np.moveaxis(got, axis, -1), hadamard(moved))
    ours = x.copy()
    assert hadamard(ours, axis=axis, out=ours) is ours
    np.testing.assert_array_equal(ours, got)


def test_long_columns(isa, threads):
    """More stages than one pass down the columns takes, beside a number of columns of no vector."""
    for columns in (17, 100):
        x = normal(1 << 12, columns, dtype=FLOATS[0])
        np.testing.assert_array_equal(hadamard(x, axis=0), graph(x.T.copy()).T)
    x = normal(2, 32, 40, dtype=FLOATS[1])
    expected = np.stack([graph(part.T.copy()).T for part in x])
    np.testing.assert_array_equal(hadamard(x, axis=1), expected)
    np.testing.assert_array_equal(hadamard(x[:, :, ::-1], axis=1), expected[:, :, ::-1])


@pytest.mark.parametrize("dtype", DTYPES[2:], ids=str)
def test_16_bit_floats_are_summed_in_float32_and_rounded_once(isa, dtype):
    for p in (0, 3, 7, 14):
        x = normal(5, 1 << p, dtype=dtype)
        np.testing.assert_array_equal(hadamard(x), graph(x.astype(np.float32)).astype(dtype))


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "int32", "uint64"])
def test_integers_become_float64(isa, dtype):
    x = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 100, (3, 128)).astype(dtype)
    y = hadamard(x)
    assert y.dtype == np.float64
    np.testing.assert_array_equal(y, graph(x.astype(np.float64)))


@st.composite
def views(draw):
    """A view with any strides: sliced, reversed, transposed, broadcast; and one of its axes."""
    shape = draw(st.lists(st.sampled_from([1, 2, 4, 16, 32]), min_size=1, max_size=3))
    base = ramp(*(3 * size for size in shape), dtype=draw(st.sampled_from(DTYPES)))
    index = []
    for size in shape:
        step = draw(st.sampled_from([1, 2, 3, -1, -2]))
        index.append(slice(0 if step > 0 else 3 * size - 1, None, step))
    view = base[tuple(index)][tuple(slice(size) for size in shape)]
    view = view.transpose(draw(st.permutations(range(len(shape)))))
    if draw(st.booleans()):
        view = np.broadcast_to(view, (draw(st.sampled_from([1, 2, 3])), *view.shape))
        return view, draw(st.integers(1, view.ndim - 1))
    return view, draw(st.integers(0, view.ndim - 1))


@settings(max_examples=150, derandomize=True, deadline=None)
@given(views(), st.data())
def test_any_strides_are_read_in_place(case, data):
    x, axis = case
    expected = np.moveaxis(hadamard(np.moveaxis(x, axis, -1).copy(order="C")), -1, axis)
    x.flags.writeable = False
    np.testing.assert_array_equal(hadamard(x, axis=axis), expected)
    order = data.draw(st.permutations(range(x.ndim)))
    room = np.full([2 * expected.shape[i] for i in order], 7, x.dtype)
    out = room[tuple(slice(None, None, 2) for _ in order)].transpose(np.argsort(order))
    assert hadamard(x, axis=axis, out=out) is out
    np.testing.assert_array_equal(out, expected)
    out[...] = 7
    assert np.all(room == 7)  # nothing beside it is written


def test_batches_do_not_change_bits(isa, threads):
    for p in (2, 5, 9, 13):
        x = normal(300, 1 << p, dtype=FLOATS[0])
        y = hadamard(x)
        for row in (0, 1, 299):
            np.testing.assert_array_equal(hadamard(x[row]), y[row])
        np.testing.assert_array_equal(hadamard(x[7:90:3]), y[7:90:3])


@pytest.mark.parametrize("shape", [(0, 8), (3, 0, 4), (0, 1)], ids=str)
def test_empty_batches(shape):
    assert hadamard(np.empty(shape, np.float32)).shape == shape


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_the_transform_is_its_own_inverse(isa, dtype):
    for p in (1, 6, 11, 16):
        x = normal(2, 1 << p, dtype=dtype)
        norm = np.linalg.norm(x.astype(np.float64), axis=-1, keepdims=True)
        assert np.all(np.abs(hadamard(hadamard(x)) - x) <= 2 * (p + 1) * np.finfo(dtype).eps * norm)


@pytest.mark.parametrize("p", [1, 2, 3, 4, 7, 10, 13])
def test_nothing_overflows_that_the_norm_does_not(isa, p):
    """All 2^p numbers alike: the first result is their norm, a little below the largest float32."""
    n = 1 << p
    x = np.full((1, n), 3.3e38 / math.sqrt(n), np.float32)
    x[:, 1::2] *= -1
    y = hadamard(x)
    assert np.isfinite(y).all()
    np.testing.assert_allclose(y[0, 1], 3.3e38, rtol=1e-5)
    np.testing.assert_array_equal(y, graph(x))


def test_special_values(isa):
    x = np.ones((5, 64), np.float32)
    x[0, 3] = np.nan
    x[1, 3] = np.inf
    x[2] = 1e-45
    x[3] = -0.0
    x[4] = np.linspace(-1e-42, 1e-41, 64)
    y = hadamard(x)
    assert np.isnan(y[0]).all()
    assert np.isinf(y[1]).all()
    np.testing.assert_array_equal(y[2:], graph(x[2:]))
    np.testing.assert_array_equal(np.signbit(y[3]), np.signbit(graph(x[3:4])[0]))


def test_frameworks():
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(ramp(4, 32))
    y = hadamard(x)
    assert isinstance(y, torch.Tensor)
    np.testing.assert_array_equal(y.numpy(), hadamard(x.numpy()))
    y = hadamard(x.to(torch.bfloat16))
    assert y.dtype == torch.bfloat16
    expected = hadamard(x.numpy().astype(BF16)).astype(np.float32)
    np.testing.assert_array_equal(y.float().numpy(), expected)


X = np.ones((3, 8), np.float32)
READ_ONLY = np.ones((3, 8), np.float32)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    ("x", "arguments", "error", "message"),
    [
        (
            np.ones((2, 12)),
            {},
            ValueError,
            "`x` must have a power of two as its length along axis -1 (`rotate` takes any length), "
            "got shape (2, 12)",
        ),
        (
            X,
            {"axis": 0},
            ValueError,
            "`x` must have a power of two as its length along axis 0 (`rotate` takes any length), "
            "got shape (3, 8)",
        ),
        (
            X[:, :0],
            {},
            ValueError,
            "`x` must have a power of two as its length along axis -1 (`rotate` takes any length), "
            "got shape (3, 0)",
        ),
        (np.float32(1), {}, ValueError, "`x` must have at least one axis, got shape ()"),
        (
            X,
            {"axis": 2},
            ValueError,
            "`axis` must be from -2 to 1 for `x` of shape (3, 8), got 2",
        ),
        (X, {"axis": 2**70}, ValueError, f"`axis` must be one of the axes of `x`, got {2**70}"),
        (X, {"axis": 1.0}, TypeError, "`axis` must be an int, got float"),
        (X, {"axis": None}, TypeError, "`axis` must be an int, got NoneType"),
        (X, {"axis": True}, TypeError, "`axis` must be an int, got bool"),
        (
            X.astype(complex),
            {},
            TypeError,
            "`x` must have a real numeric dtype in native byte order, got complex128",
        ),
        (
            [[1.0]],
            {},
            TypeError,
            "`x` must be an array (NumPy, or one that offers DLPack), got list",
        ),
        (X, {"out": np.ones((3, 8))}, TypeError, "`out` must have dtype float32, got float64"),
        (X, {"out": X[:2]}, ValueError, "`out` must have shape (3, 8), got (2, 8)"),
        (X, {"out": READ_ONLY}, ValueError, "`out` must be writable, got a read-only array"),
        (
            X,
            {"out": X[::-1]},
            ValueError,
            "`out` must not overlap `x`, got views that share memory without being the same view",
        ),
    ],
)
def test_hadamard_refuses(x, arguments, error, message):
    before = X.copy()
    with pytest.raises(error) as caught:
        hadamard(x, **arguments)
    assert str(caught.value) == f"hadamard: {message}"
    np.testing.assert_array_equal(X, before)  # nothing is written
