"""How a call finds the kernels, the stream and the memory for an array on a CUDA device."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

from slipstick import _arrays, mitchell
from slipstick._arrays import DeviceMemory, Place, framework_of


class DeviceArray:
    """An array of a framework whose arrays may be on a device."""

    device = 3
    stream = 17


@pytest.fixture
def kernels(monkeypatch):
    """A module of kernels for DeviceArray, which does no more than say how it was called."""
    name = DeviceArray.__module__.partition(".")[0]

    def place(array):
        return Place(lambda shape, dtype: (shape, dtype), array.device, lambda: array.stream)

    module = SimpleNamespace(
        __name__="kernels",
        MitchellMethod=lambda **arguments: arguments,
        sqrt=lambda a, out, empty: ("sqrt", a, out, empty),
        multiply=lambda a, b, native, out, empty: ("multiply", a, b, native, out, empty),
    )
    monkeypatch.setitem(_arrays._FRAMEWORKS, name, _arrays._NUMPY)
    monkeypatch.setitem(_arrays._PLACES, name, place)
    monkeypatch.setattr(_arrays, "cuda_kernels", lambda: module)
    return module


def test_the_first_array_brings_kernels_stream_and_memory(kernels):
    array = DeviceArray()
    *call, empty = mitchell.sqrt(array)
    assert call == ["sqrt", array, None]
    assert (empty.device, empty.stream) == (3, 17)
    assert empty((2, 3), "int32") == ((2, 3), "int32")


def test_a_method_has_a_counterpart_in_each_module(kernels):
    array, method = DeviceArray(), mitchell.DRUM(5)
    first = mitchell.multiply(array, array, method=method)
    second = mitchell.multiply(array, array, method=method)
    assert first[3] == {"kind": "drum", "width": 5}
    assert first[3] is second[3]  # made once
    three = np.float32([3])
    assert mitchell.multiply(three, three, method=method) == 3.125**2  # the last bit kept is set


def test_out_is_returned_as_it_is(kernels):
    array, out = DeviceArray(), DeviceArray()
    assert mitchell.sqrt(array, out=out)[2] is out


def test_a_build_without_cuda_says_so(kernels, monkeypatch):
    monkeypatch.setattr(_arrays, "cuda_kernels", lambda: None)
    message = (
        "^sqrt: arrays must be on the CPU, since this build of slipstick has no CUDA module, got "
        "one on CUDA device 3$"
    )
    with pytest.raises(ValueError, match=message):
        mitchell.sqrt(DeviceArray())
    with pytest.raises(ValueError, match=message):
        mitchell.sqrt(np.ones(1), out=DeviceArray())


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory.\nTried to"), MemoryError()])
@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("bfloat16", 2), ("uint8", 1)])
def test_no_memory_names_the_bytes(error, dtype, size):
    def empty(shape, dtype):
        raise error

    memory = DeviceMemory("matmul", Place(empty, 1, lambda: 0))
    reason = "CUDA out of memory." if str(error) else "MemoryError"
    with pytest.raises(RuntimeError) as caught:
        memory((1000, 3), dtype)
    assert str(caught.value) == (
        f"matmul: CUDA device 1 must have memory for {3000 * size} bytes more, got: {reason}"
    )


class Tensor:
    """A tensor of a torch with CUDA, or an array of cupy."""

    is_cuda = True

    def __init__(self) -> None:
        self.device = Device()


class Device:
    index = id = 2
    entered = False

    def __enter__(self):
        self.entered = True

    def __exit__(self, *_):
        self.entered = False


def current_stream(device):
    number = device if isinstance(device, int) else device.index
    return SimpleNamespace(cuda_stream=100 + number, ptr=100 + number)


def test_torch_is_asked_for_its_stream_and_memory_on_the_tensors_device(monkeypatch):
    torch = SimpleNamespace(
        empty=lambda shape, dtype, device: (shape, dtype, device),
        float32="torch's float32",
        cuda=SimpleNamespace(current_stream=current_stream),
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    tensor = Tensor()
    memory = DeviceMemory("sqrt", _arrays._torch_place(tensor))
    assert (memory.device, memory.stream) == (2, 102)
    assert memory((3, 4), "float32") == ((3, 4), "torch's float32", tensor.device)


def test_cupy_is_asked_for_its_stream_and_memory_on_the_arrays_device(monkeypatch):
    array = Tensor()
    cupy = SimpleNamespace(
        empty=lambda shape, dtype: (shape, dtype, array.device.entered),
        cuda=SimpleNamespace(get_current_stream=current_stream),
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    memory = DeviceMemory("sqrt", _arrays._cupy_place(array))
    assert (memory.device, memory.stream) == (2, 102)
    assert memory((3, 4), "float32") == ((3, 4), "float32", True)
    assert memory((3, 4), "bfloat16") == ((3, 4), ml_dtypes.bfloat16, True)


def test_arrays_on_the_cpu_stay_there():
    torch = pytest.importorskip("torch")
    for array in (np.ones(3), np.float32(1), torch.ones(3)):
        assert framework_of("sqrt", array).kernels.__name__ == "slipstick._cpu"
