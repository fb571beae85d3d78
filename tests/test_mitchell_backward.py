"""Gradients of matrix products: three kinds, against their definitions."""

import re

import ml_dtypes
import numpy as np
import pytest

import slipstick
from slipstick import _cpu, reference
from slipstick._arrays import framework_of
from slipstick.mitchell import (
    ALMSOA,
    DRUM,
    ILM,
    MBM,
    REALM,
    LMul,
    LMulFormula,
    Mitchell,
    MitchW,
    matmul_backward,
    methods,
    multiply,
)
from slipstick.mitchell._methods import as_method

FLOATS = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16]
NAMES = [np.dtype(dtype).name for dtype in FLOATS]
KINDS = ["mimic", "exact", "straight-through"]

# a, b: matrices of awkward sizes, vectors, stretched axes.
SHAPES = {
    "matrices": ((5, 7), (7, 9)),
    "longer than a chain": ((3, 300), (300, 270)),
    "several tasks": ((100, 9), (9, 150)),
    "column by row": ((6, 1), (1, 5)),
    "batches": ((3, 2, 4, 5), (3, 2, 5, 6)),
    "b shared": ((5, 4, 6), (6, 3)),
    "a shared": ((4, 6), (2, 3, 6, 5)),
    "both stretched": ((3, 1, 4, 5), (2, 5, 6)),
    "row": ((7,), (7, 9)),
    "column": ((5, 7), (7,)),
    "vectors": ((7,), (7,)),
    "row and batch": ((7,), (3, 7, 2)),
    "batch and column": ((3, 4, 7), (7,)),
}

# A method, and what the reference calls it.
EXACT = {
    "mitchell": (Mitchell(), {}),
    "offset": (Mitchell(0.0625), {"bias": 0.0625}),
    "large offset": (Mitchell(0.75), {"bias": 0.75}),
    "lmul": (LMul(), {"method": "lmul"}),
    "mbm": (MBM(), {"method": "mbm"}),
    "realm": (REALM(), {"method": "realm", "width": 16}),
    "lmul-formula": (LMulFormula(), {"method": "lmul-formula"}),
    "ilm": (ILM(0), {"method": "ilm", "width": 0}),
    "ilm 3": (ILM(3), {"method": "ilm", "width": 3}),
}


def draw(shape, dtype, seed):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < 0.1, 0, rng.standard_normal(shape)).astype(dtype)


def operands(case, dtype=np.float32):
    a, b = (draw(shape, dtype, seed) for seed, shape in enumerate(SHAPES[case]))
    return draw(np.matmul(a.astype(np.float64), b.astype(np.float64)).shape, dtype, 2), a, b


def wide(x):
    return np.asarray(x).astype(np.float64)


def assert_same(results, expected):
    for result, wanted in zip(results, expected, strict=True):
        assert result.dtype == wanted.dtype
        np.testing.assert_array_equal(wide(result), wide(wanted))


