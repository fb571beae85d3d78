"""Slipstick's CUDA module on emulated devices: its build, and arrays in the devices' memory.

`tests/cuda_emulator` compiles the same kernels with the host's compiler and runs them here.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from slipstick import _arrays

SOURCES = Path(__file__).parent / "cuda_emulator"
ON_CUDA = 2  # kDLCUDA


# Beside Python lie those programs that came as Python packages.
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


class BuildError(Exception):
    """The host's compiler refused the kernels."""


def _program(*names: str) -> str:
    for name in names:
        if (found := shutil.which(name, path=PATH)) is not None:
            return found
    pytest.skip(f"no {' or '.join(names)} on this machine")


def build(folder: Path) -> Path:
    """Compile what has changed since the last time, and return the library."""
    pybind11 = pytest.importorskip("pybind11", reason="pybind11 is not installed")
    cmake = _program("cmake")
    _program(os.environ.get("CXX", "c++"), "g++", "clang++")
    configure = [
        *(cmake, "-S", SOURCES, "-B", folder, "-G", "Ninja"),
        f"-DCMAKE_MAKE_PROGRAM={_program('ninja')}",
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        f"-DPython_EXECUTABLE={sys.executable}",
    ]
    # A sanitizer's runtime is for this process, not for the compiler.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    for command in (configure, [cmake, "--build", folder]):
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode != 0:
            raise BuildError(done.stdout[-20_000:] + done.stderr[-20_000:])
    (library,) = folder.glob("cuda_emulator.*.so")
    return library


def _load(name: str, library: Path) -> ModuleType:
    loader = importlib.machinery.ExtensionFileLoader(name, str(library))
    spec = importlib.util.spec_from_file_location(name, library, loader=loader)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


class Emulator:
    """The emulated devices: `cuda` is the module that slipstick knows as `_cuda`."""

    emulated = True

    def __init__(self, folder: Path) -> None:
        library = build(folder)
        self.folder = folder
        self.cuda = _load("_cuda", library)
        self.control = _load("_cuda_emulator", library)
        self.count = self.control.device_count
        self.streams = [0] * self.count  # the current ones
        self.dry = False
        self.graph: Graph | None = None

    def register(self, patch: pytest.MonkeyPatch) -> None:
        """Make slipstick's functions take these arrays."""

        def place(array: EmulatedArray) -> _arrays.Place:
            empty = self.like(array)
            return _arrays.Place(empty, empty.device, lambda: empty.stream)

        patch.setitem(_arrays._FRAMEWORKS, __name__, _arrays._NUMPY)
        patch.setitem(_arrays._PLACES, __name__, place)
        patch.setattr(_arrays, "cuda_kernels", lambda: self.cuda)

    def array(self, values: Any, device: int = 0) -> EmulatedArray:
        """Copy NumPy's array to a device."""
        values = np.asarray(values)
        array = self.empty(values.shape, values.dtype, device)
        self.control.copy(device, array.view, values)
        return array

    def empty(self, shape: tuple[int, ...], dtype: Any, device: int = 0) -> EmulatedArray:
        dtype = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
        size = int(np.prod(shape, dtype=object))
        memory = self.control.allocate(device, size * dtype.itemsize, self.dry)
        if memory is None:
            raise RuntimeError(f"the emulated device has no memory for {size} {dtype}")
        if self.graph is not None:
            self.graph.memory.append(memory)
        return EmulatedArray(self, memory.view(dtype).reshape(shape), device)

    def like(self, array: EmulatedArray) -> Empty:
        """What makes a call's results and its scratch memory, where `array` lies."""
        return Empty(self, array.device, self.streams[array.device])

    def numpy(self, array: EmulatedArray) -> np.ndarray:
        return array.numpy()

    def used_bytes(self, device: int) -> int:
        return self.control.used_bytes(device)

    @contextmanager
    def current_device(self, device: int) -> Iterator[None]:
        before = self.control.current_device()
        self.control.set_current_device(device)
        try:
            yield
        finally:
            self.control.set_current_device(before)

    @contextmanager
    def stream(self, device: int = 0) -> Iterator[int]:
        """A stream of its own, which is the device's current one for that time."""
        with self.current_device(device):
            stream = self.control.create_stream()
        before, self.streams[device] = self.streams[device], stream
        try:
            yield stream
        finally:
            self.streams[device] = before
            self.control.destroy_stream(stream)

    @contextmanager
    def capture(self, device: int = 0) -> Iterator[Graph]:
        """Keep what is launched on a stream of its own, for the graph to run."""
        self.graph = Graph(self.control)
        with self.stream(device) as stream:
            self.control.begin_capture(stream)
            try:
                yield self.graph
            finally:
                self.graph.number = self.control.end_capture()
                self.graph = None

    @contextmanager
    def dry_run(self) -> Iterator[None]:
        """Arrays have addresses of any size but no memory, and launches are checked but not run."""
        self.dry = True
        self.control.set_dry(True)
        try:
            yield
        finally:
            self.control.set_dry(False)
            self.dry = False


