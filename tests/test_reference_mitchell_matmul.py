"""Matrix products, gradients and convolutions of the Mitchell reference."""

import math

import numpy as np
import pytest

from mitchell_formats import bias_of, ml_dtypes
from slipstick import reference


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((3,), (3,)),
        ((3,), (3, 4)),
        ((2, 3), (3,)),
        ((2, 3), (3, 4)),
        ((5, 2, 3), (3, 4)),
        ((5, 2, 3), (3,)),
        ((3,), (5, 3, 4)),
        ((5, 1, 2, 3), (6, 3, 4)),
        ((2, 0), (0, 4)),
        ((0, 3), (3, 4)),
        ((0,), (0,)),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.uint16, ml_dtypes.bfloat16])
def test_matmul_with_power_of_two_weights_is_exact(left, right, dtype):
    rng = np.random.default_rng(0)
    a = rng.integers(0, 8, left).astype(dtype)
    b = (2 ** rng.integers(0, 4, right)).astype(dtype)
    got = reference.matmul(a, b)
    expected = a.astype(np.float64) @ b.astype(np.float64)
    assert got.shape == expected.shape
    assert np.array_equal(got, expected)
    assert got.dtype == {np.int8: np.int32, np.uint16: np.uint64}.get(dtype, np.float64)


def test_matmul_corrections():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 8, 8)).astype(np.float32)
    plain = reference.matmul(a, b)
    gained = reference.matmul(a, b, correction="gain")
    np.testing.assert_allclose(gained, plain * 27 / 26, rtol=1e-15)
    assert np.array_equal(reference.matmul(a, b, correction=1.5), plain * 1.5)
    d = bias_of(0x3F78C094)
    np.testing.assert_allclose(
        reference.matmul(a, b, bias=d, correction="gain"),
        reference.matmul(a, b, bias=d) / reference.gain(d),
        rtol=1e-15,
    )


def assert_mean(samples, expected, rounding):
    """The mean of independent samples lies within 4 standard errors of a rounded figure."""
    samples = np.asarray(samples)
    error = samples.std(ddof=1) / math.sqrt(len(samples))
    assert abs(samples.mean() - expected) <= 4 * error + rounding
    assert 4 * error < 0.05 * expected  # or the figure would not be tested


@pytest.mark.parametrize("k", [16, 256])
def test_matmul_noise_does_not_depend_on_the_inner_size(k):
    raw, corrected = [], []
    for seed in range(16):
        a, b = np.random.default_rng(seed).standard_normal((2, 32, k)).astype(np.float32)
        exact = a.astype(np.float64) @ b.T
        product = reference.matmul(a, b.T)
        raw.append(np.linalg.norm(product - exact) / np.linalg.norm(exact))
        scaled = product * 27 / 26
        corrected.append(np.linalg.norm(scaled - exact) / np.linalg.norm(exact))
    assert_mean(raw, 0.0474, 0.00005)
    assert_mean(corrected, 0.030, 0.001)  # published as 2.9 ... 3.1 %


def test_matmul_of_positive_data_is_a_gain():
    shortfall = []
    for seed in range(16):
        a, b = (2 ** np.random.default_rng(seed).uniform(0, 1, (2, 32, 64))).astype(np.float32)
        exact = a.astype(np.float64) @ b.T
        shortfall.append(1 - reference.matmul(a, b.T).sum() / exact.sum())
    # Under the log-uniform density 1 / (T ln^2 2), E[P] / E[T] is the uniform mean of P / T.
    assert_mean(shortfall, 0.03848799, 5e-9)


GAINS = [
    ("lmul", None),
    ("lmul", 2),
    ("lmul", 3),
    ("lmul-formula", None),
    ("lmul-formula", 2),
    ("mbm", 0),
    ("mbm", 16),
    ("mbm", 19),
    ("realm", 8),
    ("ilm", 0),
    ("ilm", 2),
    ("mitch-w", 1),
    ("mitch-w", 3),
    ("drum", 1),
    ("drum", 4),
    ("alm-soa", 18),
    ("alm-soa", 20),
]


