"""The compiled module for arrays on CUDA devices, where the build has one."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any


@cache
def cuda_kernels() -> Any:
    """Return `_cuda`, or None in a build without it. Imported when the first array asks for it."""
    try:
        return import_module("slipstick._cuda")
    except ModuleNotFoundError:
        return None
