"""conv2d: the bits of a matrix product with the patches, however the sums are formed."""

import re

import ml_dtypes
import numpy as np
import pytest

from slipstick import _cpu, reference
from slipstick._arrays import framework_of
from slipstick.mitchell import Mitchell, Table, conv2d, methods
from slipstick.mitchell._methods import as_method

FLOATS = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16]
INTEGERS = [np.int8, np.int16, np.int32, np.uint8, np.uint16, np.uint32]

# x, weight, groups, stride, padding, dilation
CASES = {
    "plain": ((2, 3, 7, 9), (5, 3, 3, 3), 1, (1, 1), (0, 0), (1, 1)),
    "padded": ((1, 3, 8, 35), (7, 3, 3, 2), 1, (1, 1), (2, 1), (1, 1)),
    "strided": ((2, 2, 11, 12), (4, 2, 3, 4), 1, (2, 3), (1, 2), (1, 1)),
    "dilated": ((2, 2, 11, 40), (3, 2, 3, 2), 1, (1, 2), (3, 0), (2, 5)),
    "grouped": ((2, 6, 5, 6), (4, 3, 2, 3), 2, (1, 1), (1, 1), (1, 1)),
    "depthwise": ((2, 5, 9, 33), (5, 1, 3, 3), 5, (1, 1), (1, 1), (1, 1)),
    "depthwise strided": ((1, 5, 40, 19), (10, 1, 5, 3), 5, (3, 2), (2, 1), (1, 2)),
    "pointwise": ((2, 7, 6, 5), (9, 7, 1, 1), 1, (1, 1), (0, 0), (1, 1)),
    "two chains": ((1, 31, 6, 7), (2, 31, 3, 3), 1, (1, 1), (1, 1), (1, 1)),
    "all padding": ((1, 1, 1, 1), (2, 1, 2, 2), 1, (3, 3), (4, 4), (1, 1)),
    "long line": ((1, 2, 2, 2100), (2, 1, 1, 3), 2, (1, 1), (0, 1), (1, 1)),
}