@pytest.mark.parametrize(("method", "width"), GAINS)
def test_gain_of_a_method_is_its_mean_product(method, width):
    x = (1 + (np.arange(1024) + 0.5) / 1024).astype(np.float32)
    mean = reference.multiply(x[:, np.newaxis], x, method=method, width=width).mean(dtype=float)
    # The midpoint rule is exact in cells without a kink or a step. Kinks cross up to 2048 cells,
    # with jumps of the slope of at most 2: h^3 / 24 each, below 2e-7. The border of the corner that
    # MBM skips crosses 40 cells: half a cell of 5/64 each, below 1.5e-6.
    assert mean / 2.25 == pytest.approx(reference.gain(method=method, width=width), abs=2e-6)


def test_gain_of_tables():
    assert reference.gain(method="table", table=[[0, 1], [1, 0x80]]) == pytest.approx(2 / 3)
    for method, table in [("table", np.zeros((256, 256))), ("operand-decomposition", None)]:
        with pytest.raises(ValueError, match="has no mantissas"):
            reference.gain(method=method, table=table)


def test_products_of_real_numbers_enter_sums_unrounded():
    x = np.float16([[1 + 2**-10, 3.0]])
    exact = x.astype(np.float64) @ x.astype(np.float64).T
    assert reference.matmul(x, x.T, method="drum", width=11)[0, 0] == exact[0, 0]
    assert reference.matmul(x, x.T, method="ilm", width=10)[0, 0] == exact[0, 0]
    tiny, huge = np.float16([[2**-14]]), np.float16([[2**15]])
    for method in ("ilm", "drum", "lmul-formula"):  # neither flushed nor infinite
        least = reference.matmul(tiny, tiny, method=method)[0, 0]
        assert 0.9 * 2**-28 <= least <= 1.1 * 2**-28
        most = reference.matmul(huge, huge, method=method)[0, 0]
        assert 0.9 * 2**30 <= most <= 1.1 * 2**30
        zero, inf = np.float16([[0, 1]]), np.float16([[np.inf], [1]])
        assert np.isnan(reference.matmul(zero, inf, method=method)[0, 0])
        assert reference.matmul(-inf.T, inf, method=method)[0, 0] == -np.inf


def test_matmul_of_an_iterated_product_is_an_exact_product_in_disguise():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 6, 6)).astype(np.float32).astype(np.float64)
    lead_a, lead_b = (np.sign(x) * 2.0 ** np.floor(np.log2(np.abs(x))) for x in (a, b))
    disguise = np.hstack([a, lead_a]) @ np.vstack([lead_b, b - lead_b])
    got = reference.matmul(a.astype(np.float32), b.astype(np.float32), method="ilm", width=0)
    np.testing.assert_allclose(got, disguise, rtol=0, atol=1e-13)


@pytest.mark.parametrize("padding", [0, 1, (2, 1)])
@pytest.mark.parametrize("stride", [1, (2, 3)])
@pytest.mark.parametrize("dilation", [1, (2, 1)])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_conv2d_with_power_of_two_weights_is_exact(padding, stride, dilation, groups):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x = rng.integers(-4, 5, (2, 4, 7, 9)).astype(np.float32)
    weight = (2.0 ** rng.integers(-2, 3, (8, 4 // groups, 3, 2))).astype(np.float32)
    options = {"padding": padding, "stride": stride, "dilation": dilation, "groups": groups}
    got = reference.conv2d(x, weight, **options)
    wide = torch.from_numpy(x).double(), torch.from_numpy(weight).double()
    assert np.array_equal(got, torch.nn.functional.conv2d(*wide, **options).numpy())


def test_conv2d_of_a_table_multiplies_its_padding():
    table = np.add.outer(np.arange(256), np.arange(256)).astype(np.uint16)
    x, weight = np.uint8([[[[3]]]]), np.uint8([[[[5, 7, 9]]]])
    got = reference.conv2d(x, weight, padding=(0, 1), method="table", table=table)
    assert got.dtype == np.uint32
    assert got.tolist() == [[[[5 + (3 + 7) + 9]]]]
