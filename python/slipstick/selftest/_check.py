"""A check is a number of cases; a case is a call and what has to come out of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Arrays = tuple[Array, ...]


class Case(NamedTuple):
    """A call and what it has to give.

    `expected` is what the definition gives, `bound` how far off each number may be; without a bound
    bits are compared. Without `expected` the CPU's result takes its place, and its bits count.
    `portable` says that all instruction-set levels give the same bits.
    """

    label: str
    call: Callable[..., Any]
    operands: Arrays
    expected: Any = None
    bound: Any = None
    portable: bool = True


class Check(NamedTuple):
    """Cases of one family that make a row of the table."""

    family: str
    name: str
    cases: Callable[[], Iterator[Case]]


class Run(NamedTuple):
    """One result of a case's call, and where it was made."""

    setting: str
    level: str
    results: Arrays


# How a device runs a case: once for every setting that it has.
Runner = Callable[[Case], Iterator[Run]]


@dataclass
class Outcome:
    """A row of the table."""

    family: str
    check: str
    cases: int = 0
    worst: float | None = None  # error over its bound; None: bits were compared
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0


def as_arrays(result: Any) -> Arrays:
    """Return one array or several as several."""
    return tuple(map(np.asarray, result)) if isinstance(result, tuple) else (np.asarray(result),)


def bits_differ(a: Array, b: Array) -> NDArray[np.bool_]:
    """Return where bits differ; a NaN is equal to a NaN."""
    pattern = f"u{a.dtype.itemsize}"
    differ = np.ascontiguousarray(a).view(pattern) != np.ascontiguousarray(b).view(pattern)
    differ = differ.reshape(a.shape)
    if a.dtype.kind not in "iub":
        differ &= ~(np.isnan(a) & np.isnan(b))
    return np.asarray(differ)


def errors_over_bound(got: Array, expected: Array, bound: Any) -> NDArray[np.float64]:
    """Return the errors in units of their bounds: 0 for equal numbers, infinite for a lone NaN."""
    wide, right = got.astype(np.float64), np.asarray(expected).astype(np.float64)
    same = (wide == right) | (np.isnan(wide) & np.isnan(right))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        ratio = np.where(same, 0.0, np.abs(wide - right) / bound)
    return np.where(np.isnan(ratio), np.inf, ratio)


def _report(got: Array, expected: Array, wrong: NDArray[np.bool_]) -> str:
    at = tuple(int(axis[0]) for axis in np.nonzero(wrong))
    place = f" at {at}" if at else ""
    return (
        f"{np.count_nonzero(wrong)} of {wrong.size} numbers are wrong, first{place}: "
        f"got {got[at]}, expected {expected[at]}"
    )


def _difference(outcome: Outcome, results: Arrays, expected: Arrays, bounds: Any) -> str | None:
    """Compare with the definition, keep the worst error, and say what is wrong, if anything."""
    for i, (got, right) in enumerate(zip(results, expected, strict=True)):
        if got.shape != right.shape:
            return f"the shape is {got.shape}, expected {right.shape}"
        if bounds is None:
            if got.dtype != right.dtype:
                return f"the dtype is {got.dtype}, expected {right.dtype}"
            wrong = bits_differ(got, right)
        else:
            ratio = errors_over_bound(got, right, bounds[i])
            worst = min(float(ratio.max(initial=0.0)), sys.float_info.max)  # JSON has no infinity
            outcome.worst = max(outcome.worst or 0.0, worst)
            wrong = ratio > 1
        if wrong.any():
            return _report(got, right, wrong)
    return None


def _check_case(case: Case, runner: Runner, outcome: Outcome) -> None:
    expected = as_arrays(case.call(*case.operands) if case.expected is None else case.expected)
    bounds = None
    if case.bound is not None:
        bounds = case.bound if isinstance(case.bound, tuple) else (case.bound,)
    firsts: dict[str, Run] = {}
    for run in runner(case):
        outcome.cases += 1
        wrong = _difference(outcome, run.results, expected, bounds)
        if wrong is None:
            first = firsts.setdefault("" if case.portable else run.level, run)
            for a, b in zip(run.results, first.results, strict=True):
                differ = bits_differ(a, b)
                if differ.any():
                    wrong = f"not the bits of {first.setting}: {_report(a, b, differ)}"
        if wrong is not None:
            outcome.failures.append(f"{case.label}, {run.setting}: {wrong}")
            return  # what other settings give says no more


def perform(check: Check, runner: Runner) -> Outcome:
    """Run the cases of a check on a device."""
    outcome = Outcome(check.family, check.name)
    start = time.perf_counter()
    label = "the first case"
    try:
        for case in check.cases():
            label = case.label
            _check_case(case, runner, outcome)
    except Exception as error:  # a check that cannot run has failed, and the others go on
        outcome.failures.append(f"{label}: raised {type(error).__name__}: {error}")
    outcome.seconds = time.perf_counter() - start
    return outcome
