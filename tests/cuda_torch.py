"""Real CUDA devices by way of torch, with the manners of `cuda_emulation.Emulator`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import ml_dtypes
import numpy as np
import torch


class TorchDevices:
    """The machine's CUDA devices and torch's tensors on them."""

    emulated = False

    def __init__(self) -> None:
        self.count = torch.cuda.device_count()

    def array(self, values: Any, device: int = 0) -> torch.Tensor:
        """Copy NumPy's array to a device."""
        values = np.array(values, order="C")
        if values.dtype == ml_dtypes.bfloat16:  # which torch does not know from NumPy
            words = torch.from_numpy(values.view(np.int16))
            return words.to(f"cuda:{device}").view(torch.bfloat16)
        return torch.from_numpy(values).to(f"cuda:{device}")

    def numpy(self, tensor: torch.Tensor) -> np.ndarray:
        if tensor.dtype == torch.bfloat16:
            return tensor.contiguous().view(torch.int16).cpu().numpy().view(ml_dtypes.bfloat16)
        return tensor.cpu().numpy()

    def capability(self, device: int) -> tuple[int, int]:
        return torch.cuda.get_device_capability(device)

    def used_bytes(self, device: int) -> int:
        return torch.cuda.memory_allocated(device)

    def current_device(self, device: int) -> AbstractContextManager[Any]:
        return torch.cuda.device(device)

    @contextmanager
    def stream(self, device: int = 0) -> Iterator[int]:
        """A stream of its own, which is the device's current one for that time."""
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            yield stream.cuda_stream
        torch.cuda.current_stream(device).wait_stream(stream)

    @contextmanager
    def capture(self, device: int = 0) -> Iterator[torch.cuda.CUDAGraph]:
        """Keep what is launched on a stream of its own, for the graph to run."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(device), torch.cuda.graph(graph):
            yield graph
