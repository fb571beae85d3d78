"""The program `slipstick`: info, demo and bench."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from slipstick import _cpu, get_isa, get_num_threads
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
    options = parser.parse_args(arguments)

    if options.command == "info":
        print(info())
        return 0
    # The other two import optional packages: only when they are asked for.
    if options.command == "demo":
        status: int = import_module("slipstick.demo").run(options.out)
    else:
        status = import_module("slipstick.bench").run(options.family, options.json)
    return status


def info() -> str:
    """Return what `slipstick info` prints.

    Examples
    --------
    >>> import slipstick.cli
    >>> slipstick.cli.info().startswith("slipstick ")
    True
    """
    available = _cpu.levels[: _cpu.levels.index(_cpu.best_isa) + 1]
    rows = {
        "python": f"{platform.python_version()} on {platform.machine()}",
        "compiler": _cpu.compiler,
        "levels compiled": ", ".join(_cpu.levels),
        "levels available": ", ".join(available),
        "level active": get_isa(),
        "threads": str(get_num_threads()),
        "cuda": _cuda_state(),
    }
    width = max(map(len, rows))
    lines = [f"slipstick {__version__}"]
    lines += [f"  {name:{width}}  {value}" for name, value in rows.items()]
    return "\n".join(lines)


def _cuda_state() -> str:
    try:
        from slipstick import _cuda
    except ImportError:
        return "not in this build"
    major, minor = divmod(_cuda.runtime_version // 10, 100)
    names = [_cuda.device_name(index) for index in range(_cuda.device_count())]
    return f"runtime {major}.{minor}, " + (", ".join(names) if names else "no device found")
