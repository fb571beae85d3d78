"""Gradients of the Mitchell reference: closed forms, finite differences, composition."""

import numpy as np
import pytest

from mitchell_formats import FORMAT_IDS, FORMATS, bias_of
from slipstick import reference

EXACT = [
    ("mitchell", {}),
    ("mitchell", {"bias": bias_of(0x3F772FAD)}),
    ("mitchell", {"bias": 0.75}),
    ("lmul", {}),
    ("lmul", {"width": 52}),
    ("lmul-formula", {}),
    ("mbm", {}),
    ("realm", {"width": 8}),
    ("ilm", {"width": 0}),
    ("ilm", {"width": 2}),
]


@pytest.mark.parametrize(("method", "options"), EXACT)
def test_exact_derivative_is_the_slope_of_the_product(method, options):
    rng = np.random.default_rng(0)
    a, b = rng.uniform(1, 16, (2, 2000)) * rng.choice([-1, 1], (2, 2000))
    step = np.copysign(2.0**-30, a)  # exact in float64, towards larger magnitudes
    if method == "ilm":
        # What remains of a after width + 1 leading ones has to grow by the step.
        a = np.copysign(np.floor(np.abs(a) * 2.0**20) / 2.0**20 + 2.0**-21, a)
    rise = reference.multiply(a + step, b, method=method, **options) - reference.multiply(
        a, b, method=method, **options
    )
    slope = reference.derivative(a, b, method=method, **options)
    # Truncation of a product below 2^9 moves the difference by 2^(9 - 52) at most.
    error = np.abs(rise / step - slope)
    smooth = error <= 2.0 ** (9 - 52 + 30 + 1)
    assert np.count_nonzero(smooth) >= 1995  # a few steps cross a kink or a segment's border
    assert np.all(np.abs(slope) <= 4 * np.abs(b))


@pytest.mark.parametrize("fmt", FORMATS, ids=FORMAT_IDS)
def test_derivative_edges(fmt):
    dtype, word, fraction, one, tiny, inf, _ = fmt
    value = {
        "0": 0,
        "subnormal": tiny - 1,
        "1": one,
        "1.5": one + 2 ** (fraction - 1),
        "3": one + 3 * 2 ** (fraction - 1),
        "max": inf - 1,
        "inf": inf,
        "nan": inf + 1,
    }

    def at(a, b, **options):
        a, b = (np.array(value[x], word).view(dtype) for x in (a, b))
        return float(reference.derivative(a, b, **options))

    assert at("1.5", "1.5") == 2  # x + y = 1 carries
    assert at("1", "3") == 2
    assert at("0", "3") == at("subnormal", "3") == 2
    assert at("1.5", "0") == at("1.5", "subnormal") == 0
    assert at("subnormal", "3", bias=0.5) == 4
    assert at("1.5", "1.5", method="lmul-formula") == 1
    assert at("1.5", "3", method="ilm", width=0) == 2
    assert at("1.5", "3", method="ilm", width=1) == 3
    assert at("1.5", "max") == np.inf  # one carry above the largest exponent
    for a, b in [("inf", "1"), ("1", "inf"), ("nan", "1"), ("1", "nan"), ("nan", "0")]:
        for method in ("mitchell", "lmul-formula", "ilm"):
            assert np.isnan(at(a, b, method=method))


@pytest.mark.parametrize(
    ("method", "width"),
    [("lmul", 4), ("lmul-formula", 4), ("mbm", 3), ("mitch-w", 6), ("drum", 6), ("alm-soa", 4)],
)
def test_methods_that_drop_bits_have_no_exact_gradient(method, width):
    x = np.ones((2, 2), np.float32)
    with pytest.raises(ValueError, match="drops bits"):
        reference.matmul_backward(x, x, x, gradient="exact", method=method, width=width)


SHAPES = [
    ((3,), (3,)),
    ((3,), (3, 4)),
    ((2, 3), (3,)),
    ((2, 3), (3, 4)),
    ((5, 2, 3), (3, 4)),
    ((5, 2, 3), (1, 3, 4)),
    ((3,), (5, 3, 4)),
    ((5, 1, 2, 3), (6, 3, 4)),
    ((2, 0), (0, 4)),
    ((5, 0, 3), (3, 4)),
]


@pytest.mark.parametrize(("left", "right"), SHAPES)
@pytest.mark.parametrize("gradient", ["mimic", "exact", "straight-through"])
def test_gradients_of_broadcast_shapes(left, right, gradient):
    """With powers of two every product is exact, and so is every gradient."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)

    def powers(shape):
        return (rng.choice([-1, 1], shape) * 2.0 ** rng.integers(-3, 4, shape)).astype(np.float32)

    a, b = powers(left), powers(right)
    grad = powers(np.matmul(a, b).shape)
    tensors = [torch.from_numpy(x).double().requires_grad_() for x in (a, b)]
    torch.matmul(*tensors).backward(torch.from_numpy(np.asarray(grad)).double())
    got = reference.matmul_backward(grad, a, b, gradient=gradient)
    for g, x, tensor in zip(got, (a, b), tensors, strict=True):
        assert g.shape == x.shape
        assert np.array_equal(g, tensor.grad.numpy())


def test_mimic_is_a_composition_of_products():
    rng = np.random.default_rng(0)
    a, b, grad = (rng.standard_normal(s).astype(np.float32) for s in ((4, 3), (3, 5), (4, 5)))
    for method, width in [("mitchell", None), ("mbm", 0), ("drum", 4), ("realm", 16)]:
        options = {"method": method, "width": width}
        grad_a, grad_b = reference.matmul_backward(grad, a, b, **options)
        np.testing.assert_allclose(grad_a, reference.matmul(grad, b.T, **options), rtol=1e-14)
        np.testing.assert_allclose(grad_b, reference.matmul(a.T, grad, **options), rtol=1e-14)


def test_straight_through_is_the_gradient_of_the_exact_product():
    rng = np.random.default_rng(0)
    a, b, grad = (rng.standard_normal(s).astype(np.float32) for s in ((4, 3), (3, 5), (4, 5)))
    wide = grad.astype(np.float64)
    grad_a, grad_b = reference.matmul_backward(grad, a, b, gradient="straight-through")
    np.testing.assert_allclose(grad_a, wide @ b.T, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(grad_b, a.T @ wide, rtol=1e-13, atol=1e-14)


def test_exact_gradient_follows_its_formula():
    rng = np.random.default_rng(0)
    a, b, grad = (rng.standard_normal(s).astype(np.float32) for s in ((4, 3), (3, 5), (4, 5)))
    grad_a, grad_b = reference.matmul_backward(grad, a, b, gradient="exact")
    (ma, ea), (mb, eb) = np.frexp(np.abs(a)), np.frexp(np.abs(b))
    carry = (2 * ma - 1)[:, :, np.newaxis] + (2 * mb - 1)[np.newaxis] >= 1
    g = grad[:, np.newaxis, :].astype(np.float64)
    by_a = g * np.sign(b) * 2.0 ** (eb - 1 + carry)
    by_b = g * (np.sign(a) * 2.0 ** (ea - 1))[:, :, np.newaxis] * 2.0**carry
    np.testing.assert_allclose(grad_a, by_a.sum(axis=2), rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(grad_b, by_b.sum(axis=0), rtol=1e-14, atol=1e-15)
