"""The program `slipstick`: info, errors, demo, bench, selftest and cmakedir."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from slipstick import _cpu, cmake_dir, get_isa, get_num_threads, mitchell
from slipstick._backend import cuda_kernels
from slipstick._version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program.

    Parameters
    ----------
    arguments : sequence of str, optional
        The words after the program's name; `sys.argv` by default.

    Returns
    -------
    int
        The exit status.
    """
    parser = argparse.ArgumentParser(
        prog="slipstick", description="Numeric kernels that run on logarithms."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("info", help="version, compiler, instruction-set levels, threads, CUDA")
    errors = commands.add_parser("errors", help="what an approximate multiplier gets wrong")
    _add_errors_arguments(errors)
    demo = commands.add_parser("demo", help="the three kernel families on a sentence encoder")
    demo.add_argument(
        "--out",
        type=Path,
        default=Path("slipstick-demo"),
        help="folder for the pictures (default: %(default)s)",
    )
    bench = commands.add_parser("bench", help="time the kernels beside their peers")
    bench.add_argument(
        "family",
        nargs="?",
        choices=("mitchell", "attention", "projection"),
        help="one family only (default: all)",
    )
    bench.add_argument("--json", type=Path, help="write the figures to this file too")
    selftest = commands.add_parser("selftest", help="check what this installation computes")
    selftest.add_argument(
        "--device", default="cpu", help="cpu, cuda or such as cuda:1 (default: %(default)s)"
    )
    selftest.add_argument("--json", type=Path, help="write the table to this file too")
    cmakedir = commands.add_parser("cmakedir", help="where CMake finds the package for C++ users")
    options = parser.parse_args(arguments)

    if options.command == "info":
        print(info())
        return 0
    if options.command == "cmakedir":
        try:
            print(cmake_dir())
        except FileNotFoundError as error:
            cmakedir.error(str(error))
        return 0
    if options.command == "errors":
        try:
            text = _errors(options)
        except (TypeError, ValueError, OSError, ImportError) as error:
            errors.error(str(error))
        print(text)
        return 0
    # The others import what the rest does not need, optional packages too: only when asked for.
    if options.command == "selftest":
        try:
            failed: int = import_module("slipstick.selftest").run(options.device, options.json)
        except ValueError as error:
            selftest.error(str(error))
        return failed
    if options.command == "demo":
        status: int = import_module("slipstick.demo").run(options.out)
    else:
        status = import_module("slipstick.bench").run(options.family, options.json)
    return status


# The parameter that stands behind a colon: drum:5 is DRUM(5).
_PARAMETERS: dict[str, tuple[Callable[[str], Any], Callable[[Any], mitchell.Method]]] = {
    "mitchell": (float, mitchell.Mitchell),
    "lmul": (int, mitchell.LMul),
    "lmul-formula": (int, mitchell.LMulFormula),
    "mbm": (int, mitchell.MBM),
    "realm": (int, mitchell.REALM),
    "ilm": (int, mitchell.ILM),
    "mitch-w": (int, mitchell.MitchW),
    "drum": (int, mitchell.DRUM),
    "alm-soa": (int, mitchell.ALMSOA),
    "table": (Path, mitchell.load_table),
}


def _add_errors_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "method",
        metavar="METHOD",
        help=f"one of {', '.join(mitchell.methods())}; with a parameter as in drum:5, realm:8 or "
        "mitchell:0.0625; or table:FILE, 256 x 256 products in the format of TFApprox",
    )
    parser.add_argument(
        "--bits",
        default="8",
        help="width of the integer operands, 2 to 32, or float32, float64, float16, bfloat16 "
        "(default: %(default)s)",
    )
    parser.add_argument("--signed", action="store_true", help="two's complement operands")
    parser.add_argument(
        "--count-zeros", action="store_true", help="pairs with a zero count as no error"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="save a picture")


def _errors(options: argparse.Namespace) -> str:
    bits = int(options.bits) if options.bits.lstrip("-").isdecimal() else options.bits
    report = mitchell.error_report(
        _method(options.method),
        bits,
        signed=options.signed,
        count_zeros=options.count_zeros,
        progress=_show_progress if sys.stderr.isatty() else None,
    )
    if options.plot is not None:
        report.plot(options.plot)
    return json.dumps(report.to_dict(), indent=1) if options.json else str(report)


def _method(text: str) -> str | mitchell.Method:
    name, colon, parameter = text.partition(":")
    if not colon:
        return name
    if name not in _PARAMETERS:
        expected = ", ".join(_PARAMETERS)
        raise ValueError(f"METHOD must be one of {expected} before a colon, got {text!r}")
    convert, make = _PARAMETERS[name]
    try:
        value = convert(parameter)
    except ValueError:
        kind = {int: "an integer", float: "a number"}[convert]  # type: ignore[index]
        raise ValueError(f"METHOD must have {kind} after the colon, got {text!r}") from None
    return make(value)


def _show_progress(share: float) -> None:
    print(f"\r{share:6.1%}", end="\n" if share == 1 else "", file=sys.stderr, flush=True)


def info() -> str:
    """Return what `slipstick info` prints.

    Examples
    --------
    >>> import slipstick.cli
    >>> slipstick.cli.info().startswith("slipstick ")
    True
    """
    rows = {
        "python": f"{platform.python_version()} on {platform.machine()}",
        "compiler": _cpu.compiler,
        "levels compiled": ", ".join(_cpu.levels),
        "levels available": ", ".join(available_levels()),
        "level active": get_isa(),
        "threads": str(get_num_threads()),
        "cuda": _cuda_state(),
        **_attention_kernels(),
    }
    width = max(map(len, rows))
    lines = [f"slipstick {__version__}"]
    lines += [f"  {name:{width}}  {value}" for name, value in rows.items()]
    return "\n".join(lines)


def available_levels() -> list[str]:
    """Return the instruction-set levels that were compiled and that this machine runs."""
    return list(_cpu.levels[: _cpu.levels.index(_cpu.best_isa) + 1])


def cuda_devices() -> list[str] | None:
    """Return what is known of each CUDA device, or None in a build without CUDA."""
    kernels = cuda_kernels()
    if kernels is None:
        return None
    return [_device(kernels, index) for index in range(kernels.device_count())]


def _device(kernels: Any, index: int) -> str:
    major, minor = kernels.compute_capability(index)
    gigabytes = kernels.device_memory(index) / 2**30
    name = kernels.device_name(index)
    return f"{index}: {name} ({gigabytes:.0f} GiB, compute capability {major}.{minor})"


def _attention_kernels() -> dict[str, str]:
    """Return what attention runs on each CUDA device, which differs with its capability."""
    kernels = cuda_kernels()
    if kernels is None:
        return {}
    return {
        f"attention on cuda:{index}": "; ".join(kernels.attention_kernels(index))
        for index in range(kernels.device_count())
    }


def _cuda_state() -> str:
    kernels, devices = cuda_kernels(), cuda_devices()
    if kernels is None or devices is None:
        return "not in this build"
    major, minor = divmod(kernels.runtime_version // 10, 100)
    return f"runtime {major}.{minor}, " + (", ".join(devices) if devices else "no device found")
