"""Arguments that no ordinary caller has: views of any size, data that change under way."""

from __future__ import annotations

import numpy as np
import pytest

import slipstick
from slipstick import mitchell, projection, scales

ONE = np.float32(1)


def repeated(*shape: int) -> np.ndarray:
    """One number in memory, seen at every index of a shape that no memory holds."""
    return np.broadcast_to(ONE, shape)


@pytest.mark.parametrize("keys", [0, 1])
def test_a_head_dimension_that_no_memory_holds(keys):
    query, key = repeated(1, 2**55), repeated(keys, 2**55)
    with pytest.raises(MemoryError, match=r"^slipstick: no memory for what this call works with$"):
        slipstick.attention(query, key, np.ones((keys, 3), np.float32))


def test_results_without_elements_need_no_work():
    long = 2**40
    assert mitchell.matmul(repeated(long, 1), np.ones((1, 0), np.float32)).shape == (long, 0)
    assert mitchell.matmul(np.empty((long, 0, 3)), np.ones((3, 5))).shape == (long, 0, 5)
    assert slipstick.softmax(np.empty((long, 0), np.float32)).shape == (long, 0)
    one = np.ones((1, 1, 1, 1), np.float32)
    out = slipstick.attention(repeated(1, 1, long, 1), one, one[..., :0])
    assert out.shape == (1, 1, long, 0)


def test_key_lengths_that_change_after_they_were_checked():
    x = np.ones((2, 1, 3, 4), np.float32)
    lengths = np.array([3, 3])
    out = np.empty((2, 1, 3, 4), np.float32)

    class Changing:
        def __dlpack__(self, **options):
            lengths[:] = 2**40
            return out.__dlpack__(**options)

    slipstick.attention(x, x, x, key_lengths=lengths, out=Changing())
    np.testing.assert_array_equal(out, x)


@pytest.mark.parametrize(
    "parameters",
    [("affine_log", np.ones((1, 2), np.int8)), ("temperature", np.zeros((1, 1)))],
)
def test_a_scale_whose_parameters_are_none(parameters, monkeypatch):
    monkeypatch.setattr(scales.LogN, "_lower", lambda self, dim: parameters)
    scale = scales.LogN(512 + len(parameters[0]))  # lowered once and remembered: by this test alone
    match = r"^softmax: `scale` must give . float64 parameters a head"
    with pytest.raises(ValueError, match=match):
        slipstick.softmax(np.ones((4, 1, 1), np.float32), scale=scale)


@pytest.mark.parametrize("cap", [1e-50, 1e39])
def test_a_softcap_beyond_float32(cap):
    x = np.ones((4, 4), np.float32)
    match = r"^attention: `softcap` must be above 0 and finite in float32, got "
    with pytest.raises(ValueError, match=match):
        slipstick.attention(x, x, x, softcap=cap)
    slipstick.attention(*(x.astype(np.float64),) * 3, softcap=cap)


def test_integers_beyond_any_float():
    x = np.ones((4, 4), np.float32)
    huge = 10**400
    for call in (
        lambda: mitchell.Mitchell(huge),
        lambda: mitchell.matmul(x, x, correction=huge),
        lambda: slipstick.attention(x, x, x, softcap=huge),
        lambda: scales.LogN(huge),
        lambda: scales.Su(huge),
        lambda: scales.Temperature(huge, 5),
    ):
        with pytest.raises(ValueError, match=r"^\w+: `\w+` must be .*, got 1000"):
            call()


def test_bools_of_any_byte():
    odd = np.array([0, 1, 2, 255, 128], np.uint8).view(bool)
    plain = np.array([False, True, True, True, True])
    np.testing.assert_array_equal(projection.project(odd, 3), projection.project(plain, 3))
    x = np.ones((5, 4), np.float32)
    np.testing.assert_array_equal(
        slipstick.attention(x, x, x, mask=odd), slipstick.attention(x, x, x, mask=plain)
    )


def test_a_result_that_torch_has_no_memory_for():
    torch = pytest.importorskip("torch")
    with pytest.raises(MemoryError, match=r"^torch has no memory for a float32 result of shape"):
        projection.project(torch.ones(3, 5), 2**38)


def test_torchs_default_device_does_not_matter():
    torch = pytest.importorskip("torch")
    x = torch.ones(3)
    with torch.device("meta"):
        result = mitchell.multiply(x, x)
    assert torch.equal(result, x)


def test_numpy_numbers_are_numbers():
    x = np.ones((2, 1, 3, 4), np.float32)
    plain = slipstick.attention(x, x, x, key_lengths=2, n_keys=2, scale=1.0)
    given = slipstick.attention(
        x, x, x, key_lengths=np.int64(2), n_keys=np.int32(2), scale=np.int64(1)
    )
    np.testing.assert_array_equal(plain, given)
    assert mitchell.Mitchell(np.float32(0.25)) == mitchell.Mitchell(0.25)
