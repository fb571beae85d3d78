"""What random projection takes and refuses: any strides, other frameworks, bad arguments."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projection_cases import BF16, CHAINED_LAWS, DTYPES, ramp
from slipstick import projection

# --- Layout and frameworks ------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(0, 5), (0, 3, 5), (3, 0, 5), (2, 0, 0, 5)], ids=str)
def test_empty_batches(shape):
    for law in CHAINED_LAWS:
        y = projection.project(np.empty(shape, np.float32), 7, **law)
        assert y.shape == (*shape[:-1], 7)
        assert y.dtype == np.float32


@st.composite
def views(draw):
    """A view with any strides: sliced, reversed, transposed, broadcast."""
    shape = draw(st.lists(st.integers(1, 4), min_size=0, max_size=3))
    shape.append(draw(st.integers(1, 40)))
    base = ramp(*(3 * size for size in shape), dtype=draw(st.sampled_from(DTYPES)))
    index = []
    for size in shape:
        step = draw(st.sampled_from([1, 2, 3, -1, -2]))
        start = 0 if step > 0 else 3 * size - 1
        index.append(slice(start, None, step))
    view = base[tuple(index)][tuple(slice(size) for size in shape)]
    view = view.transpose(draw(st.permutations(range(len(shape)))))
    if draw(st.booleans()):
        view = np.broadcast_to(view, (draw(st.integers(1, 3)), *view.shape))
    return view


@settings(max_examples=150, derandomize=True, deadline=None)
@given(views(), st.integers(1, 40), st.sampled_from(CHAINED_LAWS), st.data())
def test_any_strides_are_read_in_place(x, k, law, data):
    expected = projection.project(x.copy(order="C"), k, **law, seed=5)
    assert expected.shape == (*x.shape[:-1], k)
    x.flags.writeable = False
    np.testing.assert_array_equal(projection.project(x, k, **law, seed=5), expected)
    order = data.draw(st.permutations(range(x.ndim)))
    room = np.zeros([2 * expected.shape[axis] for axis in order], x.dtype)
    out = room[tuple(slice(None, None, 2) for _ in order)].transpose(np.argsort(order))
    assert projection.project(x, k, **law, seed=5, out=out) is out
    np.testing.assert_array_equal(out, expected)
    assert np.count_nonzero(room) == np.count_nonzero(expected)  # nothing beside it is written


def test_leading_axes_are_one_batch():
    x = ramp(3, 4, 5, 60)
    y = projection.project(x, 20, seed=1)
    np.testing.assert_array_equal(
        y.reshape(60, 20), projection.project(x.reshape(60, 60), 20, seed=1)
    )
    np.testing.assert_array_equal(y[1, 2, 3], projection.project(x[1, 2, 3], 20, seed=1))


def test_memory_map_is_read_in_place(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, ramp(50, 80))
    mapped = np.load(path, mmap_mode="r")
    np.testing.assert_array_equal(
        projection.project(mapped, 20), projection.project(ramp(50, 80), 20)
    )


INTEGERS = [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)]


@pytest.mark.parametrize("dtype", ["bool", *INTEGERS])
@pytest.mark.parametrize("law", CHAINED_LAWS, ids=str)
def test_integers_become_float64(isa, dtype, law):
    x = np.random.default_rng(0).integers(0, 256, (3, 20, 8), np.uint8).view(dtype)[..., 0]
    if dtype == "bool":
        x = np.random.default_rng(0).integers(0, 2, (3, 20)).astype(bool)
    y = projection.project(x[:, ::-2], 8, **law)
    assert y.dtype == np.float64
    np.testing.assert_array_equal(y, projection.project(x[:, ::-2].astype(np.float64), 8, **law))


def test_numpy_integers_are_accepted():
    x = ramp(2, 30)
    expected = projection.project(x, 8, seed=5, first_feature=3)
    got = projection.project(
        x, np.int32(8), seed=np.uint64(5), first_feature=np.array(3), density=None
    )
    np.testing.assert_array_equal(got, expected)


def test_torch():
    torch = pytest.importorskip("torch")
    x = ramp(5, 100)
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        y = projection.project(torch.from_numpy(x).to(dtype), 16, kind="gaussian")
        assert y.dtype == dtype
        name = str(dtype).removeprefix("torch.")
        wide = x.astype(BF16 if name == "bfloat16" else name)
        expected = projection.project(wide, 16, kind="gaussian").astype(np.float64)
        np.testing.assert_array_equal(y.double().numpy(), expected)
    out = torch.empty(5, 16)
    assert projection.project(torch.from_numpy(x), 16, out=out) is out
    np.testing.assert_array_equal(out.numpy(), projection.project(x, 16))
    y = projection.project(torch.arange(30).reshape(3, 10), 4)
    assert y.dtype == torch.float64
    np.testing.assert_array_equal(y.numpy(), projection.project(np.arange(30.0).reshape(3, 10), 4))


def test_jax():
    jax = pytest.importorskip("jax")
    x = ramp(5, 100)
    y = projection.project(jax.numpy.asarray(x), 16)
    assert isinstance(y, jax.Array)
    np.testing.assert_array_equal(np.asarray(y), projection.project(x, 16))


# --- Bad input ------------------------------------------------------------------------------------

KINDS = "'rademacher', 'gaussian', 'sparse', 'srht', 'sjlt' or 'countsketch'"
X = np.ones((2, 5), np.float32)
READ_ONLY = np.ones((2, 3), np.float32)
READ_ONLY.flags.writeable = False
NUMERIC = "`x` must have a real numeric dtype in native byte order"


@pytest.mark.parametrize(
    ("x", "arguments", "error", "message"),
    [
        (
            X,
            {"kind": "gauss"},
            ValueError,
            f"`kind` must be {KINDS}, got 'gauss'",
        ),
        (X, {"kind": 3}, TypeError, "`kind` must be a str, got int"),
        (
            X,
            {"density": 0.5, "kind": "srht"},
            ValueError,
            "`density` must be None for kind 'srht', got 0.5",
        ),
        (
            X,
            {"n_components": 2**39 + 1, "kind": "srht"},
            ValueError,
            "`n_components` must be between 1 and 2**39, got 549755813889",
        ),
        (X, {"density": 0.5}, ValueError, "`density` must be None for kind 'rademacher', got 0.5"),
        (
            X,
            {"kind": "countsketch", "density": 0.5},
            ValueError,
            "`density` must be None for kind 'countsketch', got 0.5",
        ),
        *(
            (
                X,
                {"kind": "sjlt", "density": density},
                error,
                f"`density` must be s / n_components with an int s from 1 to 3, got {density!r}",
            )
            for density, error in [
                (0.5, ValueError),
                (0.1, ValueError),
                (0, ValueError),
                (-1 / 3, ValueError),
                (4 / 3, ValueError),
                (math.nan, ValueError),
                (math.inf, ValueError),
                ("auto", TypeError),
                (True, TypeError),
            ]
        ),
        (
            X,
            {"n_components": 2**31 + 1, "kind": "sjlt"},
            ValueError,
            "`n_components` must be between 1 and 2**31, got 2147483649",
        ),
        *(
            (
                X,
                {"kind": "sparse", "density": density},
                error,
                "`density` must be a number above 0, from 2**-32 on, and at most 1, got "
                f"{density!r}",
            )
            for density, error in [
                (0, ValueError),
                (1e-10, ValueError),
                (1.5, ValueError),
                (math.nan, ValueError),
                ("auto", TypeError),
            ]
        ),
        (
            X,
            {"kind": "sparse", "first_feature": 1},
            ValueError,
            "`density` must be a number where the number of all features is not known, got None",
        ),
        (X, {"n_components": 0}, ValueError, "`n_components` must be between 1 and 2**39, got 0"),
        (
            X,
            {"n_components": 10**5000},
            ValueError,
            "`n_components` must be between 1 and 2**39, got int of too many digits",
        ),
        (X, {"n_components": -3}, ValueError, "`n_components` must be between 1 and 2**39, got -3"),
        (
            X,
            {"n_components": 2**34 + 1, "kind": "gaussian"},
            ValueError,
            "`n_components` must be between 1 and 2**34, got 17179869185",
        ),
        (X, {"n_components": 3.0}, TypeError, "`n_components` must be an int, got float"),
        (X, {"n_components": "auto"}, TypeError, "`n_components` must be an int, got str"),
        (X, {"n_components": True}, TypeError, "`n_components` must be an int, got bool"),
        (X, {"seed": -1}, ValueError, "`seed` must be between 0 and 2**64 - 1, got -1"),
        (X, {"seed": 2**64}, ValueError, f"`seed` must be between 0 and 2**64 - 1, got {2**64}"),
        (X, {"seed": None}, TypeError, "`seed` must be an int, got NoneType"),
        (X, {"seed": False}, TypeError, "`seed` must be an int, got bool"),
        (X, {"seed": np.bool_(1)}, TypeError, f"`seed` must be an int, got {np.bool_.__name__}"),
        (X, {"seed": np.arange(2)}, TypeError, "`seed` must be an int, got ndarray"),
        (X, {"seed": 1.0}, TypeError, "`seed` must be an int, got float"),
        (
            X,
            {"first_feature": -1},
            ValueError,
            "`first_feature` must be between 0 and 2**64 - 1, got -1",
        ),
        (
            X,
            {"first_feature": 2**64 - 4},
            ValueError,
            "`first_feature` must be at most 2**64 - 5 for `x` with 5 features, "
            "got 18446744073709551612",
        ),
        (X[:, :0], {}, ValueError, "`x` must have at least one feature, got shape (2, 0)"),
        (np.empty((0, 0)), {}, ValueError, "`x` must have at least one feature, got shape (0, 0)"),
        (np.float32(1), {}, ValueError, "`x` must have at least one axis, got shape ()"),
        (np.int32(1), {}, ValueError, "`x` must have at least one axis, got shape ()"),
        (X.astype(complex), {}, TypeError, f"{NUMERIC}, got complex128"),
        (X.astype(object), {}, TypeError, f"{NUMERIC}, got object"),
        (X.astype(str), {}, TypeError, f"{NUMERIC}, got <U32"),
        (
            [[1.0]],
            {},
            TypeError,
            "`x` must be an array (NumPy, or one that offers DLPack), got list",
        ),
        (
            X,
            {"out": np.ones((2, 4), np.float32)},
            ValueError,
            "`out` must have shape (2, 3), got (2, 4)",
        ),
        (X, {"out": np.ones((2, 3))}, TypeError, "`out` must have dtype float32, got float64"),
        (X, {"out": READ_ONLY}, ValueError, "`out` must be writable, got a read-only array"),
        (
            X,
            {"out": X[:, :3]},
            ValueError,
            "`out` must not overlap `x`, got views that share memory",
        ),
        (
            X,
            {"out": np.lib.stride_tricks.as_strided(np.ones(3, np.float32), (2, 3), (0, 4))},
            ValueError,
            "`out` must not overlap itself, got a view of shape (2, 3) that leads several indices "
            "to one element",
        ),
        (
            X,
            {"out": [0.0]},
            TypeError,
            "`out` must be an array (NumPy, or one that offers DLPack), got list",
        ),
    ],
)
def test_project_refuses(x, arguments, error, message):
    target = np.full((2, 3), 7, np.float32)
    call = {"n_components": 3, "out": target, **arguments}
    before = np.array(call["out"])
    with pytest.raises(error) as caught:
        projection.project(x, **call)
    assert str(caught.value) == f"project: {message}"
    np.testing.assert_array_equal(call["out"], before)  # nothing is written


TEN = slice(10)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"kind": "gauss"},
            ValueError,
            f"`kind` must be {KINDS}, got 'gauss'",
        ),
        ({"kind": None}, TypeError, "`kind` must be a str, got NoneType"),
        *(
            (
                {"kind": kind},
                ValueError,
                f"`n_components` must be given for kind '{kind}', got None",
            )
            for kind in ("sjlt", "countsketch")
        ),
        ({"seed": 2**64}, ValueError, f"`seed` must be between 0 and 2**64 - 1, got {2**64}"),
        ({"density": 1}, ValueError, "`density` must be None for kind 'gaussian', got 1"),
        ({"rows": 5}, TypeError, "`rows` must be a slice, got int"),
        ({"rows": slice(0, 4, 2)}, ValueError, "`rows` must have no step, got slice(0, 4, 2)"),
        ({"rows": slice(2, None)}, ValueError, "`rows` must have a stop, got slice(2, None, None)"),
        ({"cols": slice(2, None)}, ValueError, "`cols` must have a stop, got slice(2, None, None)"),
        (
            {"cols": slice(-2, 4)},
            ValueError,
            "`cols` must lie between 0 and 2**64, got slice(-2, 4, None)",
        ),
        (
            {"cols": slice(2**64 + 1)},
            ValueError,
            f"`cols` must lie between 0 and 2**64, got slice(None, {2**64 + 1}, None)",
        ),
        (
            {"rows": slice(2**34 + 1)},
            ValueError,
            f"`rows` must lie between 0 and 2**34, got slice(None, {2**34 + 1}, None)",
        ),
        (
            {"rows": slice(11), "n_components": 10},
            ValueError,
            "`rows` must lie between 0 and n_components=10, got slice(None, 11, None)",
        ),
        (
            {"rows": slice(1.0)},
            TypeError,
            "`rows` must be a slice of ints, got slice(None, 1.0, None)",
        ),
        (
            {"rows": slice(2**30), "cols": slice(2**30)},
            ValueError,
            f"`rows` and `cols` must name fewer than 2**60 entries, got {2**30} times {2**30}",
        ),
        ({"n_components": 0}, ValueError, "`n_components` must be between 1 and 2**34, got 0"),
        ({"n_components": 2.5}, TypeError, "`n_components` must be an int, got float"),
    ],
)
def test_block_refuses(arguments, error, message):
    call = {"kind": "gaussian", "seed": 0, "rows": TEN, "cols": TEN, **arguments}
    positional = [call.pop(name) for name in ("kind", "seed", "rows", "cols")]
    with pytest.raises(error) as caught:
        projection.block(*positional, **call)
    assert str(caught.value) == f"block: {message}"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_samples": 0}, ValueError, "`n_samples` must be at least 1, got 0"),
        ({"n_samples": [3, -2]}, ValueError, "`n_samples` must be at least 1, got -2"),
        ({"n_samples": 3.5}, TypeError, "`n_samples` must be an int or an array of them, got 3.5"),
        (
            {"n_samples": True},
            TypeError,
            "`n_samples` must be an int or an array of them, got True",
        ),
        (
            {"n_samples": [[1, 2], [3]]},
            TypeError,
            "`n_samples` must be an int or an array of them, got [[1, 2], [3]]",
        ),
        ({"eps": 0}, ValueError, "`eps` must be greater than 0 and less than 1, got 0.0"),
        ({"eps": 1.0}, ValueError, "`eps` must be greater than 0 and less than 1, got 1.0"),
        ({"eps": math.nan}, ValueError, "`eps` must be greater than 0 and less than 1, got nan"),
        ({"eps": "a"}, TypeError, "`eps` must be a float or an array of them, got 'a'"),
        (
            {"eps": 1e-12},
            ValueError,
            "`eps` must be large enough for fewer than 2**63 components, got 1e-12",
        ),
        (
            {"eps": 1e-12, "delta": 0.1},
            ValueError,
            "`eps` must be large enough for fewer than 2**63 components, got 1e-12",
        ),
        ({"delta": 0}, ValueError, "`delta` must be greater than 0 and less than 1, got 0.0"),
        ({"delta": 1.5}, ValueError, "`delta` must be greater than 0 and less than 1, got 1.5"),
        ({"delta": "x"}, TypeError, "`delta` must be a float or an array of them, got 'x'"),
        (
            {"guarantee": "each_pair"},
            ValueError,
            "`guarantee` must be 'all_pairs' while `delta` is None, got 'each_pair'",
        ),
        (
            {"on": "distance"},
            ValueError,
            "`on` must be 'squared' while `delta` is None, got 'distance'",
        ),
        (
            {"guarantee": "most"},
            ValueError,
            "`guarantee` must be 'all_pairs' or 'each_pair', got 'most'",
        ),
        ({"on": 2}, TypeError, "`on` must be 'squared' or 'distance', got 2"),
        (
            {"n_samples": [1, 2], "eps": [0.1, 0.2, 0.3]},
            ValueError,
            "`n_samples`, `eps` must broadcast with each other, got shapes (2,), (3,)",
        ),
    ],
)
def test_min_dim_refuses(arguments, error, message):
    call = {"n_samples": 10, "eps": 0.1, **arguments}
    with pytest.raises(error) as caught:
        projection.min_dim(**call)
    assert str(caught.value) == f"min_dim: {message}"
