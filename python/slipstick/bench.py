"""`slipstick bench`: the kernels beside the peers that are installed, timed in turn in one process.

Every round times each contender once, one after the other, so that a machine that slows down slows
all of them; figures are medians over the rounds, and the ratios are what to quote.
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import slipstick
from slipstick.cli import info

__all__ = ["Case", "Timing", "machine", "measure", "run"]

Call = Callable[[], object]


class Case(NamedTuple):
    """One task and its contenders; the first one is slipstick's.

    `work` is the number of operations or bytes of the task, `unit` what they are.
    """

    name: str
    work: float
    unit: str
    contenders: dict[str, Call]


class Timing(NamedTuple):
    """The median seconds of each contender of a case."""

    case: str
    work: float
    unit: str
    seconds: dict[str, float]


def measure(case: Case, *, rounds: int = 15, seconds: float = 0.01, pause: float = 0.0) -> Timing:
    """Time the contenders of a case in turn.

    Parameters
    ----------
    case : Case
    rounds : int
        How often each contender is timed; the median is taken.
    seconds : float
        A call shorter than this is repeated within a round until it has run so long.
    pause : float
        Seconds of sleep before each contender's turn. The threads of OpenBLAS and OpenMP spin for
        tens of milliseconds after a call, and take a core from whoever comes next; 0.1 lets them
        fall asleep.

    Returns
    -------
    Timing
        Median seconds a call.

    Examples
    --------
    >>> from slipstick.bench import Case, measure
    >>> timing = measure(Case("sum", 1e3, "add", {"python": lambda: sum(range(1000))}), rounds=3)
    >>> timing.seconds["python"] > 0
    True
    """
    repeats = {}
    for name, call in case.contenders.items():
        call()  # warm-up: first-touch memory, thread start, generated code
        start = time.perf_counter()
        call()
        once = max(time.perf_counter() - start, 1e-9)
        repeats[name] = max(1, round(seconds / once))
    samples: dict[str, list[float]] = {name: [] for name in case.contenders}
    for _ in range(rounds):
        for name, call in case.contenders.items():
            time.sleep(pause)
            start = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            samples[name].append((time.perf_counter() - start) / repeats[name])
    medians = {name: statistics.median(values) for name, values in samples.items()}
    return Timing(case.name, case.work, case.unit, medians)


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        return None
    return torch


def _mitchell() -> Iterator[Case]:
    rng = np.random.default_rng(0)
    for exponent in (4, 12, 24):
        a, b = rng.standard_normal((2, 1 << exponent)).astype(np.float32)
        out = np.empty_like(a)
        contenders: dict[str, Call] = {
            "slipstick": partial(slipstick.mitchell.multiply, a, b, out=out),
            "numpy.multiply": partial(np.multiply, a, b, out=out),
        }
        yield Case(f"multiply, float32, 2^{exponent} elements", a.size * 12, "B", contenders)
    yield from _mitchell_products()
    torch = _torch()
    x = rng.standard_normal((8, 64, 56, 56)).astype(np.float32)
    for name, channels, groups in (("3 x 3", 64, 1), ("3 x 3 depthwise", 1, 64)):
        weight = rng.standard_normal((64, channels, 3, 3)).astype(np.float32)
        own = partial(slipstick.mitchell.conv2d, x, weight, padding=1, groups=groups)
        contenders = {"slipstick": own}
        if torch:
            arrays = map(torch.from_numpy, (x, weight))
            convolve = torch.nn.functional.conv2d
            contenders["torch (exact)"] = partial(convolve, *arrays, padding=1, groups=groups)
        work = 2 * x.size * channels * 9
        yield Case(f"conv2d, float32, {name}, 64 channels of 56 x 56", work, "FLOP", contenders)
    report = partial(slipstick.mitchell.error_report, "mitchell", 8)
    yield Case("error_report, all pairs of 8 bits", 1 << 16, "pair", {"slipstick": report})


def _mitchell_products() -> Iterator[Case]:
    rng = np.random.default_rng(0)
    torch = _torch()
    size = 512
    a, b = rng.standard_normal((2, size, size)).astype(np.float32)
    contenders: dict[str, Call] = {
        "slipstick": partial(slipstick.mitchell.matmul, a, b),
        "numpy (exact)": partial(np.matmul, a, b),
    }
    if torch:
        left, right = map(torch.from_numpy, (a, b))
        contenders["torch (exact)"] = partial(torch.matmul, left, right)
    shape = f"{size} x {size} x {size}"
    yield Case(f"matmul, float32, {shape}", 2 * size**3, "FLOP", contenders)
    if torch:
        left, right = left.to(torch.bfloat16), right.to(torch.bfloat16)
        contenders = {
            "slipstick": partial(slipstick.mitchell.matmul, left, right),
            "torch (exact)": partial(torch.matmul, left, right),
        }
        yield Case(f"matmul, bfloat16, {shape}", 2 * size**3, "FLOP", contenders)
    a, b = rng.integers(0, 256, (2, size, size), np.uint8)
    table = slipstick.mitchell.Table(rng.integers(0, 1 << 16, (256, 256), np.uint16))
    contenders = {
        "slipstick": partial(slipstick.mitchell.matmul, a, b),
        "slipstick, Table": partial(slipstick.mitchell.matmul, a, b, method=table),
        "numpy (exact, uint32)": partial(np.matmul, a, b, dtype=np.uint32),
    }
    yield Case(f"matmul, uint8, {shape}", size**3, "MAC", contenders)


def _attention() -> Iterator[Case]:
    rng = np.random.default_rng(0)
    torch = _torch()
    for tokens in (128, 1024):
        arrays = rng.standard_normal((3, 1, 8, tokens, 64)).astype(np.float32)
        for causal in (False, True):
            contenders: dict[str, Call] = {
                "slipstick": partial(slipstick.attention, *arrays, causal=causal)
            }
            if torch:
                contenders["torch SDPA (fixed scale)"] = partial(
                    torch.nn.functional.scaled_dot_product_attention,
                    *map(torch.from_numpy, arrays),
                    is_causal=causal,
                )
            kind = "causal" if causal else "full"
            work = 4 * 8 * tokens * tokens * 64 / (2 if causal else 1)
            yield Case(f"attention, {kind}, 8 x {tokens} x 64", work, "FLOP", contenders)


def _projection() -> Iterator[Case]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1000, 10_000)).astype(np.float32)
    given = rng.standard_normal((10_000, 256)).astype(np.float32)
    contenders: dict[str, Call] = {
        "slipstick, rademacher": partial(slipstick.projection.project, x, 256),
        "slipstick, gaussian": partial(slipstick.projection.project, x, 256, kind="gaussian"),
        "numpy, matrix given": partial(np.matmul, x, given),
    }
    try:
        from sklearn.random_projection import GaussianRandomProjection
    except ImportError:
        pass
    else:
        estimator = GaussianRandomProjection(256, random_state=0)
        contenders["scikit-learn, fit + transform"] = partial(estimator.fit_transform, x)
    yield Case("project, 1000 x 10000 to 256", 2 * 1000 * 10_000 * 256, "FLOP", contenders)


_FAMILIES = {"mitchell": _mitchell, "attention": _attention, "projection": _projection}


def machine() -> dict[str, str]:
    """Return what a figure depends on: processor, compiler, level, threads, versions."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(
            line.partition(":")[2].strip() for line in lines if line.startswith("model name")
        )
        family, model = (
            next(line.partition(":")[2].strip() for line in lines if line.startswith(key))
            for key in ("cpu family", "model\t")
        )
        cpu += f", family {family}, model {model}"
    except (OSError, StopIteration):
        cpu = platform.processor() or platform.machine()
    packages = ("numpy", "torch", "scikit-learn", "threadpoolctl")
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {"cpu": cpu, "slipstick": info(), **versions}


def run(family: str | None = None, json_path: Path | None = None) -> int:
    """Time one family or all, print a table, and write the figures where asked.

    Parameters
    ----------
    family : str, optional
        "mitchell", "attention" or "projection"; all three by default.
    json_path : Path, optional
        A file for the figures.

    Returns
    -------
    int
        0.
    """
    facts = machine()
    print(facts["cpu"])
    print(facts["slipstick"])
    timings = []
    for name in [family] if family else list(_FAMILIES):
        for case in _FAMILIES[name]():
            timing = measure(case)
            timings.append(timing)
            own = next(iter(timing.seconds.values()))
            print(f"\n{timing.case}")
            for contender, seconds in timing.seconds.items():
                rate = timing.work / seconds / 1e9
                ratio = "" if seconds == own else f"  {seconds / own:6.2f} x the time"
                print(
                    f"  {contender:30} {seconds * 1e6:12.1f} us {rate:8.1f} G{timing.unit}/s{ratio}"
                )
            sys.stdout.flush()
    if json_path is not None:
        figures = {"machine": facts, "timings": [timing._asdict() for timing in timings]}
        json_path.write_text(json.dumps(figures, indent=2) + "\n")
    return 0