def draw(shape, dtype, seed=0):
    """Return numbers with zeros among them; integers small enough for exact sums."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind in "iu":
        low = 0 if np.dtype(dtype).kind == "u" else -127
        return rng.integers(low, 128, shape).astype(dtype)
    return np.where(rng.random(shape) < 0.2, 0, rng.standard_normal(shape)).astype(dtype)


def patches_of(x, kernel, stride, padding, dilation):
    """Return (n, c * kh * kw, oh * ow), and oh and ow: the explicit im2col."""
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = kernel, stride, padding, dilation
    padded = np.zeros((*x.shape[:2], x.shape[2] + 2 * ph, x.shape[3] + 2 * pw), x.dtype)
    padded[:, :, ph : ph + x.shape[2], pw : pw + x.shape[3]] = x
    oh = (padded.shape[2] - dh * (kh - 1) - 1) // sh + 1
    ow = (padded.shape[3] - dw * (kw - 1) - 1) // sw + 1
    rows = np.arange(oh)[:, None, None, None] * sh + np.arange(kh)[:, None] * dh
    columns = np.arange(ow)[:, None, None] * sw + np.arange(kw) * dw
    taken = padded[:, :, rows, columns].transpose(0, 1, 4, 5, 2, 3)
    return taken.reshape(len(x), x.shape[1] * kh * kw, oh * ow), oh, ow


def native_of(method):
    return as_method("conv2d", method)._native


def by_matmul(x, weight, groups, stride, padding, dilation, method="mitchell"):
    each, channels = len(weight) // groups, x.shape[1] // groups
    results = []
    for g in range(groups):
        part = x[:, g * channels : (g + 1) * channels]
        patches, oh, ow = patches_of(part, weight.shape[2:], stride, padding, dilation)
        left = weight[g * each : (g + 1) * each].reshape(each, -1)
        empty = framework_of("matmul", x).empty
        product = _cpu.matmul(left, patches, native_of(method), 1.0, None, empty)
        results.append(product.reshape(len(x), each, oh, ow))
    return np.concatenate(results, axis=1)


def formed(x, weight, groups, stride, padding, dilation, form, method="mitchell", path="auto"):
    native = native_of(method)
    empty = framework_of("conv2d", x).empty
    return _cpu.conv2d(
        x, weight, stride, padding, False, dilation, groups, native, None, empty, form, path
    )


@pytest.mark.parametrize("dtype", FLOATS + INTEGERS, ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("case", CASES)
def test_equals_the_product_with_the_patches(isa, case, dtype):
    shape, kernel, *rest = CASES[case]
    x, weight = draw(shape, dtype), draw(kernel, dtype, 1)
    expected = by_matmul(x, weight, *rest)
    assert np.any(expected != 0)
    for form in ("auto", "matrices", "lines"):
        result = formed(x, weight, *rest, form)
        assert result.dtype == expected.dtype
        np.testing.assert_array_equal(result, expected)
    groups, stride, padding, dilation = rest
    result = conv2d(x, weight, groups=groups, stride=stride, padding=padding, dilation=dilation)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("case", ["plain", "depthwise", "depthwise strided", "long line"])
def test_equals_the_product_on_any_number_of_threads(threads, case):
    shape, kernel, *rest = CASES[case]
    x, weight = draw(shape, np.float32), draw(kernel, np.float32, 1)
    expected = by_matmul(x, weight, *rest)
    for form in ("matrices", "lines"):
        np.testing.assert_array_equal(formed(x, weight, *rest, form), expected)


def test_large_images_are_split_alike(threads):
    x, weight = draw((3, 8, 60, 70), np.float32), draw((16, 4, 3, 3), np.float32, 1)
    rest = (2, (1, 1), (1, 1), (1, 1))
    expected = by_matmul(x, weight, *rest)
    for form in ("matrices", "lines"):
        np.testing.assert_array_equal(formed(x, weight, *rest, form), expected)


@pytest.mark.parametrize("path", ["sums", "flushed", "general"])
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("case", ["depthwise strided", "two chains"])
def test_every_path_has_the_same_bits(isa, case, dtype, path):
    shape, kernel, *rest = CASES[case]
    x, weight = draw(shape, dtype), draw(kernel, dtype, 1)
    # Positive operands from 0.5 to 2 keep float16 within the range that sums of patterns need.
    x = np.where(x == 0, 0, np.clip(abs(x), 0.5, 2)).astype(dtype)
    weight = np.clip(abs(weight), 0.5, 2).astype(dtype)
    expected = by_matmul(x, weight, *rest)
    for form in ("matrices", "lines"):
        result = formed(x, weight, *rest, form, path=path)
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("form", ["matrices", "lines"])
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: np.dtype(d).name)
def test_special_values(isa, dtype, form):
    shape, kernel, *rest = CASES["depthwise"]
    x, weight = draw(shape, dtype), draw(kernel, dtype, 1)
    info = ml_dtypes.finfo(dtype)
    specials = [np.inf, -np.inf, np.nan, info.max, info.smallest_normal, info.smallest_subnormal]
    for i, value in enumerate(specials):
        x[0, i % 5, 1 + i, 3 * i] = value
    weight[1, 0, 1, 1] = info.max
    weight[2, 0, 0, 0] = info.smallest_normal
    expected = by_matmul(x, weight, *rest)
    assert np.any(np.isnan(expected.astype(np.float64)))
    result = formed(x, weight, *rest, form)
    # NumPy knows the NaNs of its own dtypes.
    np.testing.assert_array_equal(result.astype(np.float64), expected.astype(np.float64))


@pytest.mark.parametrize("case", ["plain", "depthwise"])
@pytest.mark.parametrize("name", methods())
def test_every_method_is_that_of_matmul(isa, name, case):
    shape, kernel, *rest = CASES[case]
    for dtype in (np.float32, np.float16, np.uint8):
        x, weight = draw(shape, dtype), draw(kernel, dtype, 1)
        if name == "operand-decomposition" and dtype != np.uint8:
            continue  # integers only
        expected = by_matmul(x, weight, *rest, method=name)
        for form in ("auto", "matrices", "lines"):
            result = formed(x, weight, *rest, form, name)
            np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("case", CASES)
def test_equals_the_reference(case):
    shape, kernel, groups, stride, padding, dilation = CASES[case]
    x, weight = draw(shape, np.float32), draw(kernel, np.float32, 1)
    options = {"groups": groups, "stride": stride, "padding": padding, "dilation": dilation}
    result = conv2d(x, weight, **options)
    expected = reference.conv2d(x, weight, **options)
    # A float32 sum of K products errs by at most K 2^-24 of the sum of their magnitudes.
    magnitude = reference.conv2d(abs(x), abs(weight), **options)
    bound = weight[0].size * 2.0**-24 * magnitude
    assert np.all(abs(result - expected) <= bound)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_powers_of_two_are_exact(dtype):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(2)
    x = rng.integers(-50, 50, (2, 6, 9, 10)).astype(dtype)
    weight = (
        np.exp2(rng.integers(-3, 4, (4, 3, 3, 3))) * rng.choice([-1, 1], (4, 3, 3, 3))
    ).astype(dtype)
    options = {"groups": 2, "padding": 1, "stride": (2, 1), "dilation": (1, 2)}
    expected = torch.nn.functional.conv2d(torch.tensor(x), torch.tensor(weight), **options)
    # Products and sums are multiples of 1/8 below 2^17: exact in any order.
    np.testing.assert_array_equal(conv2d(x, weight, **options), expected.numpy())


# torch copies its input for even kernels, and says so.
@pytest.mark.filterwarnings("ignore:Using padding:UserWarning")
@pytest.mark.parametrize("kernel", [(1, 1), (2, 3), (4, 4), (3, 2)])
@pytest.mark.parametrize("dilation", [1, 2])
def test_padding_by_name(kernel, dilation):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    x = rng.integers(-50, 50, (2, 3, 9, 10)).astype(np.float32)
    weight = np.exp2(rng.integers(-3, 4, (4, 3, *kernel))).astype(np.float32)
    for padding in ("same", "valid"):
        expected = torch.nn.functional.conv2d(
            torch.tensor(x), torch.tensor(weight), padding=padding, dilation=dilation
        )
        result = conv2d(x, weight, padding=padding, dilation=dilation)
        np.testing.assert_array_equal(result, expected.numpy())


def test_one_image():
    x, weight = draw((3, 5, 6), np.float32), draw((4, 3, 2, 2), np.float32, 1)
    np.testing.assert_array_equal(conv2d(x, weight), conv2d(x[None], weight)[0])


def test_views_and_out():
    x, weight = draw((2, 6, 9, 8), np.float32), draw((4, 3, 3, 2), np.float32, 1)
    options = {"groups": 2, "padding": 1, "stride": (1, 2)}
    expected = conv2d(x, weight, **options)
    x_view = np.ascontiguousarray(x.transpose(3, 1, 2, 0)).transpose(3, 1, 2, 0)
    weight_view = np.asfortranarray(weight)
    out = np.full((2, 8, 9, 10), np.float32(7))
    target = out[:, ::2, :, 9:-11:-2]
    assert target.shape == expected.shape
    np.testing.assert_array_equal(conv2d(x_view, weight_view, **options), expected)
    np.testing.assert_array_equal(
        conv2d(x[:, :, ::-1, ::-1], weight, **options),
        conv2d(np.ascontiguousarray(x[:, :, ::-1, ::-1]), weight, **options),
    )
    assert conv2d(x, weight, out=target, **options) is target
    np.testing.assert_array_equal(target, expected)
    assert np.all(out[:, 1::2] == 7)
    flipped = weight[:, :, ::-1, ::-1]
    np.testing.assert_array_equal(
        conv2d(x, flipped, **options), conv2d(x, np.ascontiguousarray(flipped), **options)
    )
    depthwise = draw((6, 1, 3, 3), np.float32, 2).transpose(0, 1, 3, 2)
    np.testing.assert_array_equal(
        conv2d(x, depthwise, groups=6), conv2d(x, np.ascontiguousarray(depthwise), groups=6)
    )


@pytest.mark.parametrize("stretched", [(3,), (2,), (1,), (2, 3), (1, 3), (1, 2), (1, 2, 3), (0, 3)])
def test_weights_that_repeat_themselves(stretched):
    full = (4, 3, 2, 5)
    shape = tuple(1 if axis in stretched else size for axis, size in enumerate(full))
    for dtype in (np.float32, np.uint8):
        x = draw((2, 3, 6, 7), dtype)
        weight = np.broadcast_to(draw(shape, dtype, 1), full)
        for method in ("mitchell", "mbm"):
            np.testing.assert_array_equal(
                conv2d(x, weight, method=method), conv2d(x, weight.copy(), method=method)
            )


@pytest.mark.parametrize(
    ("x", "weight", "groups"),
    [
        ((0, 2, 5, 5), (3, 2, 3, 3), 1),
        ((2, 2, 5, 5), (0, 2, 3, 3), 1),
        ((2, 0, 5, 5), (3, 0, 3, 3), 1),
        ((2, 0, 5, 5), (0, 0, 3, 3), 4),
    ],
)
def test_empty(x, weight, groups):
    result = conv2d(np.ones(x, np.float32), np.ones(weight, np.float32), groups=groups)
    assert result.shape == (x[0], weight[0], 3, 3)
    assert np.all(result == 0)


def test_frameworks():
    torch, jax = pytest.importorskip("torch"), pytest.importorskip("jax")
    x, weight = draw((2, 3, 5, 6), np.float32), draw((4, 3, 2, 2), np.float32, 1)
    expected = conv2d(x, weight)
    result = conv2d(torch.tensor(x), torch.tensor(weight))
    assert isinstance(result, torch.Tensor)
    np.testing.assert_array_equal(result.numpy(), expected)
    result = conv2d(jax.numpy.asarray(x), jax.numpy.asarray(weight))
    assert isinstance(result, jax.Array)
    np.testing.assert_array_equal(np.asarray(result), expected)
    half = conv2d(torch.tensor(x).bfloat16(), torch.tensor(weight).bfloat16())
    assert half.dtype == torch.bfloat16


def test_integer_sums_that_could_overflow_are_refused():
    x, weight = (
        np.full((1, 2, 2, 2), 2**31 - 1, np.int32),
        np.full((1, 2, 2, 2), 2**31 - 1, np.int32),
    )
    message = (
        r"^conv2d: `x` and `weight` must be small enough for exact sums in int64, got 8 products "
        r"of int32 that could add up to 3\.68935e\+19$"
    )
    with pytest.raises(ValueError, match=message):
        conv2d(x, weight)
    np.testing.assert_array_equal(
        conv2d(x, weight >> 8), by_matmul(x, weight >> 8, 1, (1, 1), (0, 0), (1, 1))
    )


F32 = np.float32


def ones(*shape, dtype=F32):
    return np.ones(shape, dtype)


@pytest.mark.parametrize(
    ("x", "weight", "options", "error", "message"),
    [
        (
            ones(2, 2),
            ones(1, 1, 1, 1),
            {},
            ValueError,
            "conv2d: `x` must have shape (n, c, h, w) or (c, h, w), got shape (2, 2)",
        ),
        (
            ones(1, 2, 2),
            ones(1, 1, 1),
            {},
            ValueError,
            "conv2d: `weight` must have shape (o, c / groups, kh, kw), got shape (1, 1, 1)",
        ),
        (
            ones(1, 2, 2, dtype=np.complex64),
            ones(1, 1, 1, 1),
            {},
            TypeError,
            "conv2d: `x` must have",
        ),
        (
            ones(1, 2, 2, dtype=np.int64),
            ones(1, 1, 1, 1),
            {},
            TypeError,
            "conv2d: `x` must be float32, float64, float16, bfloat16, int8, int16, int32, "
            "uint8, uint16 or uint32, got int64",
        ),
        (
            ones(1, 2, 2),
            ones(1, 1, 1, 1, dtype=np.float64),
            {},
            TypeError,
            "conv2d: `weight` must have dtype float32 like `x`, got float64",
        ),
        (
            ones(6, 2, 2),
            ones(4, 1, 1, 1),
            {"groups": 4},
            ValueError,
            "conv2d: `groups` must divide the 6 channels of `x` of shape (6, 2, 2), got 4",
        ),
        (
            ones(6, 2, 2),
            ones(4, 2, 1, 1),
            {"groups": 3},
            ValueError,
            "conv2d: `groups` must divide the 4 output channels of `weight` of shape "
            "(4, 2, 1, 1), got 3",
        ),
        (
            ones(6, 2, 2),
            ones(4, 6, 1, 1),
            {"groups": 2},
            ValueError,
            "conv2d: `weight` must have 3 input channels, those of `x` of shape (6, 2, 2) "
            "divided by `groups`, got shape (4, 6, 1, 1)",
        ),
        (
            ones(1, 2, 2),
            ones(1, 1, 0, 1),
            {},
            ValueError,
            "conv2d: `weight` must have a kernel of at least 1 x 1, got shape (1, 1, 0, 1)",
        ),
        (
            ones(1, 2, 2),
            ones(1, 1, 2, 2),
            {"dilation": (1, 2)},
            ValueError,
            "conv2d: `weight` must span no more than `x` of shape (1, 2, 2) with padding "
            "(0, 0), got shape (1, 1, 2, 2) with dilation (1, 2)",
        ),
        (
            ones(1, 2, 2),
            ones(1, 1, 2, 2),
            {"stride": 0},
            ValueError,
            "conv2d: `stride` must be from 1 to 2**31 - 1, got (0, 0)",
        ),
        (
            ones(1, 2, 2),
            ones(1, 1, 2, 2),
            {"stride": 10**30},
            ValueError,
            "conv2d: `stride` must be from 1 to 2**31 - 1, got (2147483648, 2147483648)",
        ),
        (
            ones(1, 2, 2),
            ones(1, 1, 2, 2),
            {"dilation": (1, -1)},
            ValueError,
            "conv2d: `dilation` must be from 1 to 2**31 - 1, got (1, -1)",
        ),
        (
            ones(1, 2, 2),
            ones(1, 1, 2, 2),
            {"padding": (0, -1)},
            ValueError,
            "conv2d: `padding` must be from 0 to 2**31 - 1, got (0, -1)",
        ),
        (
            ones(1, 2, 2),
            ones(1, 1, 2, 2),
            {"groups": 0},
            ValueError,
            "conv2d: `groups` must be at least 1, got 0",
        ),
        (
            ones(1, 2, 2),
            ones(1, 1, 2, 2),
            {"groups": 1.0},
            TypeError,
            "conv2d: `groups` must be an int, got float",
        ),
        (
            ones(1, 2, 2),
            ones(1, 1, 2, 2),
            {"stride": "2"},
            TypeError,
            "conv2d: `stride` must be an int or a pair of ints, got str",
        ),
        (
            ones(1, 2, 2),
            ones(1, 1, 2, 2),
            {"stride": (1, 2.5)},
            TypeError,
            "conv2d: `stride` must be an int or a pair of ints, got (1, 2.5)",
        ),
        (
            ones(1, 2, 2),
            ones(1, 1, 2, 2),
            {"stride": True},
            TypeError,
            "conv2d: `stride` must be an int or a pair of ints, got bool",
        ),
        (
            ones(1, 2, 2),
            ones(1, 1, 2, 2),
            {"stride": np.array([1, 1])},
            TypeError,
            "conv2d: `stride` must be an int or a pair of ints, got ndarray",
        ),
        (
            ones(1, 2, 2),
            np.broadcast_to(ones(1), (1, 1, 2**60, 1)),
            {"dilation": 16},
            ValueError,
            "conv2d: `x` and `weight` must span less than 2**61 elements, got shapes (1, 2, 2) "
            "and (1, 1, 1152921504606846976, 1) with dilation (16, 16)",
        ),
        (
            ones(1, 2, 2),
            np.broadcast_to(ones(1), (1, 1, 1, 2**60)),
            {"dilation": 16, "padding": "same"},
            ValueError,
            "conv2d: `x` and `weight` must span less than 2**61 elements",
        ),
        (
            ones(1, 2, 2),
            ones(1, 1, 2, 2),
            {"dilation": (1, 2, 3)},
            ValueError,
            "conv2d: `dilation` must be an int or a pair of ints, got (1, 2, 3)",
        ),
        (
            ones(1, 2, 2),
            ones(1, 1, 2, 2),
            {"padding": "full"},
            ValueError,
            "conv2d: `padding` must be an int, a pair of ints, 'valid' or 'same', got 'full'",
        ),
        (
            ones(1, 2, 2),
            ones(1, 1, 2, 2),
            {"padding": "same", "stride": 2},
            ValueError,
            'conv2d: `stride` must be 1 with padding "same", got (2, 2)',
        ),
        (
            ones(1, 2, 2),
            ones(1, 1, 2, 2),
            {"method": 3},
            TypeError,
            "conv2d: `method` must be a Method object or one of",
        ),
        (
            ones(1, 2, 2),
            ones(1, 1, 2, 2),
            {"method": "exact"},
            ValueError,
            "conv2d: `method` must be a Method object or one of",
        ),
        (
            ones(1, 2, 2),
            ones(1, 1, 2, 2),
            {"out": ones(1, 2, 2)},
            ValueError,
            "conv2d: `out` must have shape (1, 1, 1), got (1, 2, 2)",
        ),
        (
            ones(1, 2, 2),
            ones(1, 1, 2, 2),
            {"out": ones(1, 1, 1, dtype=np.float64)},
            TypeError,
            "conv2d: `out` must have dtype float32, got float64",
        ),
    ],
)
def test_what_does_not_fit_is_refused(x, weight, options, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        conv2d(x, weight, **options)


def test_out_must_not_be_an_operand():
    x = ones(1, 2, 2)
    with pytest.raises(ValueError, match=r"^conv2d: `out` must not overlap `x`"):
        conv2d(x, ones(1, 1, 1, 1), out=x)


def test_method_objects():
    x, weight = draw((1, 2, 5, 5), np.float32), draw((2, 2, 2, 2), np.float32, 1)
    method = Mitchell(bias=0.0625)
    expected = by_matmul(x, weight, 1, (1, 1), (0, 0), (1, 1), method=method)
    np.testing.assert_array_equal(conv2d(x, weight, method=method), expected)
    assert np.any(expected != conv2d(x, weight))


@pytest.mark.parametrize("form", ["matrices", "lines"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_table_takes_x_first(isa, form, dtype):
    """Its first index is the element of x, its second the weight, as in the reference."""
    rng = np.random.default_rng(0)
    if dtype == "uint8":
        entries = rng.integers(0, 65536, (256, 256)).astype(np.uint16)
        x = rng.integers(0, 256, (2, 4, 9, 9), dtype=np.uint8)
        weight = rng.integers(0, 256, (4, 1, 3, 3), dtype=np.uint8)
    else:
        entries = rng.integers(0, 256, (128, 128)).astype(np.uint8)
        # Products of [1, 8) with 7 fraction bits: every order of nine additions is exact.
        x = 1 + rng.random((2, 4, 9, 9), np.float32)
        weight = 1 + rng.random((4, 1, 3, 3), np.float32)
    native = Table(entries)._native
    result = _cpu.conv2d(
        x, weight, (1, 1), (1, 1), False, (1, 1), 4, native, None, np.empty, form, "auto"
    )
    expected = reference.conv2d(x, weight, padding=1, groups=4, method="table", table=entries)
    np.testing.assert_array_equal(result, expected)
