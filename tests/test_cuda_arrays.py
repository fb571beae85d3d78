"""Where the arrays of a CUDA call have to lie, and what is refused before any device is asked.

No kernel runs here, so that no GPU is needed: arrays that say that they lie on one are host memory.
"""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from slipstick import mitchell

cuda = pytest.importorskip("slipstick._cuda", reason="built without a CUDA compiler")

ON_CUDA = 2  # kDLCUDA
METHOD = cuda.MitchellMethod("mitchell")


class OnCuda:
    """An array that offers nothing but DLPack, and says that it lies in a GPU's memory."""

    def __init__(self, array: np.ndarray, device: int = 0) -> None:
        self.array = array
        self.device = device
        self.streams: list[int | None] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return ON_CUDA, self.device

    def __dlpack__(self, *, stream: int | None = None):
        self.streams.append(stream)
        capsule = self.array.__dlpack__()
        get = ctypes.pythonapi.PyCapsule_GetPointer
        get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        # struct DLTensor { void* data; int32_t device_type, device_id; ... }
        place = (ctypes.c_int32 * 2).from_address(get(capsule, b"dltensor") + 8)
        place[:] = ON_CUDA, self.device
        return capsule


class Asked(Exception):
    """The call came so far as to ask for memory: its operands were taken."""


class Empty:
    def __init__(self, device: int = 0, stream: int = 0) -> None:
        self.device = device
        self.stream = stream

    def __call__(self, shape, dtype):
        raise Asked(shape, dtype)


def ones(*shape: int, dtype: type = np.float32, device: int = 0) -> OnCuda:
    return OnCuda(np.ones(shape, dtype), device)


def multiply(a, b, out=None, device=0, stream=0):
    return cuda.multiply(a, b, METHOD, out, Empty(device, stream))


def test_results_are_made_where_the_operands_lie():
    with pytest.raises(Asked) as asked:
        multiply(ones(2, 1, device=1), ones(3, device=1), device=1)
    assert asked.value.args == ((2, 3), "float32")


@pytest.mark.parametrize(
    ("other", "place"),
    [(np.ones(3, np.float32), "the CPU"), (np.float32(1), "the CPU"), (ones(3), "CUDA device 0")],
    ids=["array", "scalar", "other device"],
)
def test_arrays_in_two_places_are_refused(other, place):
    here = ones(3, device=1)
    for name, arguments in {"b": (here, other), "out": (here, here, other)}.items():
        message = (
            rf"^multiply: `{name}` must be on CUDA device 1 like `a`, got an array on {place}$"
        )
        with pytest.raises(ValueError, match=message):
            multiply(*arguments, device=1)
    with pytest.raises(
        ValueError, match=rf"^multiply: `a` must be on CUDA device 1, got .* {place}$"
    ):
        multiply(other, here, device=1)
    with pytest.raises(ValueError, match=rf"^power: `p` must be .* like `a`, got .* {place}$"):
        cuda.power(here, other, None, Empty(1))
    pair = [ones(3, 3, device=1), ones(3, 3, device=1)]
    with pytest.raises(ValueError, match=rf"^matmul_backward: `b` .* like `grad`, got .* {place}$"):
        cuda.matmul_backward(*pair, other, METHOD, "mimic", "carry", 0.0, 0, Empty(1))


def test_the_cpu_refuses_an_array_on_cuda():
    with pytest.raises(
        ValueError, match=r"^multiply: `b` must be on the CPU, got .* CUDA device 1$"
    ):
        mitchell.multiply(np.ones(3, np.float32), ones(3, device=1))


@pytest.mark.parametrize(("stream", "asked"), [(0, 1), (1, 1), (2, 2), (123456, 123456)])
def test_operands_are_exported_to_the_stream_of_the_call(stream, asked):
    a, b = ones(3), ones(3)
    with pytest.raises(Asked):
        multiply(a, b, stream=stream)
    assert a.streams == b.streams == [asked]


def test_an_array_elsewhere_is_not_exported():
    """Its device knows nothing of the call's stream."""
    elsewhere = ones(3)
    with pytest.raises(ValueError, match="must be on CUDA device 1"):
        multiply(ones(3, device=1), elsewhere, device=1)
    assert elsewhere.streams == []


def test_a_number_is_an_exponent():
    with pytest.raises(Asked):
        cuda.power(ones(3), 2.0, None, Empty())


@pytest.mark.parametrize("dtype", [np.float64, np.int16, np.uint32])
def test_dtypes_that_sums_on_cuda_do_not_take(dtype):
    """Elementwise functions take them."""
    with pytest.raises(Asked):
        multiply(ones(3, dtype=dtype), ones(3, dtype=dtype))
    expected = f"must be float32, float16, bfloat16, int8 or uint8 on CUDA, got {np.dtype(dtype)}$"
    square = ones(3, 3, dtype=dtype)
    with pytest.raises(TypeError, match=f"^matmul: `a` {expected}"):
        cuda.matmul(square, square, METHOD, 1.0, None, Empty())
    image = ones(1, 1, 3, 3, dtype=dtype)
    with pytest.raises(TypeError, match=f"^conv2d: `x` {expected}"):
        cuda.conv2d(image, image, (1, 1), (0, 0), False, (1, 1), 1, METHOD, None, Empty())
    expected = f"must be float32, float16 or bfloat16 on CUDA, got {np.dtype(dtype)}$"
    with pytest.raises(TypeError, match=f"^matmul_backward: `grad` {expected}"):
        cuda.matmul_backward(square, square, square, METHOD, "mimic", "carry", 0.0, 0, Empty())


def test_integer_sums_are_refused_by_their_bound():
    """Products of int8 go up to 2^15; the data, which would fit, are not looked at."""
    longest = 2**16 - 1

    def matmul(depth):
        operand = ones(depth, dtype=np.int8)
        return cuda.matmul(operand, operand, METHOD, 1.0, None, Empty())

    with pytest.raises(Asked):
        matmul(longest)
    message = (
        r"^matmul: `a` and `b` must be small enough for exact sums in int32, got 65536 products of "
        r"int8 that could add up to 2\.14748e\+09$"
    )
    with pytest.raises(ValueError, match=message):
        matmul(longest + 1)
    fits = np.ones(longest + 1, np.int8)
    assert mitchell.matmul(fits, fits) == longest + 1
