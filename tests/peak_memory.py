"""The memory that a call takes, measured in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# VmHWM belongs to the program that runs. ru_maxrss does not: a child's starts at what its parent
# had, and a peak below that would pass for no memory at all.
PROGRAM = """
import numpy as np
import slipstick

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

slipstick.set_num_threads(2)
{setup}
before = peak()
{call}
print(peak() - before)
"""


def bytes_taken(setup: str, call: str) -> int:
    """Return by how much `call` raises the peak that `setup` leaves, with two threads."""
    if sys.platform != "linux":
        pytest.skip("the peak is read from /proc")
    if "libasan" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("the sanitizer keeps freed memory")
    run = [sys.executable, "-c", PROGRAM.format(setup=setup, call=call)]
    return int(subprocess.run(run, check=True, capture_output=True, text=True).stdout) << 10
