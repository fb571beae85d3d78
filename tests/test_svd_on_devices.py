"""randomized_svd by products of a framework beside the matrix, as on a CUDA device.

The frameworks' CPU arrays serve as well, so that this runs without a device.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from slipstick import projection
from slipstick.projection import _svd

torch = pytest.importorskip("torch", reason="torch is not installed")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def place(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    return request.param


def decaying(rows: int, columns: int, dtype: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    u = np.linalg.qr(rng.standard_normal((rows, columns)))[0]
    v = np.linalg.qr(rng.standard_normal((columns, columns)))[0]
    return ((u * 0.8 ** np.arange(columns)) @ v + 0.01).astype(dtype)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_factors_are_those_of_the_cpu(place, dtype, center):
    x = decaying(300, 60, dtype)
    expected = projection.randomized_svd(x, 5, center=center, seed=3)
    tensor = torch.from_numpy(x).to(place)
    factors = _svd.factorise_on_device(tensor, 5, 10, "auto", center, 3)
    tolerance = 2e-5 if dtype == "float32" else 1e-12
    for factor, wanted in zip(factors, expected, strict=True):
        assert factor.dtype == tensor.dtype
        assert factor.device == tensor.device
        np.testing.assert_allclose(factor.cpu().numpy(), wanted, atol=tolerance)


def test_other_dtypes_and_strides(place):
    x = np.round(decaying(80, 40, "float64") * 100)
    expected = projection.randomized_svd(x.astype(np.float32), 4)[1]
    for dtype, result in (
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.int32, torch.float64),
    ):
        tensor = torch.from_numpy(x.T.copy()).to(place).to(dtype).T
        singular = _svd.factorise_on_device(tensor, 4, 10, "auto", False, 0)[1]
        assert singular.dtype == result
        np.testing.assert_allclose(singular.cpu().numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize(("dtype", "power"), [("float32", 110), ("float64", -900)])
def test_numbers_whose_squares_leave_the_range(place, dtype, power):
    x = decaying(90, 30, dtype)
    tensor = torch.from_numpy(np.ldexp(x, power)).to(place)
    singular = _svd.factorise_on_device(tensor, 3, 10, "auto", False, 0)[1]
    expected = projection.randomized_svd(x, 3)[1]
    np.testing.assert_allclose(np.ldexp(singular.cpu().numpy(), -power), expected, rtol=1e-5)


def test_columns_that_depend_on_others(place):
    """The Gram matrix is singular: reflections on the host, and back."""
    x = torch.outer(torch.arange(50.0), torch.ones(20)).to(place)
    u, s, vt = _svd.factorise_on_device(x, 3, 10, "auto", False, 0)
    np.testing.assert_allclose((u * s @ vt).cpu().numpy(), x.cpu().numpy(), atol=1e-3)
    np.testing.assert_allclose((u.T @ u).cpu().numpy(), np.eye(3), atol=1e-5)


def test_what_is_refused(place):
    x = torch.ones(9, 7, device=place)
    x[3, 3] = torch.inf
    with pytest.raises(ValueError, match=r"^randomized_svd: `x` must be finite and its products"):
        _svd.factorise_on_device(x, 3, 10, "auto", False, 0)
    with pytest.raises(ValueError, match=r"^randomized_svd: `n_components` must be at most 7"):
        _svd.factorise_on_device(x, 8, 10, "auto", False, 0)
    with pytest.raises(TypeError, match=r"^randomized_svd: `x` must be of floats, integers or"):
        _svd.factorise_on_device(x.to(torch.complex64), 3, 10, "auto", False, 0)
    x = torch.ones(9, 7, device=place)
    for bad, message in (
        (
            x.clone().requires_grad_(),
            r"`x` must not require a gradient \(call \.detach\(\) first\)",
        ),
        (x.to_sparse(), r"`x` must be dense on a device, got torch\.sparse_coo$"),
        (
            x.to(torch.float8_e4m3fn),
            r"`x` must be of floats, integers or bools, got float8_e4m3fn$",
        ),
    ):
        with pytest.raises(TypeError, match=rf"^randomized_svd: {message}"):
            _svd.factorise_on_device(bad, 3, 10, "auto", False, 0)


def test_tensors_of_a_subclass(place):
    class Tensor(torch.Tensor):
        pass

    x = torch.from_numpy(decaying(40, 20, "float32")).to(place)
    same = _svd.factorise_on_device(x.as_subclass(Tensor), 3, 10, "auto", False, 0)[1]
    assert torch.equal(same, _svd.factorise_on_device(x, 3, 10, "auto", False, 0)[1])


class Device:
    """Stands for a device of cupy that is not the current one."""

    is_current = False

    def __enter__(self):
        Device.is_current = True

    def __exit__(self, *_):
        Device.is_current = False


class OfCupy(np.ndarray):
    """Stands for an array of cupy, which computes on the current device, wherever it lies."""

    device = Device()

    def __array_ufunc__(self, function, method, *inputs, **options):
        assert Device.is_current
        inputs = [np.asarray(x) if isinstance(x, OfCupy) else x for x in inputs]
        if "out" in options:
            options["out"] = tuple(np.asarray(x) for x in options["out"])
        return np.asarray(getattr(function, method)(*inputs, **options)).view(OfCupy)

    def get(self):
        return np.array(self)


@pytest.mark.parametrize("center", [False, True])
def test_cupy_computes_on_the_device_of_the_matrix(monkeypatch, center):
    cupy = SimpleNamespace(
        empty=lambda shape, dtype: np.empty(shape, dtype).view(OfCupy),
        asarray=lambda array: np.array(array).view(OfCupy),
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    x = decaying(60, 30, "float32")
    factors = _svd.factorise_on_device(cupy.asarray(x), 3, 10, "auto", center, 0)
    assert not Device.is_current
    for factor, wanted in zip(factors, projection.randomized_svd(x, 3, center=center), strict=True):
        np.testing.assert_allclose(factor.get(), wanted, atol=2e-5)
