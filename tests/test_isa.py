"""Instruction-set levels: how they are chosen, and that no level's code serves another."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import slipstick
from slipstick import _cpu

ROOT = Path(__file__).parent.parent
SHOW = "import slipstick; print(slipstick.get_isa())"


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    full = {k: v for k, v in os.environ.items() if k != "SLIPSTICK_ISA"} | environment
    return subprocess.run([sys.executable, "-c", code], env=full, capture_output=True, text=True)


def test_the_best_level_is_the_default():
    assert run_python(SHOW).stdout.strip() == _cpu.best_isa
    assert _cpu.best_isa in _cpu.levels


@pytest.mark.skipif(_cpu.levels[0] != "v2", reason="the levels are those of x86-64")
def test_the_best_level_is_what_the_processor_says():
    flags = set(re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.M)[1].split())
    v3 = {"avx2", "fma", "bmi1", "bmi2", "f16c", "movbe"} <= flags
    v4 = v3 and {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"} <= flags
    bf16 = v4 and {"avx512_bf16", "avx512_vnni"} <= flags
    assert _cpu.best_isa == ("v4_bf16" if bf16 else "v4" if v4 else "v3" if v3 else "v2")


def test_the_environment_lowers_the_level_and_never_raises_it():
    for level in _cpu.levels:
        available = _cpu.levels.index(level) <= _cpu.levels.index(_cpu.best_isa)
        expected = level if available else _cpu.best_isa
        assert run_python(SHOW, SLIPSTICK_ISA=level).stdout.strip() == expected


def test_an_unknown_level_in_the_environment_is_refused():
    message = "slipstick: the environment variable SLIPSTICK_ISA must be one of "
    assert message in run_python(SHOW, SLIPSTICK_ISA="avx9").stderr


def test_set_isa():
    before = slipstick.get_isa()
    for level in _cpu.levels[: _cpu.levels.index(_cpu.best_isa) + 1]:
        slipstick.set_isa(level)
        assert slipstick.get_isa() == level
    slipstick.set_isa(before)


@pytest.mark.parametrize(
    "level", ["avx9", "", "V3", *_cpu.levels[_cpu.levels.index(_cpu.best_isa) + 1 :]]
)
def test_levels_that_the_machine_lacks_are_refused(level):
    before = slipstick.get_isa()
    message = rf"^set_isa: `level` must be one that this machine runs \(.*\), got '{level}'$"
    with pytest.raises(ValueError, match=message):
        slipstick.set_isa(level)
    assert slipstick.get_isa() == before


def test_set_isa_takes_a_string():
    with pytest.raises(TypeError, match=r"^set_isa: `level` must be a str, got int$"):
        slipstick.set_isa(3)


LEVEL_FLAGS = {
    "v2": ["-march=x86-64-v2"],
    "v3": ["-march=x86-64-v3"],
    "v4": ["-march=x86-64-v4"],
    "v4_bf16": ["-march=x86-64-v4", "-mavx512bf16", "-mavx512vnni"],
    "baseline": [],
}


def build_trees() -> list[Path]:
    """Return where this checkout was built; a sanitizer adds symbols of its own to what it sees."""
    trees = []
    for cache in ROOT.glob("build/*/CMakeCache.txt"):
        text = cache.read_text()
        home = re.search(r"^CMAKE_HOME_DIRECTORY:INTERNAL=(.*)$", text, re.M)
        sanitized = re.search(r"^SLIPSTICK_(SANITIZE|TSAN):BOOL=ON$", text, re.M)
        if home and Path(home[1]).resolve() == ROOT.resolve() and not sanitized:
            trees.append(cache.parent)
    return trees


def with_headers(source: Path) -> set[Path]:
    """Return a source and all that it includes of this package."""
    found, todo = set(), [source]
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            names = re.findall(r'^#include "(.+)"', path.read_text(), re.M)
            todo += [ROOT / "cpp" / name for name in names]
    return found


def built_object(trees: list[Path], source: Path, level: str) -> Path | None:
    """Return what the last build made of a source, if nothing that it stands on is newer."""
    name = Path(f"CMakeFiles/slipstick_{level}.dir", f"{source.relative_to(ROOT)}.o")
    made = [tree / name for tree in trees if (tree / name).is_file()]
    newest = max(made, key=lambda path: path.stat().st_mtime_ns, default=None)
    # The flags stand in CMakeLists.txt.
    needs = [ROOT / "CMakeLists.txt", *with_headers(source)]
    if newest and newest.stat().st_mtime_ns > max(path.stat().st_mtime_ns for path in needs):
        return newest
    return None


@pytest.fixture(scope="module")
def compiled(request, tmp_path_factory):
    """Return a function that finds the build's object, or compiles one where there is none.

    Of what the tests to run ask for, on all cores: 80 objects take minutes on one.
    """
    if shutil.which("nm") is None:
        pytest.skip("no nm on this machine")
    folder = tmp_path_factory.mktemp("levels")
    compiler = shutil.which("g++") or shutil.which("c++")
    trees = build_trees()

    def compile_object(source: Path, level: str) -> Path:
        if built := built_object(trees, source, level):
            return built
        if compiler is None:
            pytest.skip("no C++ compiler on this machine, and no build of these sources")
        # -O1 takes a fifth of the time and inlines less than the build: what could leak, leaks.
        flags = ["-std=c++20", "-O1", "-fPIC", "-ffp-contract=off", *LEVEL_FLAGS[level]]
        target = folder / f"{source.parent.name}-{source.stem}-{level}.o"
        command = [compiler, *flags, f"-DSLIPSTICK_LEVEL={level}", f"-I{ROOT / 'cpp'}"]
        subprocess.run([*command, "-c", str(source), "-o", str(target)], check=True)
        return target

    calls = [getattr(item, "callspec", None) for item in request.session.items]
    wanted = [call.params for call in calls if call is not None and "source" in call.params]
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
    objects = {
        (params["source"], params["level"]): pool.submit(
            compile_object, params["source"], params["level"]
        )
        for params in wanted
    }
    yield lambda source, level: objects[source, level].result()
    pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize(
    "source", sorted(ROOT.glob("cpp/*/*.simd.cpp")), ids=lambda p: f"{p.parent.name}-{p.stem}"
)
@pytest.mark.parametrize("level", _cpu.levels)
def test_level_objects_have_no_weak_symbols(compiled, source, level):
    """Merged with another level's it would bring illegal instructions to older machines."""
    target = compiled(source, level)
    symbols = subprocess.run(["nm", "-C", str(target)], check=True, capture_output=True, text=True)
    lines = symbols.stdout.splitlines()
    defined = [line.split(maxsplit=2) for line in lines if not line.startswith(" " * 16)]
    weak = [entry[2] for entry in defined if entry[1] in "WVwvu"]
    assert weak == []
    # One table of the family and the file: mitchell_float_kernels, attention_kernels.
    outside = [entry[2] for entry in defined if entry[1] in "TDRB"]
    table = rf"slipstick::cpu::{level}::{source.parent.name}_(\w+_)?kernels"
    assert len(outside) == 1
    assert re.fullmatch(table, outside[0])
