"""Threads and instruction-set levels."""

from __future__ import annotations

import numpy as np

from slipstick import _cpu

__all__ = ["get_isa", "get_num_threads", "set_isa", "set_num_threads"]


def get_num_threads() -> int:
    """Return how many threads a call may use.

    The default is SLIPSTICK_NUM_THREADS, else OMP_NUM_THREADS, else the number of processors that
    the process may run on. Results do not depend on it.
    """
    return _cpu.get_num_threads()


def set_num_threads(count: int) -> None:
    """Set how many threads a call may use, for the whole process.

    Parameters
    ----------
    count : int
        From 1 to 1024.

    Raises
    ------
    TypeError, ValueError
        For what is not an int in that range.
    """
    if not isinstance(count, (int, np.integer)) or isinstance(count, bool):
        raise TypeError(f"set_num_threads: `count` must be an int, got {type(count).__name__}")
    if not 1 <= count <= _cpu.max_threads:
        raise ValueError(
            f"set_num_threads: `count` must be between 1 and {_cpu.max_threads}, got {count}"
        )
    _cpu.set_num_threads(int(count))


def get_isa() -> str:
    """Return the instruction-set level in force: "v2", "v3", "v4", "v4_bf16", or "baseline"."""
    return _cpu.get_isa()


def set_isa(level: str) -> None:
    """Choose the instruction-set level, for the whole process.

    Parameters
    ----------
    level : str
        One of the levels that this machine runs (`slipstick info` lists them). The x86-64 levels
        carry the names of the psABI; "v4_bf16" is v4 with AVX512_BF16 and AVX512_VNNI.

    Raises
    ------
    TypeError, ValueError
        For what is not the name of a level that this machine runs.
    """
    if not isinstance(level, str):
        raise TypeError(f"set_isa: `level` must be a str, got {type(level).__name__}")
    _cpu.set_isa(level)


def _register_with_threadpoolctl() -> None:
    """Make the pool visible to `threadpoolctl.threadpool_limits`, if that package is installed."""
    try:
        from threadpoolctl import LibController, register
    except ImportError:
        return

    class SlipstickController(LibController):  # type: ignore[misc]
        user_api = "slipstick"
        internal_api = "slipstick"
        filename_prefixes = ("_cpu.",)
        check_symbols = ("slipstick_get_num_threads", "slipstick_set_num_threads")

        def get_num_threads(self) -> int:
            return int(self.dynlib.slipstick_get_num_threads())

        def set_num_threads(self, num_threads: int) -> None:
            self.dynlib.slipstick_set_num_threads(num_threads)

        def get_version(self) -> str:
            return str(_cpu.version)

        def set_additional_attributes(self) -> None:
            pass

    register(SlipstickController)


_register_with_threadpoolctl()
