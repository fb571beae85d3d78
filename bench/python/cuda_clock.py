"""The clock of contests on a CUDA device: events around each call, in a cache that holds nothing.

Contenders take turns; a figure is the median over the rounds. The flush before each call writes
1 GiB, which takes a third of a millisecond on a fast card: longer than the host takes to prepare a
call, so that no launch is waited for within the events, and more than any L2 holds.
"""

from __future__ import annotations

import math
import statistics
import subprocess
from collections.abc import Iterator
from functools import partial

import torch
from contest import Clock, Contender, Quantity, Result, Task, share_of_best_peer

from slipstick.bench import Call, machine
from slipstick.cli import cuda_devices

FLUSHED = 1 << 30  # bytes
WARM_UP = 3
SECONDS = 2.0  # a task, about, and yet at least FEWEST rounds
FEWEST = 5
# The peak of a case's unit, and its operations in one of the unit: a MAC is a product and a sum.
Operations = dict[str, tuple[str, int]]
OPERATIONS: Operations = {"B": ("copy", 1), "FLOP": ("FFMA", 1), "MAC": ("FFMA", 2)}
OF_TENSOR_CORES: Operations = {"B": ("copy", 1), "FLOP": ("bfloat16", 1)}
OF_POPULATION_COUNTS: Operations = OPERATIONS | {"popcount": ("popcount", 1)}
POPULATION_COUNTS_A_CLOCK = 16  # of 32 bits, by a multiprocessor

# Measured by `peaks`, and used by `time`: B/s of a copy, FLOP/s of float32 and of bfloat16. Those
# of population counts are of the highest clock.
_peaks: dict[str, float] = {}


def _of_driver(field: str) -> str:
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    except OSError:
        lines = []
    return lines[0].strip() if lines else "unknown"


def facts() -> dict[str, str]:
    """Of the device; ends the program where there is none."""
    if cuda_devices() is None:
        raise SystemExit("this benchmark needs a build of slipstick with CUDA, got one without")
    if not torch.cuda.is_available():
        raise SystemExit("this benchmark needs a CUDA device that torch can use, found none")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    properties = torch.cuda.get_device_properties(0)
    return machine() | {
        "device": f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, "
        f"{properties.multi_processor_count} multiprocessors, "
        f"{properties.L2_cache_size / 2**20:.0f} MiB of L2",
        "driver": _of_driver("driver_version"),
        "CUDA of torch": str(torch.version.cuda),
    }


def _median_seconds(call: Call, rounds: int, flushed: torch.Tensor) -> float:
    for _ in range(WARM_UP):
        call()
    return statistics.median(_seconds(call, flushed) for _ in range(rounds))


def _seconds(call: Call, flushed: torch.Tensor) -> float:
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    flushed.zero_()
    start.record()
    call()
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop) / 1e3


def _flushed() -> torch.Tensor:
    return torch.empty(FLUSHED, dtype=torch.uint8, device="cuda")


def _copy() -> float:
    source, target = torch.ones((2, 1 << 30), dtype=torch.uint8, device="cuda")
    seconds = _median_seconds(lambda: target.copy_(source), 21, _flushed())
    _peaks["copy"] = 2 * source.numel() / seconds
    return _peaks["copy"] / 1e9


def _matmul(peak: str, dtype: torch.dtype) -> float:
    size = 8192
    a, b = torch.randn(2, size, size, device="cuda").to(dtype)
    seconds = _median_seconds(lambda: torch.matmul(a, b), 11, _flushed())
    _peaks[peak] = 2 * size**3 / seconds
    return _peaks[peak] / 1e9


def peaks() -> Iterator[Quantity]:
    """What the shares are of, measured in the same run."""
    yield Quantity("copy of 1 GiB by torch, bytes read and written", "GB/s", _copy)
    of_float32 = partial(_matmul, "FFMA", torch.float32)
    yield Quantity("float32 matmul 8192^3 by torch, without TF32", "GFLOP/s", of_float32)


def peaks_of_tensor_cores() -> Iterator[Quantity]:
    """What shares of tensor cores are of, measured in the same run."""
    yield Quantity("copy of 1 GiB by torch, bytes read and written", "GB/s", _copy)
    of_bfloat16 = partial(_matmul, "bfloat16", torch.bfloat16)
    yield Quantity("bfloat16 matmul 8192^3 by torch", "GFLOP/s", of_bfloat16)


def _population_counts() -> float:
    clock = _of_driver("clocks.max.sm")  # MHz
    multiprocessors = torch.cuda.get_device_properties(0).multi_processor_count
    rate = float(clock) * 1e6 if clock.isdecimal() else math.nan
    _peaks["popcount"] = POPULATION_COUNTS_A_CLOCK * multiprocessors * rate
    return _peaks["popcount"] / 1e9


def peaks_of_population_counts() -> Iterator[Quantity]:
    """`peaks`, and population counts as the highest clock allows them."""
    yield from peaks()
    name = "population counts of 32 bits, 16 a clock and multiprocessor at the highest clock"
    yield Quantity(name, "G/s", _population_counts)


def _errors(contenders: dict[str, Contender]) -> dict[str, float] | None:
    found = {
        name: contender.error()
        for name, contender in contenders.items()
        if contender.error is not None
    }
    return found or None


def time_task(task: Task, rounds: int, operations: Operations = OPERATIONS) -> Result:
    contenders = task.make()
    errors = _errors(contenders)
    flushed = _flushed()
    once = 0.0
    for contender in contenders.values():
        for _ in range(WARM_UP):
            contender.call()
        once += _seconds(contender.call, flushed)
    rounds = max(FEWEST, min(rounds, int(SECONDS / once)))
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            samples[name].append(_seconds(contender.call, flushed))
    seconds = {
        name: statistics.median(samples[name]) * contender.scale
        for name, contender in contenders.items()
    }
    peak, count = operations[task.unit]
    shares = {name: count * task.work / own / _peaks[peak] for name, own in seconds.items()}
    share = share_of_best_peer(contenders, seconds)
    return Result(task.name, task.work, task.unit, 0, seconds, share, shares, errors)


CUDA = Clock(facts, peaks, time_task, rounds=25)
TENSOR_CORES = Clock(
    facts, peaks_of_tensor_cores, partial(time_task, operations=OF_TENSOR_CORES), rounds=25
)
POPULATION_COUNTS = Clock(
    facts,
    peaks_of_population_counts,
    partial(time_task, operations=OF_POPULATION_COUNTS),
    rounds=25,
)
