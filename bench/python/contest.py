"""Contenders for one piece of work that take turns in one process, what their figures mean, and the
command line that the benchmarks share.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import threadpoolctl
import torch

import slipstick
from slipstick.bench import Call, Case, machine, measure

AVAILABLE = slipstick.get_num_threads()
PAUSE = 0.1  # seconds; OpenBLAS and OpenMP threads spin for tens of milliseconds after a call


class Contender(NamedTuple):
    """A call; `scale` times its seconds where it does a part of the case's work.

    `peer` says whether the first contender is measured by it, `error` how far its result is from
    the exact one.
    """

    call: Call
    scale: float = 1.0
    peer: bool = True
    error: Callable[[], float] | None = None


class Task(NamedTuple):
    """A case whose arrays are made when its turn has come; the first contender is slipstick's."""

    name: str
    work: float
    unit: str
    make: Callable[[], dict[str, Contender]]
    threads: int = 0  # 0: as many as the process has
    once: bool = False  # a single call, without warm-up: seconds long


class Quantity(NamedTuple):
    """A figure that is no time."""

    name: str
    unit: str
    measure: Callable[[], float]


def random(dtype: str, *shape: int, seed: int = 0) -> Any:
    """Normal numbers, or every integer of the dtype alike."""
    rng = np.random.default_rng((seed, *shape))
    if "int" in dtype:
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    numbers = rng.standard_normal(shape, np.float32)
    return numbers.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def tensor(array: Any) -> torch.Tensor:
    """The same memory for torch."""
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def set_threads(count: int) -> None:
    """For slipstick, torch, and the libraries that threadpoolctl knows."""
    slipstick.set_num_threads(count)
    threadpoolctl.threadpool_limits(count)
    torch.set_num_threads(count)


class Result(NamedTuple):
    """Seconds of each contender, scaled to the whole of the work."""

    case: str
    work: float
    unit: str
    threads: int  # 0 on a device
    seconds: dict[str, float]
    share_of_best_peer: float | None
    share_of_peak: dict[str, float] | None = None  # of what the clock measured for the unit
    errors: dict[str, float] | None = None  # of those contenders that have one


class Clock(NamedTuple):
    """What a figure depends on beside the commit, peaks of the machine, and how a task is timed."""

    facts: Callable[[], dict[str, str]]
    peaks: Callable[[], Iterable[Quantity]]
    time: Callable[[Task, int], Result]  # in so many rounds
    rounds: int = 9  # if nobody says how many


def share_of_best_peer(contenders: dict[str, Contender], seconds: dict[str, float]) -> float | None:
    """Of the first contender."""
    peers = [seconds[name] for name, contender in contenders.items() if contender.peer]
    return min(peers) / next(iter(seconds.values())) if peers else None


def time_task(task: Task, rounds: int) -> Result:
    threads = task.threads or AVAILABLE
    set_threads(threads)
    contenders = task.make()
    if task.once:
        seconds = {}
        for name, contender in contenders.items():
            start = time.perf_counter()
            contender.call()
            seconds[name] = time.perf_counter() - start
    else:
        calls: dict[str, Call] = {name: contender.call for name, contender in contenders.items()}
        case = Case(task.name, task.work, task.unit, calls)
        seconds = measure(case, rounds=rounds, pause=PAUSE).seconds
    seconds = {name: seconds[name] * contender.scale for name, contender in contenders.items()}
    share = share_of_best_peer(contenders, seconds)
    return Result(task.name, task.work, task.unit, threads, seconds, share)


def cpu_facts() -> dict[str, str]:
    return machine() | {"load before": str(os.getloadavg())}


CPU = Clock(cpu_facts, tuple, time_task)


def show(result: Result) -> None:
    share = result.share_of_best_peer
    print(f"\n{result.case}" + (f"   {share:.0%} of the best peer" if share is not None else ""))
    own = next(iter(result.seconds.values()))
    for name, seconds in result.seconds.items():
        rate = result.work / seconds / 1e9
        row = f"  {name:22} {seconds * 1e6:13.1f} us {rate:9.3f} G{result.unit}/s"
        if result.threads > 1:
            row += f" {rate / result.threads:8.3f} a core"
        if result.share_of_peak:
            row += f" {result.share_of_peak[name]:7.1%} of the peak"
        if result.errors and name in result.errors:
            row += f"  error {result.errors[name]:.2e}"
        print(row + ("" if seconds == own else f" {seconds / own:8.2f} x the time"))
    sys.stdout.flush()


def commit() -> str:
    """Of the sources that this file belongs to."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Of those that are installed."""
    installed = {}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[package] = metadata.version(package)
    return installed


def main(
    description: str,
    tasks: Callable[..., Iterator[Any]],
    packages: tuple[str, ...] = (),
    clock: Clock = CPU,
    divides: bool = False,
) -> None:
    """Time the tasks that the command line chooses; `packages` are peers whose versions count.

    With `divides`, `tasks` takes a number that the command line gives, by which it divides sizes.
    """
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--only", default="", metavar="SUBSTRING", help="cases whose name has it")
    parser.add_argument("--rounds", type=int, default=clock.rounds, help="default: %(default)s")
    parser.add_argument("--list", action="store_true", help="name the cases, time nothing")
    parser.add_argument("--json", type=Path, metavar="FILE")
    if divides:
        text = "leave one row of N, for cards with less memory"
        parser.add_argument("--divide", type=int, default=1, metavar="N", help=text)
    options = parser.parse_args()
    if divides and options.divide < 1:
        parser.error(f"--divide must be at least 1, got {options.divide}")
    given = tasks(options.divide) if divides else tasks()
    chosen = [task for task in given if options.only in task.name]
    if options.list:
        print("\n".join(task.name for task in chosen))
        return
    facts = {"commit": commit()} | clock.facts() | versions(("ml_dtypes", *packages))
    print(facts.get("device", facts["cpu"]), facts["slipstick"], sep="\n")
    figures: dict[str, Any] = {"machine": facts, "timings": []}
    for task in (*clock.peaks(), *chosen):
        if isinstance(task, Quantity):
            value = task.measure()
            print(f"\n{task.name}\n  {value:.1f} {task.unit}")
            quantity = {"name": task.name, "value": value, "unit": task.unit}
            figures.setdefault("quantities", []).append(quantity)
        else:
            result = clock.time(task, options.rounds)
            show(result)
            row = result._asdict()
            for optional in ("share_of_peak", "errors"):
                if row[optional] is None:
                    del row[optional]
            figures["timings"].append(row)
        if options.json:  # after each case: an interrupted run keeps what it has
            options.json.write_text(json.dumps(figures, indent=2) + "\n")