def error_bounds(grad, a, b, dtype):
    """Return what the sums may err by, for factors of at most four times the other operand.

    n float32 additions err by n 2^-24 of the sum of the magnitudes, the rounding of the result by
    half a unit of its last place.
    """
    magnitudes = reference.matmul_backward(
        *(abs(wide(x)) for x in (grad, a, b)), gradient="straight-through"
    )
    unit = 2.0**-52 if dtype == np.float64 else 2.0**-24
    last = float(ml_dtypes.finfo(dtype).eps)
    tiny = float(ml_dtypes.finfo(dtype).smallest_normal)
    return [
        4 * m * ((grad.size // max(1, x.shape[axis]) + 1) * unit + last) + tiny
        for m, x, axis in zip(magnitudes, (a, b), (0, -1), strict=True)
    ]


@pytest.mark.parametrize("dtype", FLOATS, ids=NAMES)
@pytest.mark.parametrize("gradient", KINDS)
@pytest.mark.parametrize("case", SHAPES)
def test_equals_the_reference(isa, case, gradient, dtype):
    grad, a, b = operands(case, dtype)
    results = matmul_backward(grad, a, b, gradient=gradient)
    expected = reference.matmul_backward(grad, a, b, gradient=gradient)
    for result, wanted, bound, operand in zip(
        results, expected, error_bounds(grad, a, b, dtype), (a, b), strict=True
    ):
        assert result.shape == operand.shape
        assert result.dtype == operand.dtype
        assert np.all(abs(wide(result) - wanted) <= bound)


@pytest.mark.parametrize("dtype", FLOATS, ids=NAMES)
@pytest.mark.parametrize("name", EXACT)
def test_exact_gradient_of_every_method(isa, name, dtype):
    method, options = EXACT[name]
    grad, a, b = operands("matrices", dtype)
    results = matmul_backward(grad, a, b, method=method, gradient="exact")
    expected = reference.matmul_backward(grad, a, b, gradient="exact", **options)
    for result, wanted, bound in zip(
        results, expected, error_bounds(grad, a, b, dtype), strict=True
    ):
        assert np.all(abs(wide(result) - wanted) <= bound)


@pytest.mark.parametrize("dtype", FLOATS, ids=NAMES)
@pytest.mark.parametrize("name", EXACT)
def test_exact_factors_of_all_kinds_of_numbers(isa, name, dtype):
    """Products of single numbers: the gradient of 1 is the factor itself, without rounding."""
    method, options = EXACT[name]
    info = ml_dtypes.finfo(dtype)
    tiny, largest = float(info.smallest_normal), float(info.max)
    kinds = [0, 1, 1.25, 1.5, 1.75, 2 - float(info.eps), 3, tiny, tiny * 1.75, tiny / 2]
    kinds = [*kinds, largest, largest / 2, np.inf, np.nan, float(info.smallest_subnormal)]
    values = np.array([*kinds, *(-x for x in kinds)]).astype(dtype)
    a = np.repeat(values, len(values)).reshape(-1, 1, 1)
    b = np.tile(values, len(values)).reshape(-1, 1, 1)
    grad_a, grad_b = matmul_backward(np.ones_like(a), a, b, method=method, gradient="exact")
    np.testing.assert_array_equal(wide(grad_a), reference.derivative(a, b, **options))
    np.testing.assert_array_equal(wide(grad_b), reference.derivative(b, a, **options))
    # Alone, and beside a number that takes the whole product to the kernel for infinite factors.
    finite = np.isfinite(wide(a)) & (abs(wide(a)) < largest / 8)
    finite &= np.isfinite(wide(b)) & (abs(wide(b)) < largest / 8)
    a, b = a[finite[:, 0, 0]], b[finite[:, 0, 0]]
    grad_a, _ = matmul_backward(np.ones_like(a), a, b, method=method, gradient="exact")
    np.testing.assert_array_equal(wide(grad_a), reference.derivative(a, b, **options))


@pytest.mark.parametrize("name", ["mitchell", "offset", "large offset"])
def test_exact_is_the_slope_of_the_product(name):
    method, _ = EXACT[name]
    rng = np.random.default_rng(3)
    # Multiples of 2^-10 and an odd one of 2^-12 off: no sum of fractions is near a kink, which
    # lies at a multiple of 2^-4, and the step of 2^-30 is exact in float64.
    a = rng.integers(1024, 2048, (2000, 1, 1)) * 2.0**-10 + 2.0**-12
    b = rng.integers(1024, 2048, (2000, 1, 1)) * 2.0**-10
    a, b = (x * rng.choice([-4, -1, 0.5, 1], x.shape) for x in (a, b))
    step = np.copysign(2.0**-30, a)
    rise = multiply(a + step, b, method=method) - multiply(a, b, method=method)
    grad_a, grad_b = matmul_backward(np.ones_like(a), a, b, method=method, gradient="exact")
    np.testing.assert_array_equal(grad_a, rise / step)
    step = np.copysign(2.0**-30, b)
    rise = multiply(a, b + step, method=method) - multiply(a, b, method=method)
    np.testing.assert_array_equal(grad_b, rise / step)


def test_straight_through_is_the_slope_of_the_exact_product():
    grad, a, b = operands("both stretched", np.float64)
    grad_a, grad_b = matmul_backward(grad, a, b, gradient="straight-through")
    for operand, result in ((a, grad_a), (b, grad_b)):
        for index in np.ndindex(operand.shape):
            before = operand[index]
            # The product is linear: a step of 1 errs by rounding alone.
            operand[index] = before + 1
            above = np.sum(grad * np.matmul(a, b))
            operand[index] = before
            # 288 products of magnitudes below 20 and as many sums, each within 2^-53.
            assert abs(above - np.sum(grad * np.matmul(a, b)) - result[index]) < 1e-10


@pytest.mark.parametrize("dtype", FLOATS, ids=NAMES)
@pytest.mark.parametrize("name", ["mitchell", "zero-bias", "mitch-w", "drum", "alm-soa"])
@pytest.mark.parametrize("case", ["matrices", "longer than a chain", "batches", "vectors", "row"])
def test_mimic_composes_products(isa, case, name, dtype):
    grad, a, b = operands(case, dtype)
    left = a[None, :] if a.ndim == 1 else a
    right = b[:, None] if b.ndim == 1 else b
    g = np.expand_dims(grad, [axis for axis, x in ((-2, a), (-1, b)) if x.ndim == 1])
    native, empty = as_method("matmul", name)._native, framework_of("matmul", a).empty
    expected = (
        _cpu.matmul(g, right.swapaxes(-1, -2), native, 1.0, None, empty).reshape(a.shape),
        _cpu.matmul(left.swapaxes(-1, -2), g, native, 1.0, None, empty).reshape(b.shape),
    )
    assert_same(matmul_backward(grad, a, b, method=name), expected)


@pytest.mark.parametrize("dtype", FLOATS, ids=NAMES)
@pytest.mark.parametrize("gradient", KINDS)
def test_sums_over_stretched_axes_continue_the_chains(isa, gradient, dtype):
    """A batch over one b is one long matrix: the same bits, though pieces of 7 rows cross 256."""
    a, b = draw((60, 7, 11), dtype, 0), draw((11, 20), dtype, 1)
    grad = draw((60, 7, 20), dtype, 2)
    grad_a, grad_b = matmul_backward(grad, a, b, gradient=gradient)
    flat = matmul_backward(grad.reshape(420, 20), a.reshape(420, 11), b, gradient=gradient)
    assert_same((grad_a.reshape(420, 11), grad_b), flat)


@pytest.mark.parametrize("method", [ILM(1), LMulFormula()])
def test_sums_over_stretched_axes_of_products_of_two_terms(method):
    a, b, grad = draw((60, 7, 11), np.float32, 0), draw((11, 20), np.float32, 1), None
    grad = draw((60, 7, 20), np.float32, 2)
    grad_a, grad_b = matmul_backward(grad, a, b, method=method)
    flat = matmul_backward(grad.reshape(420, 20), a.reshape(420, 11), b, method=method)
    assert_same((grad_a.reshape(420, 11), grad_b), flat)


@pytest.mark.parametrize("gradient", KINDS)
@pytest.mark.parametrize("case", ["several tasks", "longer than a chain", "b shared"])
def test_threads_do_not_matter(case, gradient):
    arrays = operands(case)
    before = slipstick.get_num_threads()
    results = []
    for count in (1, 2, 7):
        slipstick.set_num_threads(count)
        results.append(matmul_backward(*arrays, gradient=gradient))
    slipstick.set_num_threads(before)
    assert_same(results[1], results[0])
    assert_same(results[2], results[0])


@pytest.mark.parametrize("gradient", ["mimic", "exact"])
def test_levels_do_not_matter(gradient):
    arrays = operands("longer than a chain")
    before = slipstick.get_isa()
    results = []
    for level in _cpu.levels[: _cpu.levels.index(_cpu.best_isa) + 1]:
        slipstick.set_isa(level)
        results.append(matmul_backward(*arrays, gradient=gradient))
    slipstick.set_isa(before)
    for result in results:
        assert_same(result, results[0])


@pytest.mark.parametrize("gradient", KINDS)
def test_infinite_factors_leave_the_rest_alone(isa, gradient):
    grad, a, b = operands("several tasks")
    clean = matmul_backward(grad, a, b, gradient=gradient)
    b[4, 3] = np.nan
    grad_a, grad_b = matmul_backward(grad, a, b, gradient=gradient)
    others = np.arange(9) != 4
    assert np.all(np.isnan(grad_a[:, 4]))
    np.testing.assert_array_equal(grad_a[:, others], clean[0][:, others])
    if gradient == "exact":  # the derivative at a NaN is one, too
        assert np.isnan(grad_b[4, 3])
        grad_b[4, 3] = clean[1][4, 3]
    np.testing.assert_array_equal(grad_b, clean[1])


def test_powers_of_two_have_the_exact_gradient():
    rng = np.random.default_rng(5)
    a = rng.integers(-50, 50, (9, 11)).astype(np.float32)
    grad = rng.integers(-50, 50, (9, 13)).astype(np.float32)
    b = (np.exp2(rng.integers(-3, 4, (11, 13))) * rng.choice([-1, 1], (11, 13))).astype(np.float32)
    # Products and sums are multiples of 1/8 below 2^17: exact in any order.
    for gradient in ("mimic", "straight-through"):
        grad_a, _ = matmul_backward(grad, a, b, gradient=gradient)
        np.testing.assert_array_equal(grad_a, grad @ b.T)


@pytest.mark.parametrize("gradient", KINDS)
@pytest.mark.parametrize(
    ("a", "b"),
    [((0, 3), (3, 4)), ((2, 0), (0, 4)), ((2, 3), (3, 0)), ((0, 2, 3), (3, 4)), ((0,), (0,))],
)
def test_empty(a, b, gradient):
    a, b = np.ones(a, np.float32), np.ones(b, np.float32)
    grads = matmul_backward(np.ones(np.matmul(a, b).shape, np.float32), a, b, gradient=gradient)
    for result, operand in zip(grads, (a, b), strict=True):
        assert result.shape == operand.shape
        assert np.all(result == 0)


def test_views():
    grad, a, b = operands("several tasks")
    expected = [matmul_backward(grad, a, b, gradient=kind) for kind in KINDS]
    padded = np.zeros((200, 27), np.float32)
    padded[::2, 8::-1] = a
    for kind, wanted in zip(KINDS, expected, strict=True):
        view = padded[::2, 8::-1]
        results = matmul_backward(
            np.asfortranarray(grad), view, np.asfortranarray(b), gradient=kind
        )
        assert_same(results, wanted)


def test_frameworks():
    torch, jax = pytest.importorskip("torch"), pytest.importorskip("jax")
    arrays = operands("matrices")
    for kind in KINDS:
        expected = matmul_backward(*arrays, gradient=kind)
        results = matmul_backward(*(torch.tensor(x) for x in arrays), gradient=kind)
        assert all(isinstance(x, torch.Tensor) for x in results)
        assert_same([x.numpy() for x in results], expected)
        results = matmul_backward(*(jax.numpy.asarray(x) for x in arrays), gradient=kind)
        assert all(isinstance(x, jax.Array) for x in results)
        assert_same([np.asarray(x) for x in results], expected)
    halves = [torch.tensor(x).bfloat16() for x in arrays]
    # Of bfloat16's own fraction bits: LMul(7) rounds nothing there.
    for result in matmul_backward(*halves, method=LMul(7), gradient="exact"):
        assert result.dtype == torch.bfloat16


def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


@pytest.mark.parametrize(
    "method",
    [MitchW(), DRUM(), ALMSOA(), MBM(truncate=2), LMul(bits=5), LMulFormula(bits=5), "alm-soa"],
)
def test_methods_that_drop_bits_have_no_exact_gradient(method):
    name = {"alm-soa": "ALMSOA(width=4)"}.get(method, repr(method))
    message = (
        "matmul_backward: `gradient` must be 'mimic' or 'straight-through' for a method that drops "
        f"bits of its operands, got 'exact' with {name}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        matmul_backward(ones(2, 2), ones(2, 2), ones(2, 2), method=method, gradient="exact")
    assert len(matmul_backward(ones(2, 2), ones(2, 2), ones(2, 2), method=method)) == 2


@pytest.mark.parametrize(
    ("grad", "a", "b", "options", "error", "message"),
    [
        (
            ones(2, 4),
            ones(2, 3),
            ones(3, 5),
            {},
            ValueError,
            "matmul_backward: `grad` must have shape (2, 5), that of the product of `a` and `b`, "
            "got (2, 4)",
        ),
        (
            ones(2, 5),
            ones(2, 3),
            ones(4, 5),
            {},
            ValueError,
            "matmul_backward: `b` must have 3 rows, as many as `a` of shape (2, 3) has columns, "
            "got shape (4, 5)",
        ),
        (
            ones(2, 2, 5),
            ones(2, 2, 3),
            ones(3, 3, 5),
            {},
            ValueError,
            "matmul_backward: `b` must broadcast with `a` of shape (2, 2, 3), got shape (3, 3, 5)",
        ),
        (
            ones(2),
            ones(),
            ones(3, 5),
            {},
            ValueError,
            "matmul_backward: `a` must have at least one axis, got shape ()",
        ),
        (
            ones(2, 5, dtype=np.int8),
            ones(2, 3, dtype=np.int8),
            ones(3, 5, dtype=np.int8),
            {},
            TypeError,
            "matmul_backward: `grad` must be float32, float64, float16 or bfloat16, got int8",
        ),
        (
            ones(2, 5),
            ones(2, 3, dtype=np.float64),
            ones(3, 5),
            {},
            TypeError,
            "matmul_backward: `a` must have dtype float32 like `grad`, got float64",
        ),
        (
            ones(2, 5),
            ones(2, 3),
            ones(3, 5, dtype=np.float16),
            {},
            TypeError,
            "matmul_backward: `b` must have dtype float32 like `grad`, got float16",
        ),
        (
            ones(2, 5),
            ones(2, 3),
            ones(3, 5),
            {"gradient": "true"},
            ValueError,
            "matmul_backward: `gradient` must be one of 'mimic', 'exact', 'straight-through', "
            "got 'true'",
        ),
        (
            ones(2, 5),
            ones(2, 3),
            ones(3, 5),
            {"gradient": None},
            TypeError,
            "matmul_backward: `gradient` must be one of 'mimic', 'exact', 'straight-through', "
            "got None",
        ),
        (
            ones(2, 5),
            ones(2, 3),
            ones(3, 5),
            {"gradient": ones(2, 1)},
            TypeError,
            "matmul_backward: `gradient` must be one of 'mimic', 'exact', 'straight-through', "
            "got array([[1.], [1.]], dtype=float32)",
        ),
        (
            ones(2, 5),
            ones(2, 3),
            ones(3, 5),
            {"method": "none"},
            ValueError,
            "matmul_backward: `method` must be a Method object or one of",
        ),
        (
            "grad",
            ones(2, 3),
            ones(3, 5),
            {},
            TypeError,
            "matmul_backward: `grad` must be",
        ),
    ],
)
def test_what_does_not_fit_is_refused(grad, a, b, options, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        matmul_backward(grad, a, b, **options)


def test_every_method_has_two_gradients_at_least():
    for name in methods():
        if name == "operand-decomposition":
            continue  # integers only, which have no gradients
        for gradient in ("mimic", "straight-through"):
            grads = matmul_backward(*operands("matrices"), method=name, gradient=gradient)
            assert all(np.all(np.isfinite(x)) for x in grads)