class Graph:
    """Launches that were captured, and the memory that they use."""

    def __init__(self, control: ModuleType) -> None:
        self.control = control
        self.memory: list[np.ndarray] = []
        self.number = -1

    def replay(self) -> None:
        self.control.replay(self.number)


class EmulatedArray:
    """An array in an emulated device's memory.

    `view` describes it; its elements must not be looked at: that ends the process.
    """

    def __init__(self, emulator: Emulator, view: np.ndarray, device: int) -> None:
        self.emulator = emulator
        self.view = view
        self.device = device

    shape = property(lambda self: self.view.shape)
    dtype = property(lambda self: self.view.dtype)
    T = property(lambda self: self._of(self.view.T))

    def __repr__(self) -> str:
        return f"EmulatedArray({self.shape}, {self.dtype}, device={self.device})"

    def _of(self, view: np.ndarray) -> EmulatedArray:
        return EmulatedArray(self.emulator, view, self.device)

    def __getitem__(self, index: Any) -> EmulatedArray:
        index = index if isinstance(index, tuple) else (index,)
        whole = any(part is ... for part in index)
        return self._of(self.view[index if whole else (*index, ...)])  # a view, also of one element

    def permute(self, *axes: int) -> EmulatedArray:
        return self._of(self.view.transpose(*axes))

    def broadcast_to(self, shape: tuple[int, ...]) -> EmulatedArray:
        return self._of(np.broadcast_to(self.view, shape))

    # What slipstick leaves to the frameworks' own arithmetic.

    def sum(self) -> EmulatedArray:
        return self.emulator.array(self.numpy().sum(), self.device)

    def __truediv__(self, number: float) -> EmulatedArray:
        return self.emulator.array(self.numpy() / number, self.device)

    def numpy(self) -> np.ndarray:
        """Copy to NumPy's memory."""
        values = np.empty(self.shape, self.dtype)
        self.emulator.control.copy(self.device, values, self.view)
        return values

    def __dlpack_device__(self) -> tuple[int, int]:
        return ON_CUDA, self.device

    def __dlpack__(self, *, stream: int | None = None, max_version: Any = None) -> Any:
        current = self.emulator.streams[self.device] or 1  # the default stream's number
        if stream != current:
            raise BufferError(f"exported to stream {stream}, but the current one is {current}")
        return self.emulator.control.to_capsule(self.view, self.device, self)


class Empty:
    """Makes the arrays of one call."""

    def __init__(self, emulator: Emulator, device: int, stream: int) -> None:
        self.emulator = emulator
        self.device = device
        self.stream = stream

    def __call__(self, shape: tuple[int, ...], dtype: str) -> EmulatedArray:
        return self.emulator.empty(shape, dtype, self.device)
