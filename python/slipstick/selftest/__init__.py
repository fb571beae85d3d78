"""`slipstick selftest`: whether this installation computes what it should.

Every family is compared with `slipstick.reference`, at every instruction-set level and on 1, 2 and
7 threads; or, on a CUDA device, Mitchell's and random projection with the CPU, bit for bit, and
attention with the same reference as on the CPU.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import TextIO

from slipstick._version import __version__
from slipstick.bench import machine
from slipstick.selftest import (
    _attention,
    _devices,
    _mitchell,
    _mitchell_cuda,
    _projection,
    _projection_cuda,
)
from slipstick.selftest._check import Check, Outcome, perform
from slipstick.selftest._inputs import BFLOAT16

__all__ = ["run"]

_ON_CPU = [*_mitchell.CHECKS, *_attention.CHECKS, *_projection.CHECKS]
_ON_CUDA = [*_mitchell_cuda.CHECKS, *_attention.CHECKS, *_projection_cuda.CHECKS]
_SHOWN = 3  # failures of a check that are printed


def run(device: str = "cpu", json_path: Path | None = None) -> int:
    """Run the checks, print a table, and write it as JSON where asked.

    Parameters
    ----------
    device : str
        "cpu", "cuda" or, where there are several, such as "cuda:1".
    json_path : Path, optional
        A file for what the table says.

    Returns
    -------
    int
        0 if every check was passed, else 1.

    Raises
    ------
    ValueError
        If there is no such device, or nothing that makes arrays there, or no such file can be
        written.
    """
    place = _devices.find(device)
    with contextlib.ExitStack() as stack:
        # Opened first: what cannot be written is said before the checks have run.
        file = stack.enter_context(_opened(json_path)) if json_path is not None else None
        start = time.perf_counter()
        outcomes = _run_checks(place, _ON_CPU if place.name == "cpu" else _ON_CUDA)
        seconds = time.perf_counter() - start
        if file is not None:
            json.dump(_figures(place, outcomes), file, indent=2)
            file.write("\n")
    failed = [outcome for outcome in outcomes if outcome.failures]
    for outcome in failed:
        _print_failures(outcome)
    verdict = f"{len(failed)} of {len(outcomes)} checks failed" if failed else "all checks passed"
    print(f"\n{verdict}, {seconds:.1f} s")
    if not BFLOAT16:
        print("bfloat16 was not checked: NumPy knows it where ml_dtypes is installed")
    return 1 if failed else 0


def _opened(path: Path) -> TextIO:
    try:
        return path.open("w")
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(f"--json must be a file to write, got '{path}': {reason}") from error


def _run_checks(place: _devices.Device, checks: list[Check]) -> list[Outcome]:
    """Run the checks and print each row when it is known."""
    print(f"slipstick {__version__} on {place.name}: {place.description}\n")
    family = max(len(check.family) for check in checks)
    name = max(len(check.name) for check in checks)
    titles = f"{'family':{family}}  {'check':{name}}  {'cases':>6}  {'error / bound':>13}"
    print(f"{titles}  {'result':6}  seconds")
    outcomes = []
    for check in checks:
        outcome = perform(check, place.run)
        outcomes.append(outcome)
        worst = "bits equal" if outcome.worst is None else f"{outcome.worst:.3g}"
        if outcome.failures and outcome.worst is None:
            worst = "bits differ"
        result = "FAILED" if outcome.failures else "ok"
        row = f"{outcome.family:{family}}  {outcome.check:{name}}  {outcome.cases:6}  {worst:>13}"
        print(f"{row}  {result:6}  {outcome.seconds:7.1f}")
        sys.stdout.flush()
    return outcomes


def _print_failures(outcome: Outcome) -> None:
    print(f"\n{outcome.family}, {outcome.check}:")
    for failure in outcome.failures[:_SHOWN]:
        print(f"  {failure}")
    more = len(outcome.failures) - _SHOWN
    if more > 0:
        print(f"  and {more} more")


def _figures(place: _devices.Device, outcomes: list[Outcome]) -> dict[str, object]:
    rows = [vars(outcome) | {"ok": not outcome.failures} for outcome in outcomes]
    return {"machine": machine(), "device": f"{place.name}: {place.description}", "checks": rows}
