"""Where a check runs: on the CPU at every level and thread count, or on a CUDA device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import slipstick
from slipstick.cli import available_levels, cuda_devices
from slipstick.selftest._check import Case, Run, Runner, as_arrays
from slipstick.selftest._inputs import BFLOAT16

Array = NDArray[Any]
_THREADS = (1, 2, 7)


class Device(NamedTuple):
    """A device, what the title of the table says of it, and how it runs a case."""

    name: str
    description: str
    run: Runner


def find(text: str) -> Device:
    """Return the device that `text` names: "cpu", "cuda" or "cuda:1".

    Raises
    ------
    ValueError
        If there is no such device, or nothing that makes arrays there.
    """
    kind, colon, number = text.partition(":")
    if text == "cpu":
        levels = ", ".join(available_levels())
        return Device("cpu", f"levels {levels}; {', '.join(map(str, _THREADS))} threads", _on_cpu)
    if kind != "cuda" or (colon and not number.isdecimal()):
        raise ValueError(f"--device must be cpu, cuda or cuda:NUMBER, got {text!r}")
    names = cuda_devices()
    if names is None:
        raise ValueError(f"--device {text} needs a build with CUDA, got one without")
    if not names:
        raise ValueError(f"--device {text} needs a CUDA device and its driver, found none")
    index = int(number or 0)
    if index >= len(names):
        raise ValueError(
            f"--device must be less than cuda:{len(names)}, the number of devices, got {text}"
        )
    if slipstick.get_isa() == "v2":
        raise ValueError(
            f"--device {text} compares with the CPU's bits at level v3 or above, got level v2"
        )
    maker, run = _cuda_arrays(text, index)
    return Device(f"cuda:{index}", f"{names[index]}; arrays of {maker}", run)


def _on_cpu(case: Case) -> Iterator[Run]:
    level, threads = slipstick.get_isa(), slipstick.get_num_threads()
    try:
        for name in available_levels():
            slipstick.set_isa(name)
            for count in _THREADS:
                slipstick.set_num_threads(count)
                setting = f"level {name}, {count} thread{'s' if count > 1 else ''}"
                yield Run(setting, name, as_arrays(case.call(*case.operands)))
    finally:
        slipstick.set_isa(level)
        slipstick.set_num_threads(threads)


def _on_device(
    put: Callable[[Array], Any], get: Callable[[Any], Array], *, bfloat16: bool = True
) -> Runner:
    def run(case: Case) -> Iterator[Run]:
        if not bfloat16 and case.operands[0].dtype in BFLOAT16:
            return
        result = case.call(*map(put, case.operands))
        results = result if isinstance(result, tuple) else (result,)
        yield Run("on the device", "", tuple(map(get, results)))

    return run


def _cuda_arrays(text: str, index: int) -> tuple[str, Runner]:
    """Return whose arrays carry a case to the device, and what runs it there."""
    try:
        import torch
    except ImportError:
        pass
    else:
        if torch.cuda.is_available():
            return f"torch {torch.__version__}", _with_torch(torch, index)
    try:
        import cupy
    except ImportError:
        raise ValueError(
            f"--device {text} needs torch with CUDA or cupy to make arrays there, found neither"
        ) from None
    return f"cupy {cupy.__version__}", _with_cupy(cupy, index)


def _with_torch(torch: Any, index: int) -> Runner:
    # bfloat16 crosses as integers: NumPy knows it by ml_dtypes, torch by itself.
    def put(array: Array) -> Any:
        if array.dtype not in BFLOAT16:
            return torch.from_numpy(np.array(array)).to(f"cuda:{index}")
        words = torch.from_numpy(np.array(array).view(np.int16))
        return words.to(f"cuda:{index}").view(torch.bfloat16)

    def get(tensor: Any) -> Array:
        if tensor.dtype != torch.bfloat16:
            return np.asarray(tensor.cpu().numpy())
        words: Array = tensor.view(torch.int16).cpu().numpy()
        return words.view(BFLOAT16[0])

    return _on_device(put, get)


def _with_cupy(cupy: Any, index: int) -> Runner:
    def put(array: Array) -> Any:
        with cupy.cuda.Device(index):
            return cupy.asarray(np.array(array))

    return _on_device(put, cupy.asnumpy, bfloat16=False)  # not in every cupy
